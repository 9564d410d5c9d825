"""Topic suite: a worker that requires signatures, with a whole Airflow: what is signed runs, all else fails."""

from __future__ import annotations

import time
from pathlib import Path

from testkit.signing import SigningKey

from .conftest import NewEmptyWorker, Pushing, dag_source

PLAIN = "return 'it ran'"
BUNDLE = "dags-folder"


def add(pushing: Pushing, tree: str, envelope: str) -> None:
    answer = pushing.airflow.client().post(f"/remote/ui/v1/trees/{tree}/statements", json={"envelope": envelope})
    assert answer.status_code == 201, answer.text


def write(pushing: Pushing, name: str, code: str = PLAIN) -> None:
    """Write a Dag for the queue of its name."""
    pushing.write(f"{name}.py", dag_source(name, name, code))
    pushing.parse(name)


def failed(pushing: Pushing, dag: str) -> tuple[str, str]:
    """Run a Dag whose code is refused; return the log of its task, and the tree."""
    run, state = pushing.run(dag)
    assert state == "failed"
    return pushing.airflow.task_log(dag, run, "main"), pushing.tree(run)


def test_only_code_that_a_trusted_key_has_signed_runs(pushing: Pushing, new_empty_worker: NewEmptyWorker, tmp_path: Path) -> None:
    key = tmp_path / "release.key"
    pushing.airflow.cli("remote", "sign", "keygen", "--out", str(key))
    trusted = key.with_name("release.key.pub")
    write(pushing, "signed_only")
    new_empty_worker("signed_only", settings=f'[trust]\nbundles = ["{trusted}"]')
    log, tree = failed(pushing, "signed_only")
    assert "nobody has signed it" in log
    assert f"airflow remote sign tree {tree}" in log

    pushing.airflow.cli("remote", "sign", "tree", tree, "--key", str(key), "--expires", "90d")
    run, state = pushing.run("signed_only")
    assert state == "success", pushing.airflow.task_log("signed_only", run, "main")

    write(pushing, "signed_only", "return 'it was changed'")
    log, changed = failed(pushing, "signed_only")
    assert changed != tree
    assert "nobody has signed it" in log


def test_two_of_two_keys_must_sign_and_neither_may_have_expired(pushing: Pushing, new_empty_worker: NewEmptyWorker) -> None:
    one, two, other = SigningKey(), SigningKey(), SigningKey()
    write(pushing, "two_keys")
    lines = ", ".join(f'"{key.public.line}"' for key in (one, two))
    new_empty_worker("two_keys", settings=f"[trust]\nbundles = [{lines}]\nthreshold = 2")
    tree = failed(pushing, "two_keys")[1]
    add(pushing, tree, other.sign(tree, name=BUNDLE))
    add(pushing, tree, one.sign(tree, name=BUNDLE))
    log = failed(pushing, "two_keys")[0]
    assert "which this worker does not trust" in log
    assert "signed by 1 of the 2 keys" in log
    add(pushing, tree, two.sign(tree, name=BUNDLE, expires=time.time() - 1))
    assert "has expired" in failed(pushing, "two_keys")[0]
    add(pushing, tree, two.sign(tree, name=BUNDLE))
    assert pushing.run("two_keys")[1] == "success"
