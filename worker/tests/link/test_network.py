from __future__ import annotations

import os
import socket
import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from airflow_remote_worker.config import Config, ConfigError
from airflow_remote_worker.errors import Refused, Unreachable
from airflow_remote_worker.link.client import Link
from airflow_remote_worker.link.connections import CHECK_FILES_EVERY_S, CONNECTION_AGE_S
from airflow_remote_worker.link.network import KEEPALIVE_S, Network, is_exempt, keepalive_options, parse_proxy
from airflow_remote_worker.state.directory import Membership

from testkit.authority import Authority

from ..conftest import HandClock
from ..tls_server import TunnelProxy, tls_central

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def corp(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "corp", "Corp Root CA")


class Visitor:
    """Makes calls to central, one after the other, over the connections of one link."""

    def __init__(self, network: Network) -> None:
        self.clock = HandClock()
        self.network = network

    def run(self, *steps: Callable[[], object]) -> list[str]:
        """Ping, and again after each of *steps*; return the results."""

        async def main() -> list[str]:
            link = Link(self.network, credential="c", clock=self.clock)
            came = [await self._ping(link)]
            for step in steps:
                step()
                came.append(await self._ping(link))
            await link.close()
            return came

        return anyio.run(main)

    async def _ping(self, link: Link) -> str:
        try:
            return (await link.ping()).name
        except Unreachable as error:
            return str(error)


def replace(path: Path, content: str | bytes) -> None:
    """Replace a file as `mv` does, with a modification time that differs on every file system."""
    new = path.with_name("new")
    new.write_bytes(content.encode() if isinstance(content, str) else content)
    os.utime(new, (time.time() + 5, time.time() + 5))
    new.replace(path)


# Proxies


@pytest.mark.parametrize(
    ("url", "shown", "auth"),
    [
        ("http://proxy.example.com:3128", "http://proxy.example.com:3128", None),
        ("proxy.example.com:3128", "http://proxy.example.com:3128", None),
        ("http://proxy", "http://proxy:80", None),
        ("https://proxy/", "https://proxy:443", None),
        ("http://u:p%40ss%3A%2F@proxy:1", "http://proxy:1", ("u", "p@ss:/")),
        ("http://u@[fd00::1]:8080", "http://[fd00::1]:8080", ("u", "")),
    ],
)
def test_a_proxys_address_is_shown_without_its_password(url: str, shown: str, auth: tuple[str, str] | None) -> None:
    proxy = parse_proxy(url, source="proxy")
    assert (str(proxy), proxy.auth) == (shown, auth)
    assert "p@ss" not in repr(proxy)


@pytest.mark.parametrize(
    "url", ["socks5://u:secret@proxy:1080", "ftp://u:secret@proxy", "http://u:secret@proxy:99999", "http://"]
)
def test_an_invalid_proxy_is_refused_without_showing_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^HTTPS_PROXY: .*http://") as caught:
        parse_proxy(url, source="HTTPS_PROXY")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("no_proxy", "host", "exempt"),
    [
        ("", "a.example.com", False),
        ("*", "a.example.com", True),
        ("example.com", "a.example.com", True),
        (".example.com", "a.example.com", True),
        ("*.example.com", "a.example.com", True),
        ("EXAMPLE.com", "a.Example.com.", True),
        ("ample.com", "a.example.com", False),
        ("other.org, a.example.com", "a.example.com", True),
        ("a.example.com:443", "a.example.com", True),
        ("a.example.com:8443", "a.example.com", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("fd00::/8", "fd00::1", True),
        ("[::1]", "::1", True),
        ("[::1]:443", "::1", True),
        ("::1", "::1", True),
    ],
)
def test_no_proxy_exempts_names_addresses_and_networks(no_proxy: str, host: str, exempt: bool) -> None:
    assert is_exempt(host, 443, no_proxy=no_proxy) is exempt


def test_the_environment_names_the_proxy_and_the_setting_overrides_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def proxy(**settings: str) -> str:
        return str(Network(central="https://a.example.com", **settings).find_proxy())

    assert proxy() == "None"
    monkeypatch.setenv("ALL_PROXY", "http://all:1")
    assert proxy() == "http://all:1"
    monkeypatch.setenv("HTTPS_PROXY", "http://https:1")
    assert proxy() == "http://https:1"
    assert proxy(proxy="http://own:1") == "http://own:1"
    assert proxy(proxy="none") == "None"
    monkeypatch.setenv("NO_PROXY", "example.com")
    assert proxy() == "None"
    assert proxy(proxy="http://own:1") == "http://own:1", "NO_PROXY is about the environment's proxy"


def test_the_login_for_a_proxy_can_come_from_a_file(tmp_path: Path) -> None:
    login = tmp_path / "login"
    network = Network(central="https://a.example.com", proxy="http://proxy:1", proxy_auth_file=str(login))
    with pytest.raises(ConfigError, match=r"proxy_auth_file: .* can't be read"):
        network.find_proxy()
    for wrong in ("", "user", ":password", "u:p\nu2:p2"):
        login.write_text(wrong)
        with pytest.raises(ConfigError, match="one line user:password"):
            network.find_proxy()
    login.write_text("user:pass:word\n")
    proxy = network.find_proxy()
    assert proxy and proxy.auth == ("user", "pass:word")


def test_an_ipv6_address_behind_a_proxy_is_refused() -> None:
    with pytest.raises(ConfigError, match="IPv6 address fd00::1"):
        Network(central="https://[fd00::1]", proxy="http://proxy:1").find_proxy()


def test_settings_given_to_join_apply_unless_the_configuration_sets_them(tmp_path: Path) -> None:
    joined = Membership(
        central="http://central.example.com/air/",
        worker_id="1",
        name="w",
        credential="c",
        insecure_http=True,
        ca_file="/ca",
        proxy="p:1",
    )
    network = Network.of(Config(state=tmp_path), joined)
    assert (network.central, network.ca_file, network.proxy) == ("http://central.example.com/air", "/ca", "p:1")
    network = Network.of(Config(state=tmp_path, central="https://b", ca_file=Path("/other"), proxy="none"), joined)
    assert (network.central, network.ca_file, network.proxy) == ("https://b", "/other", "none")


@pytest.mark.parametrize(
    ("central", "warned"), [("http://a.example.com", True), ("https://a.example.com", False), ("http://[::1]:8080", False)]
)
def test_plain_http_to_another_machine_causes_a_warning(central: str, warned: bool) -> None:
    assert Network(central=central, insecure_http=True).warning.startswith("NOT ENCRYPTED") is warned


def test_silent_connections_use_tcp_keepalive() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as sock:
        for level, option, value in keepalive_options():
            sock.setsockopt(level, option, value)
        sock.connect(server.getsockname())
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        if sys.platform == "linux":
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == KEEPALIVE_S


# TLS


def test_an_invalid_ca_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("nothing")
    for path in ("ca", "missing"):
        with pytest.raises(Refused, match=r"ca_file: .* can't be used"):
            Network(central="https://a", ca_file=str(tmp_path / path)).route()


def test_a_key_with_a_passphrase_is_refused_without_a_prompt(tmp_path: Path, corp: Authority) -> None:
    from cryptography.hazmat.primitives import serialization

    pem = corp.issue("w").read_bytes()
    key = serialization.load_pem_private_key(pem, None)
    locked = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    (tmp_path / "key").write_bytes(locked)
    (tmp_path / "cert").write_bytes(pem)
    network = Network(
        central="https://a", ca_file=str(corp.file), client_cert=str(tmp_path / "cert"), client_key=str(tmp_path / "key")
    )
    with pytest.raises(Refused, match="passphrase"):
        network.route()


def test_tls_older_than_1_2_is_refused(corp: Authority) -> None:
    route = Network(central="https://a", ca_file=str(corp.file)).route()
    assert route.tls and route.tls.minimum_version is ssl.TLSVersion.TLSv1_2
    system = Network(central="https://a").route()
    assert system.tls and system.tls.minimum_version is ssl.TLSVersion.TLSv1_2
    with tls_central(corp.issue("central", "127.0.0.1"), newest=ssl.TLSVersion.TLSv1_1) as served:
        visitor = Visitor(Network(central=f"https://127.0.0.1:{served.port}", ca_file=str(corp.file)))
        assert "does not support TLS 1.2 or newer" in visitor.run()[0]


def test_a_new_authority_is_trusted_without_a_restart(tmp_path: Path, corp: Authority) -> None:
    """First the server's certificate is replaced by another authority's; then the file that the worker trusts."""
    other = Authority(tmp_path / "other", "Corp Root CA 2")
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(corp.file.read_bytes())
    with tls_central(corp.issue("central", "127.0.0.1")) as served:
        visitor = Visitor(Network(central=f"https://127.0.0.1:{served.port}", ca_file=str(ca_file)))
        good, untrusted, again = visitor.run(
            lambda: (served.load_cert_chain(other.issue("central", "127.0.0.1")), end_connections(visitor)),
            lambda: replace(ca_file, other.file.read_bytes()),
        )
    assert (good, again) == ("w", "w")
    assert "is not trusted" in untrusted


def test_changed_system_authorities_are_read_again(tmp_path: Path, corp: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "store.pem"
    store.write_bytes(Authority(tmp_path / "other", "Other CA").file.read_bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(store))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    with tls_central(corp.issue("central", "127.0.0.1")) as served:
        visitor = Visitor(Network(central=f"https://127.0.0.1:{served.port}"))
        untrusted, again = visitor.run(lambda: replace(store, corp.file.read_bytes()))
    assert "is not trusted" in untrusted
    assert again == "w"


def test_a_broken_file_is_logged_once_and_changes_nothing(
    tmp_path: Path, corp: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(corp.file.read_bytes())
    with tls_central(corp.issue("central", "127.0.0.1")) as served:
        visitor = Visitor(Network(central=f"https://127.0.0.1:{served.port}", ca_file=str(ca_file)))
        came = visitor.run(
            lambda: (replace(ca_file, "half-writ"), pass_time(visitor)), lambda: pass_time(visitor), lambda: pass_time(visitor)
        )
    assert came == ["w"] * 4
    assert [record.message.count("its previous content stays in use") for record in caplog.records] == [1]


def test_a_client_certificate_is_used_and_renewed_without_a_restart(tmp_path: Path, corp: Authority) -> None:
    foreign = Authority(tmp_path / "foreign", "Foreign CA")
    cert = tmp_path / "client.pem"
    cert.write_bytes(foreign.issue("w").read_bytes())
    with tls_central(corp.issue("central", "127.0.0.1"), clients=corp.file) as served:
        network = Network(
            central=f"https://127.0.0.1:{served.port}", ca_file=str(corp.file), client_cert=str(cert), client_key=str(cert)
        )
        visitor = Visitor(network)
        refused, accepted = visitor.run(lambda: replace(cert, corp.issue("w").read_bytes()))
    # The server's reason may arrive before or after it closes the connection; only `check` waits for it.
    assert "client certificate" in refused or "was cut" in refused
    assert accepted == "w"


def test_a_new_password_for_the_proxy_is_used_without_a_restart(tmp_path: Path, corp: Authority) -> None:
    login = tmp_path / "login"
    login.write_text("u:old")
    proxy = TunnelProxy(auth="u:new")
    with tls_central(corp.issue("central", "127.0.0.1")) as served:
        network = Network(
            central=f"https://127.0.0.1:{served.port}", ca_file=str(corp.file), proxy=proxy.url, proxy_auth_file=str(login)
        )
        refused, accepted = Visitor(network).run(lambda: replace(login, "u:new"))
    proxy.close()
    assert "refuses user 'u'" in refused
    assert accepted == "w"
    assert proxy.heads[-1].startswith(f"CONNECT 127.0.0.1:{served.port} HTTP/1.1")


def pass_time(visitor: Visitor) -> None:
    visitor.clock.now += CHECK_FILES_EVERY_S + 1


def end_connections(visitor: Visitor) -> None:
    """Make the connections old enough to be replaced: only new ones get a server's new certificate."""
    visitor.clock.now += CONNECTION_AGE_S + 1
