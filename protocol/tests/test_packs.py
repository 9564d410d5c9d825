"""Packs: a tree arrives as it was, whatever the base, the encodings and the ranges. A damaged pack is never accepted."""

from __future__ import annotations

import hashlib
import io
import lzma
import random
import zlib
from collections.abc import Collection

import pytest
from airflow_remote_protocol import packs
from airflow_remote_protocol.packs import (
    CHUNK_BYTES,
    BadPack,
    Encoding,
    Layout,
    PackReader,
    Stored,
    WrongHash,
    decode_blob,
    encode_blob,
    lay_out,
    lay_out_blobs,
    read_blobs,
)
from airflow_remote_protocol.trees import Entry, Tree
from hypothesis import given, settings
from hypothesis import strategies as st

LINES = b"".join(b"line %d of a file that is repeated with small changes\n" % n for n in range(4000))
NOISE = random.Random(0).randbytes(100_000)


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Store:
    """Blobs as central stores them."""

    def __init__(self, *contents: bytes) -> None:
        self.packed = {sha256_of(data): encode_blob(data) for data in contents}
        self.plain = {sha256_of(data): data for data in contents}
        self.stored = {sha256: Stored(encoding, len(data)) for sha256, (encoding, data) in self.packed.items()}

    def read(self, layout: Layout, start: int = 0, end: int | None = None) -> bytes:
        """Return a range of a pack as a server sends it."""
        sent = b""
        for part, first, last in layout.slice(start, layout.size if end is None else end):
            data = part.data
            if data is None:
                encoding, packed = self.packed[part.sha256]
                data = packed if encoding is part.encoding else self.plain[part.sha256]
            assert len(data) == part.length
            sent += data[first:last]
        return sent


def tree_of(files: dict[str, bytes], *, executable: Collection[str] = ()) -> Tree:
    return Tree.of(Entry(path, sha256_of(data), len(data), path in executable) for path, data in files.items())


def unpack(pack: bytes, tree: Tree, *bases: Tree) -> dict[str, bytes]:
    """Return the blobs of a pack of *tree*, for a receiver that has *bases*."""
    known = {base.digest: base for base in bases}
    reader = PackReader(io.BytesIO(pack), digest=tree.digest, bases=known.get)
    assert reader.tree.manifest == tree.manifest
    return {sha256: b"".join(content) for sha256, content in reader.blobs()}


OLD = {"a.py": b"print(1)\n", "b/c.py": LINES, "same.bin": NOISE, "twice.bin": NOISE, "empty": b"", "gone.py": b"gone"}
NEW = {
    "a.py": b"print(2)\n",
    "b/c.py": LINES + b"new\n",
    "same.bin": NOISE,
    "empty": b"",
    "new.py": b"new",
    "run.sh": b"print(1)\n",
}
OLD_TREE = tree_of(OLD)
NEW_TREE = tree_of(NEW, executable=["run.sh"])
STORE = Store(*OLD.values(), *NEW.values())


def test_a_whole_tree() -> None:
    layout = lay_out(OLD_TREE, None, STORE.stored)
    pack = STORE.read(layout)
    assert len(pack) == layout.size
    assert unpack(pack, OLD_TREE) == {sha256_of(data): data for data in OLD.values()}


def test_only_differences_from_a_base() -> None:
    layout = lay_out(NEW_TREE, OLD_TREE, STORE.stored)
    pack = STORE.read(layout)
    assert set(unpack(pack, NEW_TREE, OLD_TREE).values()) == {b"print(2)\n", LINES + b"new\n", b"new"}
    assert b" edits " in pack.split(b"\n")[0]


def test_the_same_tree_as_base_costs_a_header() -> None:
    pack = STORE.read(lay_out(NEW_TREE, NEW_TREE, STORE.stored))
    assert unpack(pack, NEW_TREE, NEW_TREE) == {}
    assert len(pack) < 220


def test_a_base_with_nothing_in_common_sends_the_whole_manifest() -> None:
    base = tree_of({f"other/file_{n}.py": b"other %d" % n for n in range(50)})
    pack = STORE.read(lay_out(NEW_TREE, base, STORE.stored))
    assert b" whole " in pack.split(b"\n")[0]
    assert unpack(pack, NEW_TREE, base) == {sha256_of(data): data for data in NEW.values()}


def test_one_file_of_2000_costs_little_more_than_itself() -> None:
    files = {f"dags/module_{n}.py": b"def f():\n    return %d\n" % n for n in range(2000)}
    changed = random.Random(1).randbytes(8000)
    base, tree = tree_of(files), tree_of(files | {"dags/module_77.py": changed})
    layout = lay_out(tree, base, Store(changed).stored)
    assert layout.size <= len(changed) + 1024


@given(st.data())
def test_every_range_is_that_of_the_whole_pack(data: st.DataObject) -> None:
    layout = lay_out(NEW_TREE, data.draw(st.sampled_from([None, OLD_TREE])), STORE.stored)
    start = data.draw(st.integers(0, layout.size))
    end = data.draw(st.integers(start, layout.size))
    assert STORE.read(layout, start, end) == STORE.read(layout)[start:end]


def test_neighbouring_ranges_of_every_size() -> None:
    layout = lay_out(NEW_TREE, OLD_TREE, STORE.stored)
    whole = STORE.read(layout)
    for step in (1, 40, 41, 42, 257):
        assert b"".join(STORE.read(layout, n, min(n + step, layout.size)) for n in range(0, layout.size, step)) == whole


def test_a_pack_that_is_cut_anywhere_is_refused() -> None:
    pack = STORE.read(lay_out(NEW_TREE, OLD_TREE, STORE.stored))
    for size in range(len(pack)):
        with pytest.raises(BadPack):
            unpack(pack[:size], NEW_TREE, OLD_TREE)


@settings(max_examples=300)
@given(st.data())
def test_a_pack_with_any_other_byte_is_refused(data: st.DataObject) -> None:
    base = data.draw(st.sampled_from([None, OLD_TREE]))
    pack = bytearray(STORE.read(lay_out(NEW_TREE, base, STORE.stored)))
    at = data.draw(st.integers(0, len(pack) - 1))
    pack[at] = data.draw(st.integers(0, 255).filter(lambda byte: byte != pack[at]))
    try:
        blobs = unpack(bytes(pack), NEW_TREE, OLD_TREE)
    except BadPack:
        return
    # Deflate has bits that decoders ignore. Whatever is accepted is right.
    assert all(sha256_of(content) == sha256 for sha256, content in blobs.items())


@given(st.binary(max_size=500))
def test_any_bytes_are_refused(data: bytes) -> None:
    header = f"airflow-remote-pack 1 {OLD_TREE.digest} - whole ".encode()
    for pack in (data, header + data):
        with pytest.raises(BadPack):
            unpack(pack, OLD_TREE)


def test_bytes_after_the_end_are_refused() -> None:
    with pytest.raises(BadPack, match="goes on"):
        unpack(STORE.read(lay_out(OLD_TREE, None, STORE.stored)) + b"x", OLD_TREE)


def test_a_pack_of_another_tree_is_refused() -> None:
    pack = STORE.read(lay_out(OLD_TREE, None, STORE.stored))
    with pytest.raises(BadPack, match="was requested"):
        unpack(pack, NEW_TREE)
    forged = pack.replace(OLD_TREE.digest.encode(), NEW_TREE.digest.encode(), 1)
    with pytest.raises(BadPack, match="was requested"):
        unpack(forged, NEW_TREE)


def test_an_unknown_base_is_refused() -> None:
    pack = STORE.read(lay_out(NEW_TREE, OLD_TREE, STORE.stored))
    with pytest.raises(BadPack, match="not here"):
        unpack(pack, NEW_TREE)


@pytest.mark.parametrize(
    "numbers", ["-1 5 0 1", "1 99999999999 0 1", "1 5 99999999999 1", "1 5 0 -1", "a 5 0 1", "1 5 7 0", "1 5 0"]
)
def test_a_header_out_of_bounds_is_refused(numbers: str) -> None:
    with pytest.raises(BadPack):
        unpack(f"airflow-remote-pack 1 {OLD_TREE.digest} - whole {numbers}\n".encode(), OLD_TREE)


def test_a_manifest_that_decodes_to_more_than_it_says_is_refused() -> None:
    bomb = zlib.compress(b"\0" * 10_000_000, wbits=-15)
    header = f"airflow-remote-pack 1 {OLD_TREE.digest} - whole {len(bomb)} 1000 0 0\n".encode()
    with pytest.raises(BadPack, match="more than the 1000 bytes"):
        unpack(header + bomb, OLD_TREE)


def test_single_blobs() -> None:
    wanted = {sha256_of(b"new"), sha256_of(NOISE), sha256_of(b"not in this tree")}
    pack = STORE.read(lay_out_blobs(NEW_TREE, wanted, STORE.stored))
    got = {sha256: b"".join(content) for sha256, content in read_blobs(io.BytesIO(pack), NEW_TREE, wanted)}
    assert set(got.values()) == {b"new", NOISE}
    with pytest.raises(BadPack, match="are needed"):
        list(read_blobs(io.BytesIO(pack), NEW_TREE, {sha256_of(b"new")}))
    with pytest.raises(BadPack, match="no manifest"):
        unpack(pack, NEW_TREE)


def test_a_damaged_blob_is_named() -> None:
    pack = STORE.read(lay_out(OLD_TREE, None, STORE.stored))
    at = pack.index(NOISE[:50])
    with pytest.raises(WrongHash) as error:
        unpack(pack[:at] + b"\0" * 50 + pack[at + 50 :], OLD_TREE)
    assert error.value.sha256 == sha256_of(NOISE)


# Encodings


@pytest.mark.parametrize("encoding", [Encoding.RAW, Encoding.DEFLATE, Encoding.LZMA])
def test_the_blobs_after_a_damaged_one_can_still_be_read(encoding: Encoding) -> None:
    """Most damage in a packed blob ends its decoding somewhere in the middle."""
    files = {"1": LINES, "2": b"second", "3": NOISE}
    tree, stored, made = tree_of(files), {}, {}
    for path, content in files.items():
        made[sha256_of(content)] = packed = (encoding, _encoded(encoding, content)) if path == "1" else encode_blob(content)
        stored[sha256_of(content)] = Stored(packed[0], len(packed[1]))
    layout = lay_out(tree, None, stored)
    pack = bytearray()
    for part, start, end in layout.slice(0, layout.size):
        pack += (made[part.sha256][1] if part.data is None else part.data)[start:end]
    begin = pack.index(bytes.fromhex(sha256_of(LINES))) + packs.RECORD_BYTES
    for at in (begin, begin + 1, begin + 500):
        damaged = bytearray(pack)
        damaged[at] ^= 0xFF
        got: dict[str, bytes] = {}
        wrong: list[str] = []
        for sha256, content in PackReader(io.BytesIO(bytes(damaged)), digest=tree.digest, bases=lambda _: None).blobs():
            try:
                got[sha256] = b"".join(content)
            except WrongHash as error:
                wrong.append(error.sha256)
        assert wrong == [sha256_of(LINES)]
        assert got == {sha256_of(content): content for content in (b"second", NOISE)}


def _encoded(encoding: Encoding, content: bytes) -> bytes:
    if encoding is Encoding.RAW:
        return content
    return packs._deflate(content) if encoding is Encoding.DEFLATE else encode_blob(content)[1]


def test_each_content_has_the_encoding_that_makes_it_smallest() -> None:
    assert encode_blob(b"")[0] is Encoding.RAW
    assert encode_blob(NOISE)[0] is Encoding.RAW
    assert encode_blob(b"a" * 1000)[0] is Encoding.DEFLATE
    assert encode_blob(LINES)[0] is Encoding.LZMA


@given(st.binary(max_size=2000), st.integers(1, 300))
def test_a_blob_is_decoded_to_itself(piece: bytes, times: int) -> None:
    data = piece * times
    encoding, packed = encode_blob(data)
    assert decode_blob(encoding, packed, len(data)) == data


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
def test_blobs_about_as_long_as_a_piece(size: int) -> None:
    data = (LINES * (size // len(LINES) + 1))[:size]
    deflated = zlib.compress(data, wbits=-15)
    squeezed = lzma.compress(data, format=lzma.FORMAT_RAW, filters=packs._filters(lzma))
    for encoding, packed in ((Encoding.RAW, data), (Encoding.DEFLATE, deflated), (Encoding.LZMA, squeezed)):
        assert decode_blob(encoding, packed, size) == data
        for chunks in ([packed[n : n + 7] for n in range(0, len(packed), 7)], [packed]):
            assert b"".join(packs.decode_chunks(encoding, chunks, size)) == data
        with pytest.raises(BadPack):
            decode_blob(encoding, packed + b"x", size)
        if size:
            with pytest.raises(BadPack):
                decode_blob(encoding, packed, size - 1)
            with pytest.raises(BadPack):
                decode_blob(encoding, packed[:-1], size)
        with pytest.raises(BadPack):
            decode_blob(encoding, packed, size + 1)


def test_a_receiver_without_lzma_gets_such_blobs_raw(monkeypatch: pytest.MonkeyPatch) -> None:
    pack = STORE.read(lay_out(OLD_TREE, None, STORE.stored))
    plain = STORE.read(lay_out(OLD_TREE, None, STORE.stored, lzma=False))
    monkeypatch.setattr(packs, "lzma", None)
    assert unpack(plain, OLD_TREE) == {sha256_of(data): data for data in OLD.values()}
    assert encode_blob(LINES)[0] is Encoding.DEFLATE
    with pytest.raises(BadPack, match="this Python does not have"):
        unpack(pack, OLD_TREE)


def test_the_etag_differs_with_the_bytes() -> None:
    layouts = [
        lay_out(NEW_TREE, None, STORE.stored),
        lay_out(NEW_TREE, OLD_TREE, STORE.stored),
        lay_out(OLD_TREE, None, STORE.stored),
        lay_out(OLD_TREE, None, STORE.stored, lzma=False),
    ]
    assert len({layout.etag for layout in layouts}) == 4
    assert lay_out(NEW_TREE, None, STORE.stored).etag == layouts[0].etag
