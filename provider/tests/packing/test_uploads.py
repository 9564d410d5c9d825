"""Uploads: what is written is read, and nothing else is stored."""

from __future__ import annotations

import hashlib

import pytest
from airflow_remote_protocol.packs import BadPack, Encoding, encode_blob
from airflow_remote_protocol.trees import Entry, Tree
from airflow_remote_provider.packing.storing import PackedBlob, text_hash
from airflow_remote_provider.packing.uploads import read_upload, write_upload

CODE, DATA = b"x = 1\n" * 50, b"\0" * 100_000


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def packed(path: str, content: bytes) -> PackedBlob:
    encoding, data = encode_blob(content)
    return PackedBlob(sha256(content), len(content), encoding, data, text_hash(path, content))


TREE = Tree.of([Entry("a.py", sha256(CODE), len(CODE)), Entry("b.bin", sha256(DATA), len(DATA))])
BLOBS = [packed("a.py", CODE), packed("b.bin", DATA)]


def test_what_is_written_is_read() -> None:
    assert read_upload(write_upload(BLOBS), TREE) == BLOBS
    assert read_upload(b"", TREE) == []


def test_an_upload_that_is_cut_is_refused_and_nothing_of_it_is_used() -> None:
    body = write_upload(BLOBS)
    whole = (0, len(write_upload(BLOBS[:1])), len(body))
    for length in (length for length in range(len(body)) if length not in whole):
        with pytest.raises(BadPack, match="ends early"):
            read_upload(body[:length], TREE)


@pytest.mark.parametrize(
    ("blob", "cause"),
    [
        pytest.param(packed("c.py", b"another"), "which the tree", id="not of the tree"),
        pytest.param(PackedBlob(sha256(CODE), 1, Encoding.RAW, b"y" * len(CODE), None), "another content", id="other content"),
        pytest.param(PackedBlob(sha256(CODE), 1, *encode_blob(DATA), None), "a blob", id="too long"),
        pytest.param(PackedBlob(sha256(CODE), 1, 9, CODE, None), "the encoding 9", id="unknown encoding"),  # type: ignore[arg-type]
    ],
)
def test_what_is_not_a_file_of_the_tree_is_refused(blob: PackedBlob, cause: str) -> None:
    with pytest.raises(BadPack, match=cause):
        read_upload(write_upload([blob]), TREE)
