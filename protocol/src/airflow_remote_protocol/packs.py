"""A pack: the bytes that make a tree from a base tree, or from nothing. What central sends for a tree.

    header      one line: `airflow-remote-pack 1 <tree> <base or -> <form> <packed> <size> <statements> <blobs>`
    manifest    *packed* bytes: raw deflate of the manifest (form `whole`, *size* bytes), of its differences from the base's
                manifest (form `edits`), or nothing (form `none`, in the answer to a request for single blobs)
    statements  as many bytes; 0 in this version
    blobs       for each: SHA-256 (32 bytes), encoding (1), length (8, big-endian), then the encoded content

Differences are lines: `-<path>` removes a file, a line of a manifest adds or replaces one. Blobs are the contents that the tree
has and the base has not, each once, in the order of the tree. Central stores blobs in the encoding in which it sends them, so a
pack is laid out from their lengths alone, and any range of it can be served without the rest.
"""

from __future__ import annotations

import hashlib
import zlib
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from itertools import accumulate
from types import ModuleType
from typing import BinaryIO, NamedTuple

from airflow_remote_protocol.trees import DIGEST, MAX_MANIFEST_BYTES, BadTree, Entry, Tree, parse_line

lzma: ModuleType | None
try:
    import lzma
except ImportError:  # Python can be built without it
    lzma = None

HEADER = "airflow-remote-pack 1"
MAX_HEADER_BYTES = 300
LZMA_FROM_BYTES = 64 << 10
"""Smaller blobs gain nothing from LZMA."""
SQUEEZABLE = 0.95
LZMA_DICTIONARY_BYTES = 4 << 20
"""What a decoder needs in memory, besides some KiB."""
CHUNK_BYTES = 256 << 10
RECORD_BYTES = 32 + 1 + 8


class BadPack(ValueError):
    """Not the pack that was requested. The text says what is wrong."""


class Encoding(IntEnum):
    """How a blob's content is stored and sent."""

    RAW = 0
    DEFLATE = 1
    LZMA = 2
    """A raw LZMA2 stream."""


def encode_blob(data: bytes) -> tuple[Encoding, bytes]:
    """Return *data* in the encoding that makes it smallest."""
    deflated = _deflate(data)
    candidates = [(Encoding.RAW, data), (Encoding.DEFLATE, deflated)]
    # What deflate can't make smaller (archives, images) LZMA can't either, and it needs ten times as long to find out.
    if lzma is not None and len(data) >= LZMA_FROM_BYTES and len(deflated) < len(data) * SQUEEZABLE:
        candidates.append((Encoding.LZMA, lzma.compress(data, format=lzma.FORMAT_RAW, filters=_filters(lzma))))
    return min(candidates, key=lambda candidate: len(candidate[1]))


def decode_blob(encoding: Encoding, data: bytes, size: int) -> bytes:
    """Return the content of a stored blob of *size* bytes.

    Raises:
        BadPack: *data* does not decode to *size* bytes.
    """
    return b"".join(decode_chunks(encoding, [data], size))


def decode_chunks(encoding: Encoding, chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Yield the content of a stored blob in pieces of at most :data:`CHUNK_BYTES`. Never decodes more than *size* bytes.

    Raises:
        BadPack: the chunks do not decode to *size* bytes.
    """
    decoder = _decoder(encoding)
    left = size
    for chunk in chunks:
        for piece in decoder.feed(chunk):
            left -= len(piece)
            if left < 0:
                raise BadPack(f"a blob has more than the {size} bytes of its file")
            yield piece
    if left > 0 or not decoder.is_at_end:
        raise BadPack(f"a blob ends after {size - left} of {size} bytes")


class Stored(NamedTuple):
    """What the store knows of a blob."""

    encoding: Encoding
    packed_size: int


class Part(NamedTuple):
    """A stretch of a pack: either *data*, or the content of the blob *sha256* in *encoding*."""

    length: int
    data: bytes | None = None
    sha256: str = ""
    encoding: Encoding = Encoding.RAW


class Layout:
    """Where everything is in one pack."""

    def __init__(self, head: bytes, blobs: Sequence[tuple[str, Encoding, int]]) -> None:
        """*head* is all that comes before the blobs, which are (SHA-256, encoding, length)."""
        self._head = head
        self._blobs = blobs
        self._begins = list(accumulate((RECORD_BYTES + length for _, _, length in blobs), initial=len(head)))
        self.size = self._begins[-1]
        digest = hashlib.sha256(head)
        for blob in blobs:
            digest.update(_record(*blob))
        self.etag = digest.hexdigest()
        """Differs whenever a byte of the pack does. Without the quotes of HTTP."""

    @property
    def blobs(self) -> int:
        return len(self._blobs)

    def slice(self, start: int, end: int) -> Iterator[tuple[Part, int, int]]:
        """Yield the parts that make the bytes from *start* to *end* (exclusive), each with the range of it to send."""
        at = 0 if start < len(self._head) else bisect_right(self._begins, start) - 1
        if start < len(self._head) and end > start:
            yield Part(len(self._head), self._head), start, min(end, len(self._head))
        for number in range(at, len(self._blobs)):
            begin = self._begins[number]
            if begin >= end:
                return
            sha256, encoding, length = self._blobs[number]
            for offset, part in (
                (begin, Part(RECORD_BYTES, _record(sha256, encoding, length))),
                (begin + RECORD_BYTES, Part(length, None, sha256, encoding)),
            ):
                first, last = max(start - offset, 0), min(end - offset, part.length)
                if first < last:
                    yield part, first, last


def lay_out(tree: Tree, base: Tree | None, stored: Mapping[str, Stored], *, lzma: bool = True) -> Layout:
    """Return the layout of the pack that makes *tree* from *base*.

    Args:
        stored: every blob that *tree* has and *base* has not.
        lzma: whether the receiver can decode LZMA. If not, such blobs are sent raw.

    Raises:
        KeyError: a blob is not in *stored*.
    """
    lacking = tree.sizes if base is None else {sha256: size for sha256, size in tree.sizes.items() if sha256 not in base.sizes}
    form, plain = "whole", tree.manifest
    packed = _deflate(plain)
    if base is not None:
        edits = _edits(base, tree)
        packed_edits = _deflate(edits)
        if len(packed_edits) < len(packed):
            form, plain, packed = "edits", edits, packed_edits
    head = _header(tree.digest, base.digest if base else "-", form, packed, len(plain), len(lacking))
    return Layout(head + packed, _sent(lacking, stored, lzma=lzma))


def lay_out_blobs(tree: Tree, wanted: Collection[str], stored: Mapping[str, Stored], *, lzma: bool = True) -> Layout:
    """Return the layout of a pack with the blobs *wanted* of *tree* alone.

    Raises:
        KeyError: a blob is not in *stored*.
    """
    sizes = {sha256: size for sha256, size in tree.sizes.items() if sha256 in wanted}
    return Layout(_header(tree.digest, "-", "none", b"", 0, len(sizes)), _sent(sizes, stored, lzma=lzma))


class PackReader:
    """Reads a complete pack. Everything that it returns has been verified against the tree's digest."""

    def __init__(self, source: BinaryIO, *, digest: str, bases: Callable[[str], Tree | None]) -> None:
        """Read the header and the manifest of the pack for the tree *digest*.

        Args:
            bases: returns the base tree with a digest, if this side has it.

        Raises:
            BadPack: it is not a pack of this tree, or its base is unknown.
        """
        self._source = source
        self.base: Tree | None = None
        """The tree that has the other blobs."""
        base, form, packed, size, self._count = _read_header(source, digest)
        if base != "-":
            self.base = bases(base)
            if self.base is None:
                raise BadPack(f"the pack builds on the tree {base[:12]}, which is not here")
        if form == "none":
            raise BadPack("the pack has no manifest")
        plain = decode_blob(Encoding.DEFLATE, _read(source, packed), size)
        try:
            self.tree = Tree.parse(plain) if form == "whole" else _apply(self.base, plain)
        except BadTree as error:
            raise BadPack(str(error)) from None
        if self.tree.digest != digest:
            raise BadPack(f"the pack's manifest is the tree {self.tree.digest[:12]}; {digest[:12]} was requested")

    def blobs(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Yield each blob's SHA-256 and content in pieces. Exhaust each content before the next; its end verifies it.

        Raises:
            BadPack: a blob is missing, damaged or not in the tree, also while its content is read.
        """
        have = self.base.sizes if self.base else {}
        wanted = [sha256 for sha256 in self.tree.sizes if sha256 not in have]
        yield from _read_blobs(self._source, self.tree, wanted, self._count)


def read_blobs(source: BinaryIO, tree: Tree, wanted: Collection[str]) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Yield the blobs of a complete pack that :func:`lay_out_blobs` laid out, like :meth:`PackReader.blobs`.

    Raises:
        BadPack: a blob is missing, damaged or was not requested.
    """
    _, form, _, _, count = _read_header(source, tree.digest)
    if form != "none":
        raise BadPack(f"the pack has a manifest ({form}); single blobs were requested")
    yield from _read_blobs(source, tree, [sha256 for sha256 in tree.sizes if sha256 in wanted], count)


def _read_blobs(source: BinaryIO, tree: Tree, wanted: Sequence[str], count: int) -> Iterator[tuple[str, Iterator[bytes]]]:
    if count != len(wanted):
        raise BadPack(f"the pack has {count} blobs; {len(wanted)} are needed")
    for expected in wanted:
        record = _read(source, RECORD_BYTES)
        sha256, encoding, length = record[:32].hex(), record[32], int.from_bytes(record[33:], "big")
        if sha256 != expected:
            raise BadPack(f"the pack has the blob {sha256[:12]} where {expected[:12]} belongs")
        if encoding not in list(Encoding):
            raise BadPack(f"the blob {sha256[:12]} has the encoding {encoding}, which this version does not know; update it")
        content = _verified(sha256, Encoding(encoding), _read_chunks(source, length), tree.sizes[sha256])
        yield sha256, content
        for _ in content:  # what the caller has not read
            pass
    if source.read(1):
        raise BadPack("the pack goes on after its last blob")


def _verified(sha256: str, encoding: Encoding, chunks: Iterator[bytes], size: int) -> Iterator[bytes]:
    digest = hashlib.sha256()
    try:
        for piece in decode_chunks(encoding, chunks, size):
            digest.update(piece)
            yield piece
    except BadPack as error:
        for _ in chunks:  # the blobs after it can still be read, unless the pack ends early
            pass
        raise WrongHash(sha256, str(error)) from None
    if digest.hexdigest() != sha256:
        raise WrongHash(sha256)


class WrongHash(BadPack):
    """A blob's content is not what its name says. The blobs after it can still be read."""

    def __init__(self, sha256: str, cause: str = "its content has another SHA-256") -> None:
        super().__init__(f"the blob {sha256[:12]} is damaged: {cause}")
        self.sha256 = sha256


# The manifest section


def _edits(base: Tree, tree: Tree) -> bytes:
    """Return the lines that turn *base* into *tree*."""
    before = {entry.path: entry for entry in base.entries}
    lines = [f"-{entry.path}\n" for entry in base.entries if tree.get(entry.path) is None]
    lines += [
        f"{entry.sha256} {entry.size} {'x' if entry.executable else '-'} {entry.path}\n"
        for entry in tree.entries
        if before.get(entry.path) != entry
    ]
    return "".join(lines).encode()


def _apply(base: Tree | None, edits: bytes) -> Tree:
    """Return the tree that *edits* make of *base*.

    Raises:
        BadPack, BadTree: they don't fit.
    """
    if base is None:
        raise BadPack("the pack has edits without a base")
    entries: dict[str, Entry] = {entry.path: entry for entry in base.entries}
    try:
        lines = edits.decode().split("\n")
    except UnicodeDecodeError as error:
        raise BadPack(f"the pack's edits are not UTF-8: {error}") from None
    if lines.pop():
        raise BadPack("the pack's edits do not end with a line end")
    for line in lines:
        if line.startswith("-"):
            if entries.pop(line[1:], None) is None:
                raise BadPack("the pack's edits remove a file that the base does not have")
        else:
            entry = parse_line(line)
            entries[entry.path] = entry
    return Tree.of(entries.values())


# Headers and records


def _header(digest: str, base: str, form: str, packed: bytes, size: int, blobs: int) -> bytes:
    return f"{HEADER} {digest} {base} {form} {len(packed)} {size} 0 {blobs}\n".encode()


def _read_header(source: BinaryIO, digest: str) -> tuple[str, str, int, int, int]:
    """Return base (`-`: none), form, packed size and size of the manifest, and the number of blobs. Skips the statements."""
    line = source.readline(MAX_HEADER_BYTES)
    words = line.decode("ascii", "replace").split(" ")
    if not line.endswith(b"\n") or " ".join(words[:2]) != HEADER or len(words) != 9:
        raise BadPack(f"it is not a pack of this version: it begins with {line[:50]!r}")
    _, _, tree, base, form, *numbers = words
    if tree != digest:
        raise BadPack(f"it is a pack of the tree {tree[:12]}; {digest[:12]} was requested")
    try:
        packed, size, statements, blobs = (int(number) for number in numbers)
    except ValueError:
        raise BadPack(f"its header is malformed: {line[:MAX_HEADER_BYTES]!r}") from None
    whole = max(packed, size, statements) <= MAX_MANIFEST_BYTES and min(packed, size, statements, blobs) >= 0
    if not whole or form not in ("whole", "edits", "none") or not (base == "-" or DIGEST.match(base)):
        raise BadPack(f"its header is out of bounds: {line[:MAX_HEADER_BYTES]!r}")
    if form == "none" and packed:
        raise BadPack("it has a manifest of the form none")
    if statements:
        raise BadPack("it has statements, which this version does not know; update it")
    return base, form, packed, size, blobs


def _record(sha256: str, encoding: Encoding, length: int) -> bytes:
    return bytes.fromhex(sha256) + bytes([encoding]) + length.to_bytes(8, "big")


def _sent(sizes: Mapping[str, int], stored: Mapping[str, Stored], *, lzma: bool) -> list[tuple[str, Encoding, int]]:
    sent = []
    for sha256, size in sizes.items():
        encoding, packed_size = stored[sha256]
        raw = encoding is Encoding.LZMA and not lzma
        sent.append((sha256, Encoding.RAW, size) if raw else (sha256, encoding, packed_size))
    return sent


def _read(source: BinaryIO, length: int) -> bytes:
    data = source.read(length)
    if len(data) != length:
        raise BadPack("the pack ends early")
    return data


def _read_chunks(source: BinaryIO, length: int) -> Iterator[bytes]:
    while length:
        chunk = _read(source, min(length, CHUNK_BYTES))
        length -= len(chunk)
        yield chunk


# Encodings


class _Raw:
    is_at_end = True

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        for begin in range(0, len(chunk), CHUNK_BYTES):
            yield chunk[begin : begin + CHUNK_BYTES]


class _Deflated:
    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(-zlib.MAX_WBITS)

    @property
    def is_at_end(self) -> bool:
        return self._decoder.eof

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        try:
            while not self._decoder.eof:
                piece = self._decoder.decompress(chunk, CHUNK_BYTES)
                chunk = self._decoder.unconsumed_tail
                if piece:
                    yield piece
                if len(piece) < CHUNK_BYTES and not chunk:
                    break
        except zlib.error as error:
            raise BadPack(f"a blob can't be decoded: {error}") from None
        if self._decoder.unused_data or (chunk and self._decoder.eof):
            raise BadPack("a blob goes on after its end")


class _Lzma:
    def __init__(self, module: ModuleType) -> None:
        self._error = module.LZMAError
        self._decoder = module.LZMADecompressor(format=module.FORMAT_RAW, filters=_filters(module))

    @property
    def is_at_end(self) -> bool:
        return bool(self._decoder.eof)

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        try:
            while not self._decoder.eof:
                piece = self._decoder.decompress(chunk, CHUNK_BYTES)
                chunk = b""
                if piece:
                    yield piece
                if self._decoder.needs_input or not piece:
                    break
        except self._error as error:
            raise BadPack(f"a blob can't be decoded: {error}") from None
        if self._decoder.unused_data or (chunk and self._decoder.eof):
            raise BadPack("a blob goes on after its end")


def _decoder(encoding: Encoding) -> _Raw | _Deflated | _Lzma:
    if encoding is Encoding.RAW:
        return _Raw()
    if encoding is Encoding.DEFLATE:
        return _Deflated()
    if lzma is None:
        raise BadPack("a blob is LZMA, which this Python does not have")
    return _Lzma(lzma)


def _deflate(data: bytes) -> bytes:
    encoder = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    return encoder.compress(data) + encoder.flush()


def _filters(module: ModuleType) -> list[dict[str, int]]:
    return [{"id": module.FILTER_LZMA2, "preset": 6, "dict_size": LZMA_DICTIONARY_BYTES}]
