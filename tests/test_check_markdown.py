"""Tests scripts/check_markdown.py: it finds long lines and second sentences, and nothing else."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

_PATH = Path(__file__).parent.parent / "scripts" / "check_markdown.py"
_SPEC = importlib.util.spec_from_file_location("check_markdown", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
check_markdown = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(check_markdown)

LONG = "word " * 30


@pytest.mark.parametrize(
    "line",
    [
        "One sentence. Another one.",
        "Is it there? It is.",
        "It fails! Then it stops.",
        "Run `check`. `status` shows the rest.",
        "The version is 3.4. It needs Python 3.11.",
        "See [grants](../reference/grants.md). They are denied by default.",
        "**Central is strict.** After the state, a lease ends.",
        "(It is refused.) The worker waits.",
        "- The first item. It has two sentences.",
        "2. Restart it. Then wait.",
        "> A quotation. Another one.",
        "It reads files, logs, etc. The rest is left alone.",
        "It takes seconds. 200 requests wait.",
        "Look at https://example.com/a.html. Then go on.",
    ],
)
def test_a_second_sentence_on_a_line_is_found(line: str) -> None:
    assert [number for number, _ in check_markdown.problems(line)] == [1]


@pytest.mark.parametrize(
    "line",
    [
        "One sentence that ends here.",
        "the end of a wrapped sentence.",
        "Some options, e.g. `poll_seconds`, i.e. Central's own, have defaults.",
        "It takes 1.5 s with Airflow 3.3.2 and 2.0 s with 3.4.0b2.",
        "Change foo.py and bar.toml.",
        "Postgres vs. MySQL.",
        "Files, logs, etc. are kept.",
        "Run `a. B` and wait.",
        "See [one. Two](page.md) and ![a picture. Of it](a.png) below.",
        "1. Install the package.",
        "- `No. 5` and no. 5 are names.",
        "It waits ... Airflow does the same.",
        "Two ideas; the second one is `Shorter`.",
    ],
)
def test_one_sentence_is_accepted(line: str) -> None:
    assert list(check_markdown.problems(line)) == []


def test_a_line_of_more_than_120_columns_is_found() -> None:
    assert list(check_markdown.problems("x" * 120)) == []
    [(number, problem)] = check_markdown.problems("fine\n" + "x" * 121)
    assert number == 2
    assert "121 columns" in problem


@pytest.mark.parametrize(
    "text",
    [
        f"```\n{LONG}. {LONG}\n```",
        f"~~~python\n{LONG}\n~~~",
        f"- an item\n  ```\n  {LONG}\n  ```",
        f"<!-- rules:begin -->\n{LONG}. Two.\n<!-- rules:end -->",
        f"| a | b |\n|---|---|\n| {LONG}. Two. | c |",
        f"# A heading. {LONG}",
        f"<!-- a comment. {LONG} -->",
        f"Text:\n\n    {LONG}\n    {LONG}",
        f"- [a link](https://example.com/{'x' * 120})",
        f"![a picture](../images/{'x' * 120}.png)",
        f"[name]: https://example.com/{'x' * 120}",
        f"https://example.com/{'x' * 120}",
    ],
)
def test_text_that_is_not_prose_is_exempt(text: str) -> None:
    assert list(check_markdown.problems(text)) == []


def test_prose_after_an_exempt_block_is_checked() -> None:
    text = f"```\n{LONG}\n```\n{LONG}\n<!-- x:begin -->\n{LONG}\n<!-- x:end -->\nOne. Two."
    assert [number for number, _ in check_markdown.problems(text)] == [4, 8]


def test_an_indented_list_item_is_checked() -> None:
    assert [number for number, _ in check_markdown.problems("- a\n\n    - One. Two.")] == [3]
