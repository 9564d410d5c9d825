from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from airflow_remote_worker.check.hops import Hop, check_address, check_settings, check_worker
from airflow_remote_worker.clock import SystemClock
from airflow_remote_worker.config import BundleConfig, Config, RuntimeConfig
from airflow_remote_worker.errors import Unreachable
from airflow_remote_worker.link.client import Link
from airflow_remote_worker.link.network import Network
from airflow_remote_worker.state.directory import Membership, State
from airflow_remote_worker.testing.fake_central import FakeCentral

from testkit.authority import Authority

from ..conftest import HandClock, RunningWorker
from ..tls_server import TunnelProxy, tls_central


def walk(state: State, central: str = "", clock: object = None) -> list[Hop]:
    return anyio.run(check_worker, Config(state=state.root, central=central), state, clock or SystemClock())


def last(hops: list[Hop]) -> tuple[str, bool]:
    return hops[-1].name, hops[-1].ok


def test_without_a_problem_every_hop_passes(worker: RunningWorker) -> None:
    assert [hop.name for hop in walk(worker.state) if hop.ok] == [
        "settings",
        "DNS",
        "TCP",
        "central",
        "credential",
        "POST",
        "clock",
        "runtime",
        "bundles",
    ]


def test_without_a_membership_no_connection_is_made(state: State) -> None:
    assert last(walk(state)) == ("settings", False)


def test_a_name_without_an_address_fails_at_dns(worker: RunningWorker) -> None:
    assert last(walk(worker.state, "https://nowhere.invalid")) == ("DNS", False)


def test_a_closed_port_fails_at_tcp(worker: RunningWorker) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert last(walk(worker.state, f"http://127.0.0.1:{unused.getsockname()[1]}")) == ("TCP", False)


def test_a_server_without_tls_fails_at_tls(worker: RunningWorker, central: FakeCentral) -> None:
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


def test_a_missing_interpreter_is_named(state: State) -> None:
    state.join(Membership(central="http://127.0.0.1:1", worker_id="1", name="w", credential="c"))
    config = Config(state=state.root, runtime=RuntimeConfig(python=Path("/nowhere")))
    assert last(anyio.run(check_worker, config, state, SystemClock())) == ("runtime", False)


def test_an_unusable_interpreter_and_missing_directories_are_reported(worker: RunningWorker, tmp_path: Path) -> None:
    hops = {hop.name: hop for hop in walk(worker.state)}
    assert {name for name, hop in hops.items() if not hop.ok} == set()
    assert "central sends the runtimes of tasks, for the platform cp3" in hops["runtime"].text
    unusable = Config(state=worker.state.root, runtime=RuntimeConfig(interpreter=Path("/nowhere/python")))
    (hop,) = (hop for hop in check_settings(unusable) if hop.name == "runtime")
    assert not hop.ok
    assert "set runtime.interpreter to a CPython of 3.10 or newer, or runtime.python to" in hop.text
    assert "central sends the Dag files" in hops["bundles"].text
    bundles = {"here": BundleConfig(path=tmp_path), "away": BundleConfig(path=tmp_path / "nowhere")}
    config = Config(state=worker.state.root, runtime=RuntimeConfig(python=Path(sys.executable)), bundles=bundles)
    failed = [hop for hop in anyio.run(check_worker, config, worker.state, SystemClock()) if not hop.ok]
    assert [hop.name for hop in failed] == ["bundles"]
    assert failed[0].text.startswith("away: there is no directory")


def before_joining(url: str, **settings: Any) -> Hop:
    return anyio.run(check_address, Network(central=url, **settings), SystemClock())[-1]


def test_an_address_can_be_checked_before_joining_without_a_credential(central: FakeCentral) -> None:
    hop = before_joining(central.url)
    assert (hop.name, hop.ok) == ("central", True)
    assert "POST requests reach it" in hop.text


@pytest.mark.parametrize("path", ["/home", "/api/v2", "/dags/a/grid"])
def test_the_address_of_a_page_is_recognised(central: FakeCentral, path: str) -> None:
    hop = before_joining(central.url + path)
    assert (hop.name, hop.ok) == ("central", False)
    assert f"leave out {path} and use {central.url}," in hop.text


def test_a_page_of_another_server_is_not_reported_as_a_wrong_path(central: FakeCentral) -> None:
    central.answer_like_a_proxy(403)
    assert "a proxy or firewall forbids this address" in before_joining(f"{central.url}/home").text


def test_a_failed_name_resolution_suggests_how_to_set_a_proxy() -> None:
    hop = before_joining("https://nowhere.invalid")
    assert hop.name == "DNS"
    for name in ("--proxy", "HTTPS_PROXY", "the setting proxy"):
        assert name in hop.text


@pytest.mark.parametrize(("trouble", "ok"), [("", True), ("ImportError: libfoo.so", False)])
def test_the_canary_is_the_last_hop(worker: RunningWorker, tmp_path: Path, trouble: str, ok: bool) -> None:
    broken = tmp_path / "broken"
    broken.write_text(trouble)
    worker.config.runtime.env["FAKE_CANARY"] = str(broken)
    hops = anyio.run(check_worker, worker.config, worker.state, SystemClock())
    assert last(hops) == ("canary", ok)
    assert (trouble or "Airflow 3.3.0, Task SDK 1.3.0") in hops[-1].text


def test_plain_http_beyond_this_machine_is_a_warning(worker: RunningWorker) -> None:
    """The machine's own address stands in for another machine."""
    config = Config(state=worker.state.root, central="http://central.invalid", insecure_http=True)
    hops = anyio.run(check_worker, config, worker.state, SystemClock())
    assert [(hop.name, hop.mark) for hop in hops] == [("settings", "ok  "), ("encryption", "WARN"), ("DNS", "FAIL")]


def test_a_blocked_post_is_reported(worker: RunningWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_post(link: Link) -> None:
        raise Unreachable("a page of another server")

    monkeypatch.setattr(Link, "check_post", no_post)
    hops = walk(worker.state)
    assert last(hops) == ("POST", False)
    assert "GET requests reach central, POST requests don't" in hops[-1].text


class TestTls:
    """Checks against a TLS server, which is enough up to the hop TLS. The credential is not valid."""

    @pytest.fixture
    def corp(self, tmp_path: Path) -> Authority:
        return Authority(tmp_path / "corp", "Corp Root CA")

    def walk(self, state: State, port: int, host: str = "127.0.0.1", **settings: Any) -> dict[str, Hop]:
        state.join(Membership(central=f"https://{host}:{port}", worker_id="1", name="w", credential="c"))
        return {hop.name: hop for hop in anyio.run(check_worker, Config(state=state.root, **settings), state, SystemClock())}

    def test_the_issuer_of_trusted_and_untrusted_certificates_is_shown(self, state: State, corp: Authority) -> None:
        with tls_central(corp.issue("central", "127.0.0.1")) as served:
            trusted = self.walk(state, served.port, ca_file=corp.file)["TLS"]
            distrusted = self.walk(state, served.port)["TLS"]
        assert trusted.ok
        assert "issued by O=Corp, CN=Corp Root CA" in trusted.text
        assert not distrusted.ok
        assert "was issued by O=Corp, CN=Corp Root CA, which this machine does not trust" in distrusted.text

    def test_a_certificate_for_another_name_or_time_is_explained(self, state: State, corp: Authority) -> None:
        with tls_central(corp.issue("elsewhere", "elsewhere.example.com")) as served:
            other = self.walk(state, served.port, ca_file=corp.file)["TLS"]
        with tls_central(corp.issue("late", "127.0.0.1", days=-1)) as served:
            late = self.walk(state, served.port, ca_file=corp.file)["TLS"]
        assert "the certificate of 127.0.0.1 was issued for another name (O=Corp, CN=elsewhere)" in other.text
        assert "is valid only from" in late.text

    def test_a_server_that_requires_a_client_certificate_is_reported(self, state: State, corp: Authority) -> None:
        with tls_central(corp.issue("central", "127.0.0.1"), clients=corp.file) as served:
            without = self.walk(state, served.port, ca_file=corp.file)
            with_one = self.walk(state, served.port, ca_file=corp.file, client_cert=corp.issue("plant-7"))
            expired = self.walk(state, served.port, ca_file=corp.file, client_cert=corp.issue("late", days=-1))
        assert "refuses TLS without a client certificate" in without["TLS"].text
        assert with_one["TLS"].ok
        assert "client certificate of O=Corp, CN=plant-7" in with_one["identity"].text
        assert not expired["identity"].ok
        assert "TLS" not in expired

    def test_connections_through_a_proxy_are_checked(self, state: State, corp: Authority) -> None:
        proxy = TunnelProxy(auth="u:right")
        with tls_central(corp.issue("central", "127.0.0.1")) as served:

            def through(login: str) -> dict[str, Hop]:
                return self.walk(state, served.port, ca_file=corp.file, proxy=proxy.url.replace("//", f"//{login}@"))

            right, wrong = through("u:right"), through("u:wrong")
        proxy.close()
        assert right["tunnel"].ok
        assert right["TLS"].ok
        assert "refuses user 'u'" in wrong["tunnel"].text
        assert not any("right" in hop.text or "wrong" in hop.text for hop in (*right.values(), *wrong.values()))

    @pytest.mark.parametrize(
        ("answer", "expected"),
        [
            (b"HTTP/1.1 407 No\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n\r\n", "by Negotiate, NTLM"),
            (b"HTTP/1.0 403 Blocked\r\n\r\n", "refused the connection to 127.0.0.1:1 (403 Blocked)"),
            (b"SSH-2.0-OpenSSH\r\n", "opens no tunnel (not an answer of an HTTP proxy)"),
        ],
    )
    def test_a_proxy_s_refusal_is_explained(self, state: State, answer: bytes, expected: str) -> None:
        proxy = TunnelProxy(answer=answer)
        hops = self.walk(state, 1, proxy=proxy.url)
        proxy.close()
        assert expected in hops["tunnel"].text


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
