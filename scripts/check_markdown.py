"""Checks the form of Markdown files: one sentence a line, at most 120 columns.

A change of one sentence then changes one line, and a review shows which sentence changed.

Run by `scripts/check`. Tables, code, generated blocks, headings and lines that contain only a link are exempt.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
COLUMNS = 120

ABBREVIATIONS = ("e.g.", "i.e.", "vs.", "cf.", "approx.", "incl.", "resp.", "no.", "dr.", "mr.", "ms.", "st.")
"""A period after one of these never ends a sentence."""

_FENCE = re.compile(r"\s*(?:[-*+]\s+|\d+\.\s+)?(`{3,}|~{3,})")
_BLOCK = re.compile(r"<!-- ([\w-]+):(begin|end) -->")
_MARKER = re.compile(r"^(?:\s|>|[-*+]\s|\d+[.)]\s)+")
_CODE = re.compile(r"(`+)(?:(?!\1).)+\1")
_LINK = re.compile(r"!?\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])")
_ADDRESS = re.compile(r"<?https?://\S*[\w/=>]")
_END = re.compile(r"""(\S*[.!?][)\]"'*_]*)\s+(?=[("'\[*_]*[A-Z0-9])""")


def main() -> int:
    wrong = [
        f"{name}:{number}: {problem}"
        for name in _tracked()
        for number, problem in problems((ROOT / name).read_text(encoding="utf-8"))
    ]
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


def problems(text: str) -> Iterator[tuple[int, str]]:
    """Return the line numbers (from 1) and problems of a Markdown text."""
    for number, line in prose(text):
        if len(line) > COLUMNS:
            yield number, f"{len(line)} columns; {COLUMNS} are allowed: wrap or split the sentence"
        if second := second_sentence(line):
            yield number, f"a second sentence begins at {second!r}: put it on a line of its own"


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Return the lines that the rules apply to, with their numbers."""
    fence = block = ""
    indented = False  # within a code block of lines indented by four blanks
    before = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if block or fence:
            block = "" if block and f"<!-- {block}:end -->" in line else block
            fence = "" if fence and line.strip().startswith(fence) else fence
        elif found := _BLOCK.search(line):
            block = found[1] if found[2] == "begin" else ""
        elif found := _FENCE.match(line):
            fence = found[1]
        elif line.startswith("    ") and (indented or not before.strip()) and not _MARKER.match(line.strip() + " "):
            indented = True
        elif line.strip():
            indented = False
            if not _exempt(line):
                yield number, line
        before = line


def _exempt(line: str) -> bool:
    """Return whether a line is a heading, a row of a table, a comment, or only a link."""
    bare = _MARKER.sub("", line)
    if bare.startswith(("#", "|", "<!--")) or re.match(r"\[[^\]]+\]: \S", bare):
        return True
    return not re.search(r"\w", _ADDRESS.sub("", _LINK.sub("", bare)))


def second_sentence(line: str) -> str:
    """Return the beginning of the second sentence on a line, or an empty text."""
    text = _MARKER.sub("", line)
    # Code, link texts and addresses can contain periods; they can begin a sentence but not end one.
    text = _CODE.sub("Code", text)
    text = _LINK.sub(lambda link: re.sub(r"[.!?]", "", link[1]), text)
    text = _ADDRESS.sub("Address", text)
    for end in _END.finditer(text):
        word = end[1].strip("()[]\"'*_").lower()
        if word in ABBREVIATIONS or re.fullmatch(r"[a-z]\.|\.{2,}", word):
            continue
        return text[end.end() :][:30]
    return ""


def _tracked() -> list[str]:
    done = subprocess.run(["git", "-C", ROOT, "ls-files", "-z", "*.md"], capture_output=True, text=True, check=True)
    return [name for name in done.stdout.split("\0") if name and (ROOT / name).exists()]


if __name__ == "__main__":
    sys.exit(main())
