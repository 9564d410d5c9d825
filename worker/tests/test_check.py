from __future__ import annotations

import socket

import anyio
import pytest
from airflow_remote_worker.check import Hop, check
from airflow_remote_worker.clock import SystemClock
from airflow_remote_worker.config import Config
from airflow_remote_worker.state import Membership, State
from airflow_remote_worker.testing.fake_central import FakeCentral

from .conftest import HandClock, RunningWorker


def walk(state: State, central: str = "", clock: object = None) -> list[Hop]:
    return anyio.run(check, Config(state=state.root, central=central), state, clock or SystemClock())


def last(hops: list[Hop]) -> tuple[str, bool]:
    return hops[-1].name, hops[-1].ok


def test_a_free_way_has_no_failing_hop(worker: RunningWorker) -> None:
    assert [hop.name for hop in walk(worker.state) if hop.ok] == [
        "settings",
        "DNS",
        "TCP",
        "central",
        "credential",
        "POST",
        "clock",
    ]


def test_without_a_membership_nothing_is_tried(state: State) -> None:
    assert last(walk(state)) == ("settings", False)


def test_a_name_without_an_address_is_dns(worker: RunningWorker) -> None:
    assert last(walk(worker.state, "https://nowhere.invalid")) == ("DNS", False)


def test_nobody_listening_is_tcp(worker: RunningWorker) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert last(walk(worker.state, f"http://127.0.0.1:{unused.getsockname()[1]}")) == ("TCP", False)


def test_a_server_without_tls_is_tls(worker: RunningWorker, central: FakeCentral) -> None:
    assert last(walk(worker.state, central.url.replace("http:", "https:"))) == ("TLS", False)


def test_a_login_page_is_not_central(worker: RunningWorker, central: FakeCentral) -> None:
    central.answer_like_a_proxy(200)
    hops = walk(worker.state)
    assert last(hops) == ("central", False)
    assert "login page" in hops[-1].text


def test_a_revoked_credential_is_named(worker: RunningWorker, central: FakeCentral) -> None:
    central.revoke_worker("w1")
    assert last(walk(worker.state)) == ("credential", False)


def test_a_wrong_clock_is_named(worker: RunningWorker) -> None:
    hops = walk(worker.state, clock=HandClock())
    assert last(hops) == ("clock", False)
    assert "behind" in hops[-1].text


def test_an_interpreter_that_is_none_is_named(state: State) -> None:
    from pathlib import Path

    from airflow_remote_worker.config import RuntimeConfig

    state.join(Membership(central="http://127.0.0.1:1", worker_id="1", name="w", credential="c"))
    config = Config(state=state.root, runtime=RuntimeConfig(python=Path("/nowhere")))
    assert last(anyio.run(check, config, state, SystemClock())) == ("runtime", False)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
