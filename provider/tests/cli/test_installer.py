"""`airflow remote installer`: what it writes and refuses. The worker's packages are made in packing/archives."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow_remote_protocol.messages import Enrolment
from airflow_remote_protocol.trees import Entry, Tree
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import credentials, runtimes
from airflow_remote_provider.ledger.trees import RUNTIME
from airflow_remote_provider.packing.archives import installer
from airflow_remote_provider.packing.runtimes.errors import CannotBuild
from airflow_remote_provider.packing.scan import Limits, scan
from airflow_remote_provider.packing.storing import Storing
from airflow_remote_provider.stores.blobs.database import DatabaseBlobs

Run = Callable[..., str]
LINUX, OTHER = "cp311-linux-gnu-x86_64", "cp312-linux-musl-aarch64"
WORKER = b"the worker"
SHA256 = hashlib.sha256(WORKER).hexdigest()
CONTENT = {"a.py": b"same", "b/c.py": b"x" * 100_000, "b/d.py": b"same"}

pytestmark = [pytest.mark.parametrize("run", ["in_process"], indirect=True), pytest.mark.usefixtures("database")]
"""It never calls a server."""


@pytest.fixture(autouse=True)
def failures(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, CannotBuild]]:
    """Make every platform a worker of one file, except those in the dictionary, which fail."""
    found: dict[str, CannotBuild] = {}

    def make(platform: Any, *_: object, **__: object) -> tuple[Tree, Callable[[str], bytes]]:
        if str(platform) in found:
            raise found[str(platform)]
        return Tree.of([Entry("site-packages/worker.py", SHA256, len(WORKER))]), {SHA256: WORKER}.__getitem__

    monkeypatch.setattr(installer, "make_worker", make)
    yield found


@pytest.fixture
def runtime(tmp_path: Path) -> Tree:
    """Return the tree of a runtime that is stored for one platform."""
    root = tmp_path / "runtime"
    for path, content in CONTENT.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    tree, state = scan(root, limits=Limits(100, 1 << 20, 1 << 20))
    Storing(DatabaseBlobs(), RUNTIME, who="test", packers=1, in_transaction=compat.in_transaction).store(tree, state)
    built = [runtimes.Built(LINUX, tree.digest)]
    with compat.transaction() as session:
        runtimes.add(session, "default", runtimes.Recipe(), built, built_with={}, by="ann")
    return tree


def make(run: Run, out: Path, *words: str, url: str = "https://airflow.example.com/sub/") -> str:
    return run("installer", "--out", str(out), "--platform", LINUX, "--url", url, *words)


def refused(run: Run, out: Path, *words: str, **how: str) -> str:
    with pytest.raises(SystemExit) as ended:
        make(run, out, *words, **how)
    assert isinstance(ended.value.code, str)
    assert not out.exists()
    with compat.transaction() as session:
        assert not credentials.list_tokens(session)
    return ended.value.code


def test_it_has_all_that_the_machine_needs(run: Run, runtime: Tree, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----")
    (tmp_path / "site.pub").write_text("a key")
    options = ["--name", "plant-7", "--queues", "a,b", "--slots", "2", "--expires-minutes", "60"]
    files = ["--ca", str(tmp_path / "ca.pem"), "--trust", str(tmp_path / "site.pub")]
    printed = make(run, tmp_path / "file", *options, *files)
    assert printed.splitlines()[-1].endswith(f"MB, for {LINUX}")
    with zipfile.ZipFile(tmp_path / "file") as archive:
        about = json.loads(archive.read("install.json"))
        manifest = archive.read(f"manifests/{about['runtime']['platforms'][LINUX]}")
        assert manifest == runtime.manifest
        for entry in runtime.entries:
            assert archive.read(f"blobs/{entry.sha256}") == CONTENT[entry.path]
        assert archive.read(f"blobs/{SHA256}") == WORKER
    token = about.pop("token")
    assert about.pop("expires_at") > 0
    assert about == {
        "format": 1,
        "central": "https://airflow.example.com/sub",
        "name": "plant-7",
        "insecure_http": False,
        "settings": {"slots": 2},
        "ca": "-----BEGIN CERTIFICATE-----",
        "trust": {"site.pub": "a key"},
        "runtime": {"name": "default", "serial": 1, "platforms": {LINUX: runtime.digest}},
    }
    with compat.transaction() as session:
        (row,) = credentials.list_tokens(session)
        assert (row.name_pattern, row.uses_left, row.queues) == ("plant-7", 1, ["a", "b"])
        credentials.enrol(session, token, Enrolment("plant-7"))


def test_a_runtime_that_is_missing_is_named_before_a_token_is_made(run: Run, tmp_path: Path) -> None:
    assert "there is no such runtime" in refused(run, tmp_path / "file")
    make(run, tmp_path / "file", "--runtime", "")
    with zipfile.ZipFile(tmp_path / "file") as archive:
        assert json.loads(archive.read("install.json"))["runtime"] is None


def test_a_platform_without_the_runtime_is_named_with_the_command(run: Run, runtime: Tree, tmp_path: Path) -> None:
    text = refused(run, tmp_path / "file", "--platform", OTHER)
    assert f"airflow remote runtimes build default --platform {OTHER}" in text


def test_no_token_is_made_for_a_worker_that_cannot_be_had(
    run: Run, runtime: Tree, failures: dict[str, CannotBuild], tmp_path: Path
) -> None:
    failures[LINUX] = CannotBuild("the package index has no airflow-remote-worker", "uv said this")
    assert refused(run, tmp_path / "file") == "the package index has no airflow-remote-worker\nuv said this"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--queues", ","], "--queues names no queue"),
        (["--slots", "0"], "--slots must be 1 or more"),
        (["--expires-minutes", "0"], "--expires-minutes must be more than 0"),
        (["--ca", "/dev/null"], "has no certificate"),
        (["--trust", "/nothing"], "--trust: /nothing can't be read"),
        (["--platform", "cp312-windows-x86_64"], "installers are for Linux only"),
        (["--platform", "solaris"], "is not a platform"),
        (["--server", "https://airflow.example.com"], "uses Airflow's database"),
    ],
)
def test_what_it_refuses(run: Run, tmp_path: Path, words: list[str], text: str) -> None:
    assert text in refused(run, tmp_path / "file", *words)


def test_an_address_must_be_known_and_encrypted(run: Run, tmp_path: Path) -> None:
    assert "unencrypted" in refused(run, tmp_path / "file", url="http://airflow.example.com")
    assert "--url" in refused(run, tmp_path / "file", url="ftp://airflow.example.com")


def test_a_directory_that_is_missing_is_named(run: Run, tmp_path: Path) -> None:
    assert "there is no directory" in refused(run, tmp_path / "missing" / "file")
