"""Publishing a Dag bundle through the REST API: what is refused. `cli/test_upload.py` publishes with the command."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
from airflow_remote_protocol.packs import Encoding
from airflow_remote_protocol.trees import Entry, Tree
from airflow_remote_provider import compat
from airflow_remote_provider.api.ui_v1 import uploads
from airflow_remote_provider.ledger import bundles, trees
from airflow_remote_provider.packing.storing import PackedBlob
from airflow_remote_provider.packing.uploads import write_upload

from .conftest import Users

CODE = b"x = 1\n"
SHA256 = hashlib.sha256(CODE).hexdigest()
TREE = Tree.of([Entry("a.py", SHA256, len(CODE))])
HERE = f"/bundles/etl/trees/{TREE.digest}"


@pytest.fixture(autouse=True)
def _known_bundle(database: object) -> Iterator[None]:
    trees.forget_loaded()
    compat.in_transaction(lambda session: bundles.note_trouble(session, "etl", "nobody has published it"))
    yield


def refusal(answer: Any, status: int = 422) -> str:
    assert answer.status_code == status, answer.text
    return str(answer.json()["detail"])


def test_a_tree_is_published_once_its_files_are_uploaded(users: Users) -> None:
    begun = users.ann.ok("POST", "/bundles/etl/trees", content=TREE.manifest)
    assert begun == {"tree": TREE.digest, "missing": [SHA256]}
    body = {"version": None, "scanned_s_ago": 1.5}
    assert "1 files of tree" in refusal(users.ann("PUT", HERE, json=body))
    blob = PackedBlob(SHA256, len(CODE), Encoding.RAW, CODE, None)
    assert users.ann("POST", f"{HERE}/blobs", content=write_upload([blob])).status_code == 204
    about = users.ann.ok("PUT", HERE, json=body)
    assert (about["tree"], about["publisher"], about["trouble"]) == (TREE.digest, "ann, with airflow remote publish", "")
    assert users.ann.ok("POST", "/bundles/etl/trees", content=TREE.manifest)["missing"] == []
    with compat.transaction() as session:
        assert trees.text_hashes(session, [SHA256]), "jobs compare it with the Dag's"
    entries = users.ann.ok("GET", "/audit")["items"]
    assert f"published the Dag bundle etl (tree {TREE.digest[:12]})" in str(entries)


def test_what_can_not_be_a_bundle_is_refused(users: Users, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "the list of files can't be used" in refusal(users.ann("POST", "/bundles/etl/trees", content=b"../x"))
    assert "was not begun" in refusal(users.ann("POST", f"{HERE}/blobs", content=b""))
    assert "was not begun" in refusal(users.ann("PUT", HERE, json={"scanned_s_ago": 0}))
    assert "there is no Dag bundle" in refusal(users.ann("POST", "/bundles/other/trees", content=TREE.manifest), 404)
    users.ann.ok("POST", "/bundles/etl/trees", content=TREE.manifest)
    assert "ends early" in refusal(users.ann("POST", f"{HERE}/blobs", content=b"x"))
    large = Tree.of([Entry("a.bin", "1" * 64, 1 << 40)])
    assert "[remote] tree_bytes" in refusal(users.ann("POST", "/bundles/etl/trees", content=large.manifest))
    monkeypatch.setattr(uploads, "MAX_MANIFEST_BYTES", 10)
    assert "more than 10 bytes" in refusal(users.ann("POST", "/bundles/etl/trees", content=TREE.manifest), 413)
