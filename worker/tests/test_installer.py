from __future__ import annotations

import hashlib
import json
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from airflow_remote_protocol.trees import Entry, Tree
from airflow_remote_worker import system
from airflow_remote_worker.cli import main
from airflow_remote_worker.code.interpreter import find
from airflow_remote_worker.code.trees import TreeStore
from airflow_remote_worker.config import load
from airflow_remote_worker.testing.fake_central import FakeCentral

CONTENT = b'{"format": 1}\n'
NAME = hashlib.sha256(CONTENT).hexdigest()
TREE = Tree.of([Entry("runtime.json", NAME, len(CONTENT))])


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AIRFLOW_REMOTE_WORKER_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def write(path: Path, central: FakeCentral, *, blob: bytes = CONTENT, **changes: Any) -> Path:
    about = {
        "format": 1,
        "central": central.url,
        "token": central.enrolment_token(["q"]),
        "expires_at": time.time() + 600,
        "name": "installed",
        "settings": {"slots": 3},
        "runtime": {"name": "default", "serial": 4, "platforms": {find(load({"state": str(path)})).platform: TREE.digest}},
        **changes,
    }
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("install.json", json.dumps(about))
        archive.writestr(f"manifests/{TREE.digest}", TREE.manifest)
        archive.writestr(f"blobs/{NAME}", blob)
    return path


def install(path: Path, *words: str) -> int:
    return main(["install", "--archive", str(path), "--no-service", *words])


def test_it_joins_with_the_settings_and_stores_the_runtime(central: FakeCentral, state: Path, tmp_path: Path) -> None:
    assert install(write(tmp_path / "file", central)) == 0
    config = load()
    assert (config.central, config.slots) == (central.url, 3)
    assert json.loads((state / "credential.json").read_bytes().partition(b"\n")[0] or b"{}") is not None
    store = TreeStore(config.code_path / "trees")
    tree = store.load(TREE.digest)
    assert tree is not None and not store.check(tree)
    assert store.newest_of("runtime:default") == TREE.digest


def test_it_can_be_repeated_after_the_token_was_used(central: FakeCentral, state: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "file", central)
    assert install(path) == install(path) == 0


def test_an_interrupted_installation_is_continued(
    central: FakeCentral, state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "file", central, blob=b"damaged")
    assert install(path) == 1
    assert "is damaged" in capsys.readouterr().err
    assert not (state / "credential.json").exists()
    with_token = json.loads(zipfile.ZipFile(path).read("install.json"))["token"]
    assert install(write(path, central, token=with_token)) == 0


@pytest.mark.parametrize(
    ("changes", "text"),
    [({"expires_at": 1.0}, "has expired (1970-01-01"), ({"format": 2}, "format 2"), ({"settings": {"slots": 0}}, "slots")],
)
def test_what_it_refuses(
    central: FakeCentral, state: Path, tmp_path: Path, changes: Any, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert install(write(tmp_path / "file", central, **changes)) == 2
    assert text in capsys.readouterr().err
    assert not (state / "credential.json").exists()


def test_a_file_that_is_no_installer_is_named(state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with zipfile.ZipFile(tmp_path / "worker.pyz", "w") as archive:
        archive.writestr("archive.json", "{}")
    (tmp_path / "text").write_text("no zip")
    assert install(tmp_path / "worker.pyz") == install(tmp_path / "text") == 2
    shown = capsys.readouterr().err
    assert "make an installer on central" in shown and "can't be read" in shown


def test_a_runtime_for_another_platform_is_left_to_central(
    central: FakeCentral, state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runtime = {"name": "default", "serial": 4, "platforms": {"cp399-linux-gnu-x86_64": TREE.digest}}
    assert install(write(tmp_path / "file", central, runtime=runtime)) == 0
    assert "it is for cp399-linux-gnu-x86_64" in capsys.readouterr().out


def test_the_name_can_be_changed_and_the_authority_is_stored(central: FakeCentral, state: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "file", central, ca="the certificate")
    assert main(["install", "--archive", str(path), "--no-service", "--name", "other"]) in (0, 1, 2)  # no TLS here
    assert (state / "central-ca.pem").read_text() == "the certificate"
    assert load().ca_file == state / "central-ca.pem"


@pytest.mark.skipif(system.user_id() != 0, reason="only root installs for another user")
def test_root_names_the_user_of_the_service(
    central: FakeCentral, state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "file", central)
    assert main(["install", "--archive", str(path)]) == 2
    assert "--user-name: you are root" in capsys.readouterr().err
    assert install(path, "--user-name", "nobody") == 0
    assert system.owner(state / "worker.toml") == "nobody"
