"""The fake central's code: trees and packs in memory, the routes that serve them, and the faults that tests inject.

A fault changes the answer to a request for a pack::

    central.code.faults.append(cut(1000))  # the next answer ends after 1,000 bytes
    central.code.always = cut(1000)  # each answer does
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qs

from airflow_remote_protocol.codec import decode, encode
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import BlobsWanted, Statements, TreeRef
from airflow_remote_protocol.packs import Encoding, Layout, Stored, decode_blob, encode_blob, lay_out, lay_out_blobs
from airflow_remote_protocol.trees import DIGEST, Entry, Tree
from airflow_remote_protocol.version import PROBLEM_HEADER

from airflow_remote_worker.testing.ledger import Refusal


@dataclass(frozen=True)
class CodeRequest:
    """A request for a pack or for blobs."""

    query: str
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True)
class CodeAnswer:
    status: int
    body: bytes
    headers: Mapping[str, str]
    cut_after: int | None = None
    """The connection ends after so many bytes of the body."""
    bytes_s: float | None = None
    """How fast the body is sent."""


Fault = Callable[[CodeRequest, CodeAnswer], CodeAnswer]


@dataclass
class CodeStore:
    """Published trees."""

    faults: list[Fault] = field(default_factory=list)
    """Each is used for one answer, in this order."""
    always: Fault | None = None
    """Used for each answer without one of *faults*."""
    always_for_blobs: Fault | None = None
    """Used for each answer with single blobs."""
    encode: Callable[[bytes], tuple[Encoding, bytes]] = encode_blob
    """How contents are stored. Tests with large ones replace it: LZMA takes a second for each MB."""
    ignores_ranges: bool = False
    """Each answer is the whole pack, as through a proxy that drops `Range`."""
    statements: list[str] = field(default_factory=list)
    """Envelopes; each request for statements is answered with all of them."""
    _trees: dict[str, Tree] = field(default_factory=dict)
    _blobs: dict[str, tuple[Encoding, bytes]] = field(default_factory=dict)
    _sizes: dict[str, int] = field(default_factory=dict)

    def publish(self, files: Mapping[str, bytes], executable: frozenset[str] = frozenset()) -> TreeRef:
        """Store a tree with these contents by path; those in *executable* are programs."""
        entries = []
        for path, content in files.items():
            sha256 = hashlib.sha256(content).hexdigest()
            if sha256 not in self._blobs:
                self._blobs[sha256] = self.encode(content)
            self._sizes[sha256] = len(content)
            entries.append(Entry(path, sha256, len(content), path in executable))
        tree = Tree.of(entries)
        self._trees[tree.digest] = tree
        return TreeRef(digest=tree.digest, files=tree.files, bytes=tree.bytes)

    def forget(self, digest: str) -> None:
        """Remove a tree, as the garbage collection does."""
        del self._trees[digest]

    def ref(self, digest: str) -> TreeRef:
        tree = self._trees[digest]
        return TreeRef(digest=digest, files=tree.files, bytes=tree.bytes)

    def damage(self, content: bytes) -> None:
        """Replace a stored blob by one of the same length that is something else."""
        sha256 = hashlib.sha256(content).hexdigest()
        self._blobs[sha256] = (Encoding.RAW, bytes(byte ^ 1 for byte in content))

    def mend(self, content: bytes) -> None:
        self._blobs[hashlib.sha256(content).hexdigest()] = self.encode(content)

    def pack_size(self, digest: str, base: str = "") -> int:
        return self._layout(digest, base, lzma=True).size

    def answer_pack(self, digest: str, request: CodeRequest) -> CodeAnswer:
        query = parse_qs(request.query, keep_blank_values=True)
        base, lzma = query.get("base", [""])[0], query.get("lzma", ["1"])[0]
        if (base and not DIGEST.match(base)) or lzma not in ("0", "1"):
            raise Refusal(ProblemCode.INVALID, "base must be a digest, and lzma 0 or 1")
        layout = self._layout(digest, base, lzma=lzma == "1")
        body = self._bytes(layout, self._trees[digest])
        headers = {} if self.ignores_ranges else request.headers
        answer = _ranged(replace(request, headers=headers), body, layout.etag)
        fault = self.faults.pop(0) if self.faults else self.always
        return fault(request, answer) if fault else answer

    def answer_blobs(self, digest: str, request: CodeRequest) -> CodeAnswer:
        asked, tree = decode(BlobsWanted, request.body), self._trees[digest]
        if unknown := set(asked.blobs) - tree.sizes.keys():
            raise Refusal(ProblemCode.INVALID, f"the tree has no blob {min(unknown)[:12]}")
        layout = lay_out_blobs(tree, asked.blobs, self._stored(), lzma=asked.lzma)
        answer = CodeAnswer(200, self._bytes(layout, tree), {"content-type": "application/octet-stream"})
        return self.always_for_blobs(request, answer) if self.always_for_blobs else answer

    def answer_statements(self, digest: str, request: CodeRequest) -> CodeAnswer:
        return CodeAnswer(200, encode(Statements(self.statements)), {"content-type": "application/json"})

    def has(self, digest: str) -> bool:
        return digest in self._trees

    def _layout(self, digest: str, base: str, *, lzma: bool) -> Layout:
        return lay_out(self._trees[digest], self._trees.get(base), self._stored(), lzma=lzma)

    def _stored(self) -> dict[str, Stored]:
        return {sha256: Stored(encoding, len(packed)) for sha256, (encoding, packed) in self._blobs.items()}

    def _bytes(self, layout: Layout, tree: Tree) -> bytes:
        made = bytearray()
        for part, start, end in layout.slice(0, layout.size):
            data = part.data
            if data is None:
                encoding, data = self._blobs[part.sha256]
                if encoding is not part.encoding:
                    data = decode_blob(encoding, data, tree.sizes[part.sha256])
            made += data[start:end]
        return bytes(made)


def _ranged(request: CodeRequest, body: bytes, etag: str) -> CodeAnswer:
    """Return the answer with the range of *body* that was requested (RFC 9110, one range)."""
    quoted, size = f'"{etag}"', len(body)
    headers = {"content-type": "application/octet-stream", "accept-ranges": "bytes", "etag": quoted}
    found = re.fullmatch(r"bytes=([0-9]*)-([0-9]*)", request.headers.get("range", ""))
    if found is None or request.headers.get("if-range", quoted) != quoted or found[1] == found[2] == "":
        return CodeAnswer(200, body, headers)
    if found[1] and found[2] and int(found[2]) < int(found[1]):
        return CodeAnswer(200, body, headers)
    first = int(found[1]) if found[1] else size - min(size, int(found[2]))
    last = min(size - 1, int(found[2]) if found[1] and found[2] else size - 1)
    if first >= size or (not found[1] and int(found[2]) == 0):
        unsatisfied = {**headers, "content-range": f"bytes */{size}", PROBLEM_HEADER: ProblemCode.INVALID.value}
        return CodeAnswer(416, b"", unsatisfied)
    return CodeAnswer(206, body[first : last + 1], {**headers, "content-range": f"bytes {first}-{last}/{size}"})


def keep_raw(content: bytes) -> tuple[Encoding, bytes]:
    """Encode nothing, for :attr:`CodeStore.encode`."""
    return Encoding.RAW, content


# Faults


def cut(after: int) -> Fault:
    """Return a fault that ends the connection after so many bytes of an answer, if it is longer."""
    return lambda request, answer: replace(answer, cut_after=after) if len(answer.body) > after else answer


def slow(bytes_s: float) -> Fault:
    return lambda request, answer: replace(answer, bytes_s=bytes_s)


def other_etag(request: CodeRequest, answer: CodeAnswer) -> CodeAnswer:
    """Answer as if the pack were another one by now."""
    return replace(answer, headers={**answer.headers, "etag": f'"{"e" * 64}"'})


def damage_byte(at: int) -> Fault:
    """Return a fault that changes the byte at this offset of the pack."""

    def damage(request: CodeRequest, answer: CodeAnswer) -> CodeAnswer:
        found = re.match(r"bytes (\d+)-", answer.headers.get("content-range", ""))
        offset = at - (int(found[1]) if found else 0)
        if not 0 <= offset < len(answer.body):
            return answer
        body = bytearray(answer.body)
        body[offset] ^= 0x55
        return replace(answer, body=bytes(body))

    return damage


def in_turn(*faults: Fault) -> Fault:
    """Return a fault that applies several to each answer."""

    def apply(request: CodeRequest, answer: CodeAnswer) -> CodeAnswer:
        for fault in faults:
            answer = fault(request, answer)
        return answer

    return apply
