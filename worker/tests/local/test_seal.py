"""A changed file is recognised as damaged."""

from __future__ import annotations

import json

import pytest
from airflow_remote_worker.local.seal import Broken, sealed, unsealed

BODY = b'{"key":"k1","slots":12}'


def test_a_sealed_file_is_json_with_one_more_member() -> None:
    assert json.loads(sealed(BODY)).keys() == {"key", "slots", "crc"}
    assert unsealed(sealed(BODY)) == BODY


def test_a_file_without_a_seal_is_accepted() -> None:
    assert unsealed(BODY) == BODY


def test_no_changed_byte_changes_the_content_unnoticed() -> None:
    whole = sealed(BODY)
    for at in range(len(whole)):
        for other in range(256):
            if other == whole[at]:
                continue
            body = whole[:at] + bytes([other]) + whole[at + 1 :]
            try:
                content = json.loads(unsealed(body))
            except ValueError:  # broken, or no JSON
                continue
            assert (content["key"], content["slots"]) == ("k1", 12), body


def test_a_wrong_checksum_is_named() -> None:
    with pytest.raises(Broken, match="checksum"):
        unsealed(sealed(BODY).replace(b"k1", b"k2"))
