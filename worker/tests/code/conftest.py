"""What tests of code share: trees in memory and on disk, and their packs as central lays them out."""

from __future__ import annotations

import hashlib
import io
import random
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import anyio
import pytest
from airflow_remote_protocol.messages import Bundle, Enrolment, Facts, Poll, SessionRequest, TreeRef
from airflow_remote_protocol.packs import Encoding, PackReader, Stored, encode_blob, lay_out
from airflow_remote_protocol.trees import Entry, Tree
from airflow_remote_protocol.version import PROTOCOL_VERSION, Capability
from airflow_remote_worker.clock import SystemClock
from airflow_remote_worker.code.bundles import BundleCode, Limits, Origin
from airflow_remote_worker.code.fetch import Incoming, PackFetcher
from airflow_remote_worker.code.trees import TreeStore
from airflow_remote_worker.link.attempts import Attempts
from airflow_remote_worker.link.client import Link
from airflow_remote_worker.link.network import Network
from airflow_remote_worker.testing.code import keep_raw
from airflow_remote_worker.testing.fake_central import FakeCentral
from airflow_remote_worker.testing.http_server import Recorded

T = TypeVar("T")


def hash_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def tree_of(files: Mapping[str, bytes], executable: Iterable[str] = ()) -> Tree:
    return Tree.of(Entry(path, hash_of(content), len(content), path in set(executable)) for path, content in files.items())


def blobs_of(files: Mapping[str, bytes]) -> Iterator[tuple[str, Iterator[bytes]]]:
    for content in {content: None for content in files.values()}:
        yield hash_of(content), iter([content] if content else [])


def pack_of(files: Mapping[str, bytes], base: Tree | None = None, executable: Iterable[str] = ()) -> bytes:
    """Return the pack that makes a tree with these contents."""
    packed: dict[str, tuple[Encoding, bytes]] = {hash_of(content): encode_blob(content) for content in files.values()}
    tree = tree_of(files, executable)
    layout = lay_out(tree, base, {name: Stored(encoding, len(data)) for name, (encoding, data) in packed.items()})
    made = bytearray()
    for part, start, end in layout.slice(0, layout.size):
        made += (packed[part.sha256][1] if part.data is None else part.data)[start:end]
    return bytes(made)


def reader_of(pack: bytes, digest: str, base: Tree | None = None) -> PackReader:
    return PackReader(io.BytesIO(pack), digest=digest, bases=lambda name: base if base and base.digest == name else None)


def make(store: TreeStore, files: Mapping[str, bytes], bundle: str = "dags", executable: Iterable[str] = ()) -> Tree:
    """Make a tree in *store*, without a base."""
    tree = tree_of(files, executable)
    new = store.make(tree, bundle, "")
    new.add(blobs_of(files))
    new.complete()
    return tree


@pytest.fixture
def store(tmp_path: Path) -> TreeStore:
    store = TreeStore(tmp_path / "code" / "trees", boot="this boot")
    store.prepare()
    return store


class CodeBench:
    """The code of a worker that is connected to a fake central over HTTP, without the rest of the daemon."""

    def __init__(self, central: FakeCentral, root: Path, *, kbit_s: float = 0, total_mb: float = 4000, least_free_mb: float = 0):
        self.central = central
        central.code.encode = keep_raw
        self.root = root / "code"
        self.clock = SystemClock()
        self.free: Callable[[Path], tuple[int, int]] = lambda path: (1 << 40, 1 << 30)
        self.link = Link(Network(central=central.url), credential="", clock=self.clock)
        self.store = TreeStore(self.root / "trees", boot="b")
        self.incoming = Incoming(self.root / "incoming")
        limits = Limits(int(total_mb * 1e6), int(least_free_mb * 1e6))
        fetcher = PackFetcher(self.incoming, self.link, self.clock, kbit_s=kbit_s, make_retries=self._make_retries)
        self.code = BundleCode(self.store, fetcher, limits, self.clock, free=lambda path: self.free(path))
        self.details: list[str] = []

    def _make_retries(self) -> Attempts:
        return Attempts(self.link, self.clock, floor_s=0.01, ceiling_s=0.05)

    def run(self, steps: Callable[[], Awaitable[T]], *, within_s: float = 60) -> T:
        """Connect, run *steps* beside the code's own tasks, and disconnect."""

        async def main() -> T:
            with anyio.fail_after(within_s):
                await self._connect()
                try:
                    async with anyio.create_task_group() as tasks:
                        await tasks.start(self.code.run)
                        result = await steps()
                        tasks.cancel_scope.cancel()
                    return result
                finally:
                    await self.link.close()

        return anyio.run(main)

    async def _connect(self) -> None:
        name = f"w-{uuid.uuid4().hex[:8]}"
        self.link.use_credential(self.central.enrolment_token(["q"]))
        enrolled = await self.link.enrol(Enrolment(name=name))
        self.link.use_credential(enrolled.credential)
        capabilities = [capability.value for capability in Capability if capability is not Capability.RUNTIMES]
        facts = Facts(hostname="h", os="o", arch="a", python="3", version="1")
        await self.link.open_session(
            SessionRequest(
                instance_id=name, boot_id=name, protocol=PROTOCOL_VERSION, capabilities=capabilities, slots=100, facts=facts
            )
        )

    async def offer(self, files: Mapping[str, bytes]) -> TreeRef:
        """Return the tree of a job that central offers, so that this worker may fetch it."""
        ref = self.central.code.publish(files)
        self.central.enqueue("q", tree=ref)
        reply = await self.link.poll(Poll(free_slots=1, intent_revision=1, wait_s=5))
        assert [offer.tree for offer in reply.offers] == [ref]
        return ref

    async def get(self, ref: TreeRef, holder: object = "job") -> Path:
        return await self.code.ensure(ref, Origin.of_bundle(Bundle(name="dags")), holder, self.details.append)

    def packs(self) -> list[Recorded]:
        return self.central.requests_to("/pack")

    def content(self, ref: TreeRef) -> dict[str, bytes]:
        root = self.store.files_of(ref.digest)
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    def files(self) -> list[str]:
        """Return what is in the directories besides finished trees."""
        return sorted(path.name for path in [*self.incoming.root.iterdir(), *(self.root / "trees").glob(".*")])


def noise(size: int, seed: int = 0) -> bytes:
    """Return bytes that can't be compressed."""
    return random.Random(seed).randbytes(size)


@pytest.fixture
def bench(central: FakeCentral, tmp_path: Path) -> CodeBench:
    return CodeBench(central, tmp_path)
