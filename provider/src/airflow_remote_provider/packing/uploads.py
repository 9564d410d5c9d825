"""The body of an upload of blobs: written where a bundle is published through the REST API, and read on central.

For each blob: SHA-256 (32 bytes), encoding (1), length (8, big-endian), then the packed content, as in a pack.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from airflow_remote_protocol.packs import BadPack, Encoding, decode_blob
from airflow_remote_protocol.trees import Tree

from airflow_remote_provider.packing.storing import BATCH_BYTES, PackedBlob, paths_of, text_hash

HEAD_BYTES = 32 + 1 + 8


def longest_upload(blob_bytes: int) -> int:
    """Return the longest body of one upload, where files have at most *blob_bytes*: a batch, and the blob that completed it."""
    return BATCH_BYTES + blob_bytes + (64 << 10)


def write_upload(blobs: Sequence[PackedBlob]) -> bytes:
    """Return the body that sends these blobs."""
    return b"".join(
        bytes.fromhex(blob.sha256) + bytes([blob.encoding]) + len(blob.packed).to_bytes(8, "big") + blob.packed for blob in blobs
    )


def read_upload(body: bytes, tree: Tree) -> list[PackedBlob]:
    """Return the blobs in *body*. Each is decoded, in at most the size that the tree names, and its hash is compared.

    Raises:
        BadPack: it has another form, or a blob is not that of a file of the tree.
    """
    records = list(_records(body))
    paths = paths_of(tree, {sha256 for sha256, _, _ in records})
    return [_checked(tree, paths, *record) for record in records]


def _records(body: bytes) -> Iterator[tuple[str, int, bytes]]:
    at = 0
    while at < len(body):
        head = body[at : at + HEAD_BYTES]
        length = int.from_bytes(head[33:], "big")
        packed = body[at + HEAD_BYTES : at + HEAD_BYTES + length]
        if len(head) < HEAD_BYTES or len(packed) < length:
            raise BadPack("the upload ends early; send it again")
        yield head[:32].hex(), head[32], packed
        at += HEAD_BYTES + length


def _checked(tree: Tree, paths: dict[str, str], sha256: str, encoding: int, packed: bytes) -> PackedBlob:
    if sha256 not in paths:
        raise BadPack(f"the upload has the file {sha256[:12]}, which the tree {tree.digest[:12]} does not have")
    try:
        known = Encoding(encoding)
    except ValueError:
        raise BadPack(f"the upload has a file in the encoding {encoding}, which this central does not know; update it") from None
    content = decode_blob(known, packed, tree.sizes[sha256])
    if hashlib.sha256(content).hexdigest() != sha256:
        raise BadPack(f"the upload has another content for the file {paths[sha256]}; send it again")
    return PackedBlob(sha256, len(content), known, packed, text_hash(paths[sha256], content))
