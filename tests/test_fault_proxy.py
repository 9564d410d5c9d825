"""Tests testkit/network: every fault of the proxy has exactly the effect that its name states."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from testkit.network.fault_proxy import PAGES, FaultProxy


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Central

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append((self.path, len(body)))
        if self.path == "/chunked":
            self.send_response(200)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for _ in range(3):
                self.wfile.write(b"4\r\nabcd\r\n")
            self.wfile.write(b"0\r\n\r\n")
            return
        if self.path == "/parked":
            self.server.leave.wait(20)
        if self.path == "/empty":
            self.send_response(204)
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Central(ThreadingHTTPServer):
    """Answers with the body of the request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[tuple[str, int]] = []
        self.leave = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        pass


@pytest.fixture
def central() -> Iterator[_Central]:
    central = _Central()
    thread = threading.Thread(target=central.serve_forever, args=(0.02,))
    thread.start()
    yield central
    central.leave.set()
    central.shutdown()
    thread.join()
    central.server_close()


@pytest.fixture
def proxy(central: _Central) -> Iterator[FaultProxy]:
    with FaultProxy(central.url) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=proxy.url, timeout=10) as client:
        yield client


def test_passed_traffic_is_not_changed(central: _Central, proxy: FaultProxy, client: httpx.Client) -> None:
    body = bytes(range(256)) * 4000
    assert client.post("/a?x=1", content=body).content == body
    assert client.post("/chunked", content=b"").content == b"abcd" * 3
    assert client.post("/empty", content=b"").status_code == 204
    assert client.post("/b", content=b"again").text == "again"
    assert [path for path, _ in central.got] == ["/a?x=1", "/chunked", "/empty", "/b"]
    assert proxy.connections == 1, "all over one connection"
    assert (proxy.exchanges[0].path, proxy.exchanges[0].reply) == ("/a?x=1", [200])
    assert proxy.count("POST", r"^/[ab]\b") == 2


def test_a_refused_connection_fails_at_once_and_the_port_stays_bound(proxy: FaultProxy, client: httpx.Client) -> None:
    client.post("/a", content=b"")
    proxy.refuse()
    for _ in range(3):
        with pytest.raises(httpx.TransportError) as refused:
            client.post("/a", content=b"")
    assert isinstance(refused.value, httpx.ConnectError)
    proxy.heal()
    assert client.post("/a", content=b"back").text == "back"


def test_a_reset_ends_a_parked_request_and_every_new_one(central: _Central, proxy: FaultProxy, client: httpx.Client) -> None:
    errors = _parked(central, client)
    proxy.reset()
    assert isinstance(errors.get(), httpx.ReadError)
    with pytest.raises(httpx.TransportError):
        client.post("/a", content=b"")
    proxy.heal()
    assert client.post("/a", content=b"back").text == "back"


def test_a_cut_resets_only_the_existing_connections(central: _Central, proxy: FaultProxy, client: httpx.Client) -> None:
    errors = _parked(central, client)
    proxy.cut()
    assert isinstance(errors.get(), httpx.ReadError)
    assert client.post("/a", content=b"back").text == "back"


def test_a_black_hole_swallows_everything_and_its_connections_stay_silent(
    central: _Central, proxy: FaultProxy, client: httpx.Client
) -> None:
    client.post("/before", content=b"")
    proxy.black_hole()
    for _ in range(2):  # the old connection, then a new one
        with pytest.raises(httpx.ReadTimeout):
            client.post("/hole", content=b"", timeout=0.2)
    errors = _parked(central, client, reaches_central=False, timeout=1)
    while not proxy.count(path="/parked"):
        time.sleep(0.005)
    proxy.heal()
    assert client.post("/after", content=b"back").text == "back"
    assert isinstance(errors.get(), httpx.ReadTimeout)
    assert [path for path, _ in central.got] == ["/before", "/after"]


def test_a_black_hole_swallows_the_close_of_a_connection(central: _Central, proxy: FaultProxy, client: httpx.Client) -> None:
    errors = _parked(central, client, timeout=0.5)
    proxy.black_hole()
    assert isinstance(errors.get(), httpx.ReadTimeout)
    assert proxy.connections == 1, "the connection to central is still open"
    central.leave.set()
    proxy.cut()
    assert proxy.connections == 0


def test_half_open_lets_one_direction_work(central: _Central, proxy: FaultProxy, client: httpx.Client) -> None:
    proxy.half_open("replies")
    with pytest.raises(httpx.ReadTimeout):
        client.post("/asked", content=b"", timeout=0.3)
    assert central.got == [("/asked", 0)]
    assert proxy.exchanges[-1].reply == [200]
    proxy.half_open("requests")
    with pytest.raises(httpx.ReadTimeout):
        client.post("/swallowed", content=b"", timeout=0.3)
    assert central.got == [("/asked", 0)]


def test_stalled_bytes_arrive_later(central: _Central, proxy: FaultProxy, client: httpx.Client) -> None:
    proxy.stall()
    threading.Timer(0.3, proxy.heal).start()
    assert client.post("/a", content=b"late").text == "late"
    assert central.got == [("/a", 4)]


def test_slow_delays_and_limits(proxy: FaultProxy, client: httpx.Client) -> None:
    proxy.slow(latency_s=0.2)
    begin = time.monotonic()
    client.post("/a", content=b"")
    assert time.monotonic() - begin >= 0.4
    proxy.slow(bytes_per_s=100_000)
    begin = time.monotonic()
    client.post("/a", content=b"x" * 20_000)
    assert time.monotonic() - begin >= 0.2


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_answered_instead_of_central(central: _Central, proxy: FaultProxy, client: httpx.Client, name: str) -> None:
    proxy.answer(PAGES[name])
    answer = client.post("/a", content=b"x" * 100_000)
    assert (answer.status_code, answer.text) == (PAGES[name].status, PAGES[name].body)
    proxy.heal()
    assert client.post("/a", content=b"back").text == "back"
    assert central.got == [("/a", 4)]


def test_a_reply_is_dropped_only_if_the_condition_holds(central: _Central, proxy: FaultProxy, client: httpx.Client) -> None:
    matters = False
    rule = proxy.drop_replies("POST", "/poll$", count=1, when=lambda: matters)
    assert client.post("/poll", content=b"1").status_code == 200
    matters = True
    with pytest.raises(httpx.TransportError):
        client.post("/poll", content=b"2")
    assert client.post("/poll", content=b"3").status_code == 200
    assert rule.hits == 1
    assert len(central.got) == 3


def test_a_request_whose_reply_is_dropped_was_applied(central: _Central, proxy: FaultProxy, client: httpx.Client) -> None:
    rule = proxy.drop_replies("POST", "/report$", count=2)
    assert client.post("/other", content=b"fine").text == "fine"
    for _ in range(2):
        with pytest.raises(httpx.ReadError):
            client.post("/report", content=b"once")
    assert client.post("/report", content=b"once").text == "once"
    assert central.got == [("/other", 4), *[("/report", 4)] * 3]
    assert rule.hits == 2


def test_a_request_is_cut_in_its_middle(central: _Central, proxy: FaultProxy, client: httpx.Client) -> None:
    rule = proxy.cut_requests(1000, "POST", "/log")
    with pytest.raises((httpx.ReadError, httpx.WriteError)):
        client.post("/log", content=b"x" * 100_000)
    assert client.post("/log", content=b"whole").text == "whole"
    assert rule.hits == 1
    assert central.got[-1] == ("/log", 5)
    assert all(size < 1000 for _, size in central.got[:-1]), "only a part of the cut request arrived"


def test_a_reply_is_cut_in_its_middle(central: _Central, proxy: FaultProxy, client: httpx.Client) -> None:
    rule = proxy.cut_replies(300, "POST", "/poll")
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        client.post("/poll", content=b"x" * 100_000)
    assert client.post("/poll", content=b"whole").text == "whole"
    assert central.got == [("/poll", 100_000), ("/poll", 5)]
    assert rule.hits == 1


def test_one_request_gets_a_page(central: _Central, proxy: FaultProxy, client: httpx.Client) -> None:
    rule = proxy.answer_to(PAGES["bad gateway"], "POST", "/poll")
    assert [client.post("/poll", content=b"").status_code for _ in range(2)] == [502, 200]
    assert rule.hits == 1


def test_rules_can_be_removed(proxy: FaultProxy, client: httpx.Client) -> None:
    proxy.drop_replies()
    proxy.forget_rules()
    assert client.post("/a", content=b"fine").text == "fine"


def test_a_stopped_central_breaks_the_connection(central: _Central) -> None:
    central.shutdown()
    central.server_close()
    with FaultProxy(central.url) as proxy, pytest.raises(httpx.TransportError):
        httpx.post(f"{proxy.url}/a", content=b"")


def test_the_close_of_the_workers_connection_is_passed_on(central: _Central, proxy: FaultProxy, client: httpx.Client) -> None:
    errors = _parked(central, client, timeout=0.3)
    assert isinstance(errors.get(), httpx.ReadTimeout)
    deadline = time.monotonic() + 5
    while proxy.connections and time.monotonic() < deadline:
        time.sleep(0.01)
    assert proxy.connections == 0


class _Errors:
    """The error that a request in a thread of its own ended with."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.thread: threading.Thread | None = None

    def get(self) -> Exception | None:
        assert self.thread is not None
        self.thread.join(10)
        assert not self.thread.is_alive()
        return self.error


def _parked(central: _Central, client: httpx.Client, *, reaches_central: bool = True, timeout: float = 10) -> _Errors:
    """Send a request that central answers later; return when central has it (if *reaches_central*)."""
    errors = _Errors()

    def ask() -> None:
        try:
            client.post("/parked", content=b"", timeout=timeout)
        except Exception as error:
            errors.error = error

    errors.thread = threading.Thread(target=ask)
    before = len(central.got)
    errors.thread.start()
    while reaches_central and len(central.got) == before:
        time.sleep(0.005)
    return errors
