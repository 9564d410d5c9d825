"""Tests scripts/check_language.py: it finds banned words in prose and identifiers, their inflected forms, and banned phrases."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

_PATH = Path(__file__).parent.parent / "scripts" / "check_language.py"
_SPEC = importlib.util.spec_from_file_location("check_language", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
check_language = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(check_language)


def _found(text: str) -> list[tuple[int, str]]:
    return [(number, word) for number, word, _ in check_language.findings(text)]


@pytest.mark.parametrize("word", check_language.BANNED)
def test_every_banned_word_is_found_with_its_replacement(word: str) -> None:
    assert list(check_language.findings(f"Some text with {word}, and more.")) == [(1, word, check_language.BANNED[word])]


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("told_at", "told"),
        ("_is_told", "told"),
        ("isTold", "told"),
        ("heardAgain", "heard"),
        ("WishList", "wish"),
        ("URLWish", "wish"),
        ("MAX_WISH_S", "wish"),
        ("test_a_wish_2_is_seen", "wish"),
    ],
)
def test_a_word_in_an_identifier_is_found(name: str, word: str) -> None:
    assert _found(f"value = {name}(1)") == [(1, word)]


@pytest.mark.parametrize(("word", "forms"), check_language.FORMS.items())
def test_inflected_forms_are_found_with_the_replacement_of_their_word(word: str, forms: tuple[str, ...]) -> None:
    for form in forms:
        assert list(check_language.findings(form.capitalize())) == [(1, form, check_language.BANNED[word])]


@pytest.mark.parametrize(
    ("line", "phrase"),
    [
        ("There is none in the table.", "there is none"),
        ("of the workers, there are none", "there are none"),
        ("a mistake is none of ours", "is none"),
        ("It waited in vain.", "in vain"),
        ("users who may change it", "who may"),
        ("Who may call it?", "who may"),
        ("people's API", "people's"),
        ("a person's name", "a person's"),
        ("what he sees", "he"),
        ("Her worker", "her"),
        ("It has said its last word.", "said its last word"),
    ],
)
def test_a_banned_phrase_is_found(line: str, phrase: str) -> None:
    assert _found(line) == [(1, phrase)]


@pytest.mark.parametrize(
    "line",
    [
        "The worker sends its status to central.",
        "if value is None or not this:",
        "the keys are nonempty",
        "workers who may be offline",
        "the people of a team",
        "indoor, outdoor and shear",
        "a thread holds the header",
        "shell, sheet, they, there, other",
        "whispered wisdom",
        "the owner showed it",
    ],
)
def test_plain_text_has_no_findings(line: str) -> None:
    assert _found(line) == []


def test_findings_have_the_number_of_their_line() -> None:
    assert _found("fine\n\nIt was told.\nfine\nIt knocks in vain.") == [(3, "told"), (5, "knocks"), (5, "in vain")]
