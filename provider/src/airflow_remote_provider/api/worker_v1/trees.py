"""Routes of code: the pack of a tree, single blobs of it, and the trees that a worker holds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from airflow_remote_protocol.codec import decode, encode
from airflow_remote_protocol.errors import ProblemCode, make_problem
from airflow_remote_protocol.messages import BlobsWanted, Inventory, Statements
from airflow_remote_protocol.trees import DIGEST
from airflow_remote_protocol.version import PROBLEM_HEADER
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from airflow_remote_provider import metrics
from airflow_remote_provider.api.admission.bodies import read_body
from airflow_remote_provider.api.admission.holdings import holding_of
from airflow_remote_provider.api.problems import Refusal
from airflow_remote_provider.api.worker_v1.context import ApiContext
from airflow_remote_provider.api.worker_v1.packs import PackRequest, Plan
from airflow_remote_provider.api.worker_v1.ranges import Stretch, requested
from airflow_remote_provider.api.worker_v1.sending import StreamedResponse, places_of
from airflow_remote_provider.ledger import held_releases, held_runtimes, inventory, statements, trees
from airflow_remote_provider.ledger.workers import WorkerRecord
from airflow_remote_provider.stores.blobs import BlobLost

LIST_BYTES = 128 * 1024
"""Limit of a list of digests. One of 1,000 has 67 KB."""
INVENTORY_BYTES = 512 * 1024
"""Limit of an inventory. One of 1,000 digests and 50 runtimes, each with 2,000 characters, has 180 KB or, as escapes, 370 KB."""
PLAN_COST = 20.0
"""As how many calls a pack counts whose plan is not known: it may read tens of thousands of rows. `calls_per_second` allows ten
such packs per second, and 100 at once."""
INCOMPLETE_RETRY_S = 30.0
"""The time to retry where only a publisher can help."""
HEADERS = {
    "content-type": "application/octet-stream",
    "accept-ranges": "bytes",
    # Airflow compresses every answer without this header for a client that accepts it, and proxies may: ranges would not fit.
    "content-encoding": "identity",
    "cache-control": "no-transform",
}


async def pack(central: ApiContext, request: Request, worker: WorkerRecord) -> Response:
    """Send a pack, or a range of it. A worker gets the trees of its open jobs; of others it can't tell whether they exist."""
    asked = _asked(request)
    _take_place(central, request, worker, lzma=asked.lzma)
    await _require_pinned(central, worker, asked.tree)

    async def plan() -> Plan:
        charge = central.rate_limits.take
        return _usable(asked.tree, await central.packs.plan(asked, before_making=lambda: charge(worker.id, cost=PLAN_COST)))

    planned = await plan()
    stretch = requested(
        request.headers.get("range"), request.headers.get("if-range"), etag=planned.etag, size=planned.layout.size
    )
    if stretch is None:
        return _no_such_range(planned)
    return await _send(central, asked.tree, plan, planned, stretch)


async def blobs(central: ApiContext, request: Request, worker: WorkerRecord) -> Response:
    """Send single blobs of a tree of one of the worker's open jobs."""
    digest = _digest(request)
    wanted = decode(BlobsWanted, await read_body(request, LIST_BYTES))
    holding_of(request).give_back()
    _take_place(central, request, worker, lzma=wanted.lzma)
    await _require_pinned(central, worker, digest)

    async def plan() -> Plan:
        planned = await central.packs.plan_blobs(digest, set(wanted.blobs), lzma=wanted.lzma)
        if planned is not None and len(planned.blobs) != len(set(wanted.blobs)):
            raise Refusal(ProblemCode.INVALID, f"tree {digest[:12]} does not have all of these files")
        return _usable(digest, planned)

    planned = await plan()
    return await _send(central, digest, plan, planned, Stretch(0, planned.layout.size, planned.layout.size, is_partial=False))


async def list_statements(central: ApiContext, request: Request, worker: WorkerRecord) -> Response:
    """Send what was signed about a tree, to a worker that may fetch it."""
    digest = _digest(request)
    await _require_pinned(central, worker, digest)
    found = await central.pool.trees.call(statements.for_worker, digest)
    return Response(encode(Statements(found)), media_type="application/json")


async def note_inventory(central: ApiContext, request: Request, worker: WorkerRecord) -> Response:
    """Store which trees the worker holds, which runtimes it has ready, and which release it runs."""
    central.inventory_limits.take(worker.id)
    held = decode(Inventory, await read_body(request, INVENTORY_BYTES))
    record = await central.pool.workers.call(_note, worker, held)
    if record is not None and central.registry.remember(record) is record:
        central.registry.on_change(record)  # jobs may have waited for what is ready now
    return Response(status_code=204)


def _note(session: Session, worker: WorkerRecord, held: Inventory) -> WorkerRecord | None:
    record = None
    if worker.host is not None:  # first: it locks rows of runtimes before the worker's
        record = held_runtimes.note(session, worker.id, held.runtimes)
    if worker.release_host is not None:
        record = held_releases.note(session, worker.id, held.release, running=held.running) or record
    inventory.note(session, worker.id, held.trees)
    return record


def _asked(request: Request) -> PackRequest:
    """Return what the URL asks for.

    Raises:
        Refusal: `not-found`, `invalid`.
    """
    base, lzma = request.query_params.get("base"), request.query_params.get("lzma", "1")
    if base is not None and not DIGEST.match(base):
        raise Refusal(ProblemCode.INVALID, "?base= needs the SHA-256 of a tree, 64 hexadecimal digits")
    if lzma not in ("0", "1"):
        raise Refusal(ProblemCode.INVALID, "?lzma= needs 0 or 1")
    return PackRequest(_digest(request), base, lzma == "1")


def _digest(request: Request) -> str:
    digest: str = request.path_params["digest"]
    if not DIGEST.match(digest):
        raise _unknown(digest)
    return digest


def _unknown(digest: str) -> Refusal:
    shown = digest[:12] if DIGEST.match(digest) else "with that name"
    return Refusal(
        ProblemCode.NOT_FOUND, f"no open job of this worker needs a tree {shown}, and it is to have no such runtime or release"
    )


def _take_place(central: ApiContext, request: Request, worker: WorkerRecord, *, lzma: bool) -> None:
    """Take a place among the downloads until the answer has been sent.

    Raises:
        Refusal: `busy`.
    """
    places_of(request).enter_context(central.downloads.place(worker.id))
    if not lzma:
        places_of(request).enter_context(central.decoded_downloads.place(worker.id))


async def _require_pinned(central: ApiContext, worker: WorkerRecord, digest: str) -> None:
    """Check that an open job of the worker needs the tree, or that the worker is to have it.

    Raises:
        Refusal: `not-found`.
    """
    if await _is_wanted(central, worker, digest) or await central.pool.trees.call(trees.is_pinned_by, worker.id, digest):
        return
    if (
        worker.host is not None or worker.release_host is not None
    ):  # another process may have sent it the tree in a list that is new here
        await central.runtimes.catch_up()
        await central.registry.catch_up()
        if await _is_wanted(central, central.registry.remember(worker), digest):
            return
    raise _unknown(digest)


async def _is_wanted(central: ApiContext, worker: WorkerRecord, digest: str) -> bool:
    if worker.host is None and worker.release_host is None:
        return False
    planned = central.runtimes
    await planned.load()
    if worker.host is not None and planned.wants(worker.host, digest):
        return True
    release = planned.release_for(worker.release_host) if worker.release_host is not None else None
    return release is not None and release.tree.digest == digest


def _usable(digest: str, plan: Plan | None) -> Plan:
    if plan is None:
        raise _incomplete(digest)
    return plan


def _incomplete(digest: str) -> Refusal:
    text = f"central does not have all files of tree {digest[:12]}; publish its bundle, or build its runtime, again"
    return Refusal(ProblemCode.BUSY, text, retry_after_s=INCOMPLETE_RETRY_S)


async def _send(
    central: ApiContext, digest: str, plan: Callable[[], Awaitable[Plan]], planned: Plan, stretch: Stretch
) -> Response:
    """Return the response, whose first window has been read: until then an error can still be answered.

    A plan is out of date if its blobs were deleted and stored again. A new one is then made, once; the bytes are the same.
    """
    content = central.packs.read(planned, stretch.start, stretch.end)
    try:
        first = await anext(content)
    except BlobLost:
        central.packs.forget(planned)
        etag, planned = planned.etag, await plan()
        content = central.packs.read(planned, stretch.start, stretch.end)
        try:
            first = await anext(content)
        except BlobLost as lost:
            central.packs.forget(planned)
            await central.packs.note_lost(digest, lost)
            raise _incomplete(digest) from None
        if planned.etag != etag:
            raise _incomplete(digest) from None
    headers = {**HEADERS, "etag": planned.etag, "content-length": str(stretch.end - stretch.start)}
    if stretch.is_partial:
        headers["content-range"] = stretch.content_range
    return StreamedResponse(_counted(central, planned, first, content), 206 if stretch.is_partial else 200, headers)


async def _counted(central: ApiContext, plan: Plan, first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    metrics.count("remote.code.bytes", len(first))
    yield first
    try:
        async for window in rest:
            metrics.count("remote.code.bytes", len(window))
            yield window
    except BlobLost:  # the worker asks again for the rest, and a new plan is made then
        central.packs.forget(plan)
        raise


def _no_such_range(plan: Plan) -> Response:
    problem = make_problem(ProblemCode.INVALID, f"the pack has {plan.layout.size} bytes; the requested range is beyond its end")
    headers = {
        PROBLEM_HEADER: ProblemCode.INVALID.value,
        "content-range": f"bytes */{plan.layout.size}",
        "etag": plan.etag,
    }
    return Response(encode(problem), 416, headers, media_type="application/problem+json")
