from __future__ import annotations

import base64
import json

import pytest
from airflow_remote_protocol.messages import MAX_STATEMENT
from airflow_remote_protocol.statements import (
    PAYLOAD_TYPE,
    BadKey,
    BadStatement,
    Kind,
    Predicate,
    PublicKey,
    digest_of_keys,
    make,
    open_envelope,
    parse_keys,
)

TREE = "a" * 64
KEY = PublicKey(bytes(range(32)))


def envelope(content: bytes, **changes: object) -> str:
    plain = {
        "payload": base64.b64encode(content).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": "k", "sig": "AA=="}],
    }
    return json.dumps({**plain, **changes})


def test_a_statement_names_the_tree_and_what_it_is() -> None:
    predicate = Predicate(Kind.RUNTIME, 1.0, name="default", serial=3, expires=9.0)
    opened, statement = open_envelope(envelope(make(TREE, predicate)))
    assert statement.digest == TREE
    assert statement.predicate == predicate
    assert [signature.keyid for signature in opened.signatures] == ["k"]


def test_the_payload_has_the_names_of_in_toto() -> None:
    plain = json.loads(make(TREE, Predicate(Kind.BUNDLE, 1.0, name="etl")))
    assert plain["_type"] == "https://in-toto.io/Statement/v1"
    assert plain["subject"] == [{"name": "etl", "digest": {"sha256": TREE}}]
    assert plain["predicate"] == {"kind": "bundle", "at": 1.0, "name": "etl"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[" * 5000,
        "x" * (MAX_STATEMENT + 1),
        envelope(b"{}"),
        envelope(b"\xff"),
        envelope(make(TREE, Predicate(Kind.BUNDLE, 1.0)), payload="!!!"),
        envelope(make(TREE, Predicate(Kind.BUNDLE, 1.0)), payloadType="text/plain"),
        envelope(make(TREE, Predicate(Kind.BUNDLE, 1.0)), signatures=[]),
        envelope(make(TREE, Predicate(Kind.BUNDLE, 1.0)), signatures=[{"keyid": "k", "sig": "AA=="}] * 2),
        envelope(make(TREE, Predicate(Kind.BUNDLE, 1.0)).replace(b"sha256", b"sha512")),
        envelope(make(TREE, Predicate(Kind.BUNDLE, 1.0)).replace(b"urn:airflow", b"urn:another")),
        envelope(make(TREE, Predicate(Kind.BUNDLE, 1.0)).replace(b'"bundle"', b'"other"')),
        envelope(make(TREE, Predicate(Kind.KEYS, 1.0, serial=1, keys=[KEY.line]))),
    ],
)
def test_anything_else_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(BadStatement, match=r"\w"):
        open_envelope(text)


def test_a_list_of_keys_is_its_own_subject() -> None:
    keys = [KEY.line]
    _, statement = open_envelope(envelope(make(digest_of_keys(keys), Predicate(Kind.KEYS, 1.0, serial=2, keys=keys))))
    assert statement.predicate.keys == keys


def test_a_key_is_read_from_pem_and_from_its_line() -> None:
    assert parse_keys(KEY.pem) == parse_keys(KEY.line) == [KEY]
    assert parse_keys(f"# ours\n\n{KEY.pem}{KEY.pem}") == [KEY, KEY]
    assert len(KEY.id) == 64


@pytest.mark.parametrize("text", ["", "# only a comment", "ssh-ed25519 AAAA", "-----BEGIN PRIVATE KEY-----", "A" * 59 + "="])
def test_what_is_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(BadKey, match=r"key"):
        parse_keys(text)
