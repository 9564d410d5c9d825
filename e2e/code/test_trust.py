"""Topic suite: a worker that requires signatures, with a whole Airflow: what is signed runs, all else fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import NewEmptyWorker, Pushing, dag_source

PLAIN = "return 'it ran'"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return tmp_path / "release.key"


def keygen(pushing: Pushing, path: Path) -> str:
    """Make a key; return the line of its public key."""
    pushing.airflow.cli("remote", "sign", "keygen", "--out", str(path))
    return path.with_name(path.name + ".pub").read_text().splitlines()[1]


def sign(pushing: Pushing, tree: str, key: Path, *options: str) -> None:
    pushing.airflow.cli("remote", "sign", "tree", tree, "--key", str(key), *options)


def write(pushing: Pushing, name: str, code: str = PLAIN) -> None:
    """Write a Dag for the queue of its name."""
    pushing.write(f"{name}.py", dag_source(name, name, code))
    pushing.parse(name)


def failed(pushing: Pushing, dag: str) -> tuple[str, str]:
    """Run a Dag whose code is refused; return the log of its task, and the tree."""
    run, state = pushing.run(dag)
    assert state == "failed"
    return pushing.airflow.task_log(dag, run, "main"), pushing.tree(run)


def test_only_code_that_a_trusted_key_has_signed_runs(pushing: Pushing, new_empty_worker: NewEmptyWorker, key: Path) -> None:
    trusted, other = keygen(pushing, key), key.with_name("other.key")
    keygen(pushing, other)
    write(pushing, "signed_only")
    new_empty_worker("signed_only", settings=f'[trust]\nbundles = ["{trusted}"]')
    log, tree = failed(pushing, "signed_only")
    assert "nobody has signed it" in log
    assert f"airflow remote sign tree {tree}" in log

    sign(pushing, tree, other)
    assert "which this worker does not trust" in failed(pushing, "signed_only")[0]

    sign(pushing, tree, key, "--expires", "1s")
    assert "has expired" in failed(pushing, "signed_only")[0]

    sign(pushing, tree, key, "--expires", "90d")
    run, state = pushing.run("signed_only")
    assert state == "success", pushing.airflow.task_log("signed_only", run, "main")

    write(pushing, "signed_only", "return 'it was changed'")
    log, changed = failed(pushing, "signed_only")
    assert changed != tree
    assert "nobody has signed it" in log


def test_two_of_two_keys_must_sign(pushing: Pushing, new_empty_worker: NewEmptyWorker, key: Path) -> None:
    second = key.with_name("second.key")
    lines = ", ".join(f'"{keygen(pushing, one)}"' for one in (key, second))
    write(pushing, "two_keys")
    new_empty_worker("two_keys", settings=f"[trust]\nbundles = [{lines}]\nthreshold = 2")
    _, tree = failed(pushing, "two_keys")
    sign(pushing, tree, key)
    assert "signed by 1 of the 2 keys" in failed(pushing, "two_keys")[0]
    sign(pushing, tree, second)
    assert pushing.run("two_keys")[1] == "success"
