"""A worker's code in a process of its own, which a test kills: fetches one tree and prints how far it is.

Arguments: central's URL, session, credential, the directory for code, the digest, and in which phase to stop: `fetch` (never by
itself), `unpack` (after the first files), `complete` (right before the tree appears), or `end`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import anyio
from airflow_remote_protocol.messages import Bundle, TreeRef
from airflow_remote_worker.clock import SystemClock
from airflow_remote_worker.code import trees
from airflow_remote_worker.code.bundles import BundleCode, Limits, Origin
from airflow_remote_worker.code.fetch import Incoming, PackFetcher
from airflow_remote_worker.code.trees import TreeStore
from airflow_remote_worker.link.attempts import Attempts
from airflow_remote_worker.link.client import Link
from airflow_remote_worker.link.network import Network


def wait_here(*_: object, **__: object) -> None:
    print("here", flush=True)
    time.sleep(60)


async def main() -> None:
    url, session, credential, root, digest, phase = sys.argv[1:]
    clock = SystemClock()
    link = Link(Network(central=url), credential=credential, clock=clock)
    link.session_id = session
    store = TreeStore(Path(root) / "trees", boot="b")
    fetcher = PackFetcher(Incoming(Path(root) / "incoming"), link, clock, kbit_s=0, make_retries=lambda: Attempts(link, clock))
    code = BundleCode(store, fetcher, Limits(1 << 40, 0), clock)
    if phase == "unpack":
        original, placed = trees.Filling._place, []

        def place(*arguments: object, **named: object) -> None:
            placed.append(1)
            original(*arguments, **named)  # type: ignore[arg-type]
            if len(placed) == 2:
                wait_here()

        trees.Filling._place = place  # type: ignore[method-assign]
    if phase == "complete":
        trees.NewTree.complete = wait_here  # type: ignore[method-assign, assignment]

    def note(detail: str) -> None:
        print(detail, flush=True)

    async with anyio.create_task_group() as tasks:
        await tasks.start(code.run)
        path = await code.ensure(TreeRef(digest=digest, files=1, bytes=1), Origin.of_bundle(Bundle(name="dags")), "job", note)
        print(f"done {path}", flush=True)
        tasks.cancel_scope.cancel()


anyio.run(main)
