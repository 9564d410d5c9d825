"""`airflow remote workers rotate|suspend|unsuspend|queues|labels` through Airflow's own parser."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from testkit.ledger import Enlisted, audit_entries, enlist, worker_row  # isort: skip

from airflow_remote_provider.cli import workers
from airflow_remote_provider.stores.worker_logs import WorkerLogStore

pytestmark = pytest.mark.usefixtures("database")

Run = Callable[..., str]


@pytest.fixture
def run(run: Run) -> Run:
    """Run `airflow remote workers …`; return what it printed to stdout."""
    return partial(run, "workers")


@pytest.fixture
def worker() -> Enlisted:
    return enlist()


def test_a_request_for_a_new_credential_is_stored(run: Run, worker: Enlisted) -> None:
    assert worker.name in run("rotate", worker.name)
    assert worker_row(worker.id).rotate_asked_at is not None


def test_a_worker_is_suspended_and_accepted_again(run: Run, worker: Enlisted) -> None:
    run("suspend", worker.name, "--reason", "odd traffic")
    assert worker_row(worker.id).suspended_at is not None
    assert "odd traffic" in run("show", worker.name)
    run("unsuspend", worker.name)
    assert worker_row(worker.id).suspended_at is None


def test_queues_and_labels_are_replaced(run: Run, worker: Enlisted) -> None:
    assert "serves a, b" in run("queues", worker.name, "a, b,a")
    run("labels", worker.name, "site=kiel, gpu=yes")
    row = worker_row(worker.id)
    assert (row.queues, row.labels) == (["a", "b"], {"site": "kiel", "gpu": "yes"})
    assert "site=kiel" in run("show", worker.name)
    run("labels", worker.name, "")
    assert worker_row(worker.id).labels == {}


def test_bundles_are_set_and_unset(run: Run, worker: Enlisted) -> None:
    assert "jobs of plant-*, x" in run("bundles", worker.name, "plant-*, x")
    assert worker_row(worker.id).bundles == ["plant-*", "x"]
    run("bundles", worker.name, "*")
    assert worker_row(worker.id).bundles is None
    with pytest.raises(SystemExit, match="at least one bundle"):
        run("bundles", worker.name, "")


@pytest.mark.parametrize("labels", ["site", "=kiel", "site=", "a=" + "x" * 101])
def test_an_invalid_label_is_refused(run: Run, worker: Enlisted, labels: str) -> None:
    with pytest.raises(SystemExit, match="key=value"):
        run("labels", worker.name, labels)


def test_a_worker_without_queues_is_refused(run: Run, worker: Enlisted) -> None:
    with pytest.raises(SystemExit, match="at least one queue"):
        run("queues", worker.name, " , ")


SETTING = [("queues", "a"), ("labels", "a=b"), ("bundles", "x")]


@pytest.mark.parametrize("words", [("rotate",), ("suspend",), ("rebind",), ("pause",), ("limit", "2"), ("revoke",), *SETTING])
def test_an_action_on_a_worker_is_audited_with_its_user(
    run: Run, worker: Enlisted, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "ann")
    run(words[0], worker.name, *words[1:])
    [entry] = audit_entries("action", worker=worker.name)
    assert entry.actor == "ann" and entry.detail


@pytest.mark.parametrize("words", [("rotate",), ("suspend",), ("unsuspend",), ("rebind",), *SETTING])
def test_an_unknown_worker_is_named(run: Run, words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit, match="no worker named 'nobody'"):
        run(words[0], "nobody", *words[1:])


def test_its_log_is_shown_searched_and_followed_until_ctrl_c(run: Run, worker: Enlisted, monkeypatch: pytest.MonkeyPatch) -> None:
    store, naps = WorkerLogStore(1 << 20), []
    store.append(
        worker.id,
        stretch="a",
        offset=0,
        body=(first := b'{"level": "info", "event": "one"}\n{"level": "error", "event": "two"}\n'),
    )
    assert run("log", worker.name) == "INFO one\nERROR two\n"
    assert run("log", worker.name, "--contains", "ONE") == "INFO one\n"
    assert run("log", worker.name, "--level", "warning") == "ERROR two\n"

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            raise KeyboardInterrupt
        store.append(worker.id, stretch="a", offset=len(first), body=b'{"level": "info", "event": "three"}\n')

    monkeypatch.setattr(workers.time, "sleep", sleep)
    assert run("log", worker.name, "--follow") == "INFO one\nERROR two\nINFO three\n"
