"""Checks that sources and documents use plain technical English: no archaisms, no metaphors, standard terms.

Run by `make check`. Reads every word of every tracked text file and splits identifiers into words (`told_at`, `isTold`).
CONTRIBUTING.md lists the replacements.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
SUFFIXES = {".py", ".ts", ".tsx", ".md", ".sh", ".toml", ".yaml", ".yml", ".in", ".c", ".env", ".service", ""}

BANNED = {
    "anew": "again, or: a new …",
    "asunder": "apart",
    "door": "name the thing: gateway, route, access",
    "hear": "receive, learn, be notified",
    "insist": "require, check",
    "knock": "call, try",
    "lest": "so that … not",
    "owe": "name what is missing or pending",
    "seldom": "rarely, or: at longer intervals",
    "somebody": "someone, a user, an operator, or the passive",
    "stir": "notify, mark busy",
    "told": "reported, sent, notified, given",
    "vigil": "observation window",
    "vouch": "refresh, confirm",
    "whence": "from where",
    "whoever": "a caller that, anyone who",
    "wish": "intent, request",
}
"""Word → what to write instead. Inflected forms (FORMS) are found too."""
FORMS = {
    "door": ("doors",),
    "hear": ("hears", "heard", "hearing", "unheard"),
    "insist": ("insists", "insisted", "insisting"),
    "knock": ("knocks", "knocked", "knocking"),
    "owe": ("owes", "owed"),
    "seldom": ("seldomer",),
    "stir": ("stirs", "stirred", "stirring"),
    "told": ("untold",),
    "vouch": ("vouches", "vouched", "vouching", "unvouched"),
    "wish": ("wishes", "wished", "wishing"),
}
PHRASES = {
    r"(?:[Tt]here )?\b(?:[Ii]s|[Aa]re|[Ww]as|[Ww]ere) none\b": "there is no …, or name what is missing",
    r"(?i)\bin vain\b": "without success",
    r"(?i)\bwho may\b(?! be\b)": "who is allowed to, or name the right",
    r"(?i)\bpeople's\b": "users', or: of users",
    r"(?i)\ba person's\b": "a user's",
    r"(?i)\b(?:he|him|his|she|her)\b": "they, the user, the operator",
    r"(?i)\bsaid its last word\b": "ended",
}
"""Regular expression → what to write instead. `is None` is code, so `none` counts in lower case only."""

ALLOWED_NAMES = {
    "intent_heard": "a field of the REST API",
    "heard_revision": "a column of the database",
}
"""Identifier → the reason why it is allowed everywhere."""
ALLOWED: dict[str, dict[str, str]] = {
    "scripts/check_language.py": {"*": "it lists the words"},
    "tests/test_check_language.py": {"*": "it tests the list"},
    "provider/src/airflow_remote_provider/migrations/versions/0012_usage.py": {"told": "a column of the database"},
    "provider/src/airflow_remote_provider/models/usage.py": {"told": "a column of the database"},
}
"""File → word (`*`: every word) → the reason why it is allowed there."""

_NAMES = re.compile(rf"\b(?:{'|'.join(ALLOWED_NAMES)})\b")
_WORDS = re.compile(r"[A-Za-z]+")
_CAMEL = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_INSTEAD = BANNED | {form: BANNED[word] for word, forms in FORMS.items() for form in forms}


def findings(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield for each banned word or phrase its line number, the found text and what to write instead."""
    for number, line in enumerate(_NAMES.sub("", text).splitlines(), 1):
        for run in _WORDS.findall(line):
            for word in _CAMEL.findall(run):
                if (instead := _INSTEAD.get(word.lower())) is not None:
                    yield number, word.lower(), instead
        for pattern, instead in PHRASES.items():
            for found in re.finditer(pattern, line):
                yield number, found[0].lower(), instead


def main(arguments: list[str]) -> int:
    """Check the files and directories in *arguments*, or all files; return the exit code."""
    listed = subprocess.run(["git", "ls-files", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [path for path in listed.splitlines() if Path(path).suffix in SUFFIXES and (ROOT / path).is_file()]
    words = count = 0
    for path in paths:
        text = (ROOT / path).read_text(encoding="utf-8", errors="replace")
        words += len(_WORDS.findall(text))
        allowed = ALLOWED.get(path, {})
        for number, found, instead in findings(text):
            if "*" not in allowed and found not in allowed:
                count += 1
                print(f"{path}:{number}: {found!r}: write {instead}", file=sys.stderr)
    print(f"language: {len(paths)} files, {words} words, {count} findings")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
