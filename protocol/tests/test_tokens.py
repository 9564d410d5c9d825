"""Tokens: recognisable, checked without a request, and never repeated in an error."""

from __future__ import annotations

import re

import pytest
from airflow_remote_protocol.tokens import TOKEN_BYTES, MalformedToken, TokenKind, check_token, hash_token, make_token

RANDOM = bytes(range(TOKEN_BYTES))
TOKEN = make_token(TokenKind.WORKER, RANDOM)


@pytest.mark.parametrize("kind", list(TokenKind))
def test_a_token_has_the_form_that_secret_scanners_expect(kind: TokenKind) -> None:
    assert re.fullmatch(rf"{kind.value}_[A-Za-z0-9_-]{{43}}_[0-9a-f]{{8}}", make_token(kind, RANDOM))


@pytest.mark.parametrize("kind", list(TokenKind))
@pytest.mark.parametrize("random", [RANDOM, b"\xff" * TOKEN_BYTES, b"\xfb\xef\xbe" * 10 + b"\0\0"])
def test_a_complete_token_passes_even_with_underscores_in_it(kind: TokenKind, random: bytes) -> None:
    token = make_token(kind, random)
    assert check_token(kind, token) == token


def test_a_token_is_never_of_two_kinds() -> None:
    with pytest.raises(MalformedToken, match="starts with arenr_"):
        check_token(TokenKind.ENROLMENT, TOKEN)


@pytest.mark.parametrize("at", range(len("arwkr_"), len(TOKEN)))
def test_any_altered_character_is_detected(at: int) -> None:
    altered = TOKEN[:at] + ("x" if TOKEN[at] != "x" else "y") + TOKEN[at + 1 :]
    with pytest.raises(MalformedToken):
        check_token(TokenKind.WORKER, altered)


@pytest.mark.parametrize("length", range(len(TOKEN)))
def test_any_truncation_is_detected(length: int) -> None:
    with pytest.raises(MalformedToken):
        check_token(TokenKind.WORKER, TOKEN[:length])


@pytest.mark.parametrize("text", ["", " ", TOKEN + "\n", " " + TOKEN, TOKEN.upper(), "Bearer " + TOKEN, "arwkr_\N{SNOWMAN}_0"])
def test_additional_or_changed_text_makes_a_token_malformed(text: str) -> None:
    with pytest.raises(MalformedToken):
        check_token(TokenKind.WORKER, text)


def test_an_error_does_not_repeat_the_token() -> None:
    for kind, text in ((TokenKind.WORKER, TOKEN[:-1]), (TokenKind.ENROLMENT, TOKEN)):
        with pytest.raises(MalformedToken) as caught:
            check_token(kind, text)
        assert TOKEN[6:20] not in str(caught.value)


@pytest.mark.parametrize("length", [0, TOKEN_BYTES - 1, TOKEN_BYTES + 1])
def test_a_token_needs_the_right_number_of_random_bytes(length: int) -> None:
    with pytest.raises(ValueError, match=f"got {length}"):
        make_token(TokenKind.WORKER, b"x" * length)


def test_a_hash_is_stable_and_hides_the_token() -> None:
    assert hash_token("arwkr_example") == hash_token("arwkr_example") != hash_token(TOKEN)
    assert re.fullmatch(r"[0-9a-f]{64}", hash_token(TOKEN))
