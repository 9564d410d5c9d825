"""Routes for publishing a Dag bundle from elsewhere, such as CI: first the list of its files, then those that central lacks.

What is sent is stored, and checked by its hashes. Nothing of it is executed, imported or unpacked here.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from airflow_remote_protocol.packs import BadPack
from airflow_remote_protocol.trees import MAX_MANIFEST_BYTES, BadTree, Tree
from fastapi import HTTPException, Request
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from airflow_remote_provider.api.ui_v1.bundles import Bundle
from airflow_remote_provider.api.ui_v1.caller import CallerDep
from airflow_remote_provider.api.ui_v1.request_types import RequestBody
from airflow_remote_provider.api.ui_v1.routes import Routes
from airflow_remote_provider.api.ui_v1.statements import Digest
from airflow_remote_provider.ledger import bundles, publishing, trees
from airflow_remote_provider.ledger.audit import record_action
from airflow_remote_provider.ledger.bundles import PublishedBundle
from airflow_remote_provider.ledger.errors import Impossible
from airflow_remote_provider.ledger.trees import BUNDLE
from airflow_remote_provider.ledger.views import bundles as view
from airflow_remote_provider.ledger.views.bundles import BundleSummary
from airflow_remote_provider.packing.storing import PackedBlob, put
from airflow_remote_provider.packing.uploads import longest_upload, read_upload
from airflow_remote_provider.settings import settings
from airflow_remote_provider.stores.blobs.opened import BlobStores

router = Routes("bundles")

LONGEST_SCAN_S = 86400.0
BINARY: dict[str, Any] = {"requestBody": {"required": True, "content": {"application/octet-stream": {}}}}


class BegunTree(BaseModel):
    tree: str
    """Its digest."""
    missing: list[str]
    """SHA-256 of the files that central lacks."""


class PublishRequest(RequestBody):
    version: Annotated[str, Field(min_length=1, max_length=250, pattern=r"^[^\x00-\x1f]+$")] | None = None
    """The bundle's own name for this state, such as a commit; null: the bundle has no versions."""
    scanned_s_ago: Annotated[float, Field(ge=0, le=LONGEST_SCAN_S)]
    """How long ago the files were read."""


@router.post("/bundles/{bundle:path}/trees", summary="Begin to publish a Dag bundle from elsewhere", openapi_extra=BINARY)
async def begin_tree(caller: CallerDep, bundle: Bundle, request: Request) -> BegunTree:
    """The body is the manifest of its tree: the list of its files. The answer names those to upload."""
    await caller.require_manage()
    body = await _read(request, MAX_MANIFEST_BYTES)
    tree = await caller.pool.blocking(lambda: _tree(body))
    return await caller.act_on_bundle(_begin, bundle, tree)


@router.post(
    "/bundles/{bundle:path}/trees/{digest}/blobs", status_code=204, summary="Upload files of a Dag bundle", openapi_extra=BINARY
)
async def add_blobs(caller: CallerDep, bundle: Bundle, digest: Digest, request: Request) -> None:
    """The body has, for each file, its SHA-256, its encoding, its length and its packed content."""
    options = settings()
    tree = await caller.act_on_bundle(_begun, bundle, digest)
    body = await _read(request, longest_upload(options.blob_bytes))
    store = BlobStores(options.blob_store).newest
    await caller.pool.blocking(lambda: put(store, _blobs(body, tree)))


@router.put("/bundles/{bundle:path}/trees/{digest}", summary="Publish an uploaded tree as a Dag bundle")
async def publish_tree(caller: CallerDep, bundle: Bundle, digest: Digest, body: PublishRequest) -> BundleSummary:
    """Jobs run it from now on. A tree whose files were read before those of the present one changes nothing."""
    return await caller.act_on_bundle(_publish, bundle, digest, body)


def _tree(manifest: bytes) -> Tree:
    """Raises: Impossible: it is no manifest, or exceeds central's limits."""
    options = settings()
    try:
        tree = Tree.parse(manifest)
    except BadTree as error:
        raise Impossible(f"the list of files can't be used: {error}") from None
    largest = max(tree.sizes.values(), default=0)
    limits = (("tree_files", tree.files), ("tree_bytes", tree.bytes), ("blob_bytes", largest))
    for name, found in limits:
        if found > getattr(options, name):
            raise Impossible(f"the bundle exceeds central's limit [remote] {name}: {found} of {getattr(options, name)}; raise it")
    return tree


def _begin(session: Session, bundle: str, tree: Tree, *, by: str) -> BegunTree:
    trees.begin_tree(session, tree, BUNDLE, by)
    return BegunTree(tree=tree.digest, missing=sorted(trees.missing_blobs(session, tree.sizes)))


def _begun(session: Session, bundle: str, digest: str, *, by: str) -> Tree:
    tree = trees.load_tree(session, digest)
    if tree is None:
        raise Impossible(f"the tree {digest[:12]} was not begun, or too long ago; publish it again")
    return tree


def _blobs(body: bytes, tree: Tree) -> list[PackedBlob]:
    try:
        return read_upload(body, tree)
    except BadPack as error:
        raise Impossible(str(error)) from None


def _publish(session: Session, bundle: str, digest: str, body: PublishRequest, *, by: str) -> BundleSummary:
    tree = _begun(session, bundle, digest, by=by)
    scanned_at = publishing.when_begun(session, lambda: timedelta(seconds=body.scanned_s_ago))
    bundles.publish(session, PublishedBundle(bundle, body.version, tree, scanned_at, f"{by}, with airflow remote publish"))
    record_action(session, by, f"published the Dag bundle {bundle} (tree {digest[:12]})")
    session.flush()
    return view.show_bundle(session, bundle).about


async def _read(request: Request, longest: int) -> bytes:
    """Return the request's body. Raises: HTTPException: it is longer than *longest*."""
    parts, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > longest:
            raise HTTPException(413, f"the body has more than {longest} bytes, which is the limit of this route")
        parts.append(chunk)
    return b"".join(parts)
