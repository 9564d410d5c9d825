"""A TLS server that answers central's `ping`, and proxies. Real sockets, in threads."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import threading
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from airflow_remote_protocol.codec import encode
from airflow_remote_protocol.messages import Pong
from airflow_remote_protocol.version import MARKER_HEADER, PROTOCOL_VERSION


class _Central(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = encode(Pong(name="w", time=1.0))
        self.send_response(200)
        self.send_header(MARKER_HEADER, PROTOCOL_VERSION)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None: ...


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: tests connect with clients that do not trust this server and close the connection."""


@contextlib.contextmanager
def tls_central(
    certificate: Path, *, clients: Path | None = None, newest: ssl.TLSVersion | None = None
) -> Iterator[ssl.SSLContext]:
    """Serve at `context.port`. Tests may load another certificate into the context. *clients*: authority of the clients."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    if newest:
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an outdated version is intended
            context.minimum_version = context.maximum_version = newest
    if clients:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients)
    server = _Server(("127.0.0.1", 0), _Central)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    context.port = server.server_address[1]  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield context
    finally:
        server.shutdown()
        server.server_close()


class TunnelProxy:
    """An HTTP proxy with CONNECT. Sends *answer* if given, else opens tunnels for clients that log in as *auth*."""

    def __init__(self, *, auth: str = "", answer: bytes = b"") -> None:
        self.auth = auth
        self.answer = answer
        self.heads: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._tunnel, args=(client,), daemon=True).start()

    def _tunnel(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(4096)
            self.heads.append(head.decode())
            wanted = base64.b64encode(self.auth.encode()).decode()
            if self.answer:
                client.sendall(self.answer)
                return
            if self.auth and f"Basic {wanted}" not in head.decode():
                client.sendall(b"HTTP/1.1 407 Login\r\nProxy-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\r\n")
                return
            with socket.create_connection(self._target(head.split()[1].decode())) as server:
                self._begin(client, server, head)
                back = threading.Thread(target=_pump, args=(server, client), daemon=True)
                back.start()
                _pump(client, server)
                back.join()

    def _target(self, asked: str) -> tuple[str, int]:
        host, _, port = asked.rpartition(":")
        return host.strip("[]"), int(port)

    def _begin(self, client: socket.socket, server: socket.socket, head: bytes) -> None:
        client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")


class ForwardProxy(TunnelProxy):
    """A proxy for plain http: forwards requests for `http://…`."""

    def _target(self, asked: str) -> tuple[str, int]:
        return super()._target(asked.split("/")[2])

    def _begin(self, client: socket.socket, server: socket.socket, head: bytes) -> None:
        method, target, rest = head.split(b" ", 2)
        server.sendall(b" ".join((method, b"/" + target.split(b"/", 3)[3], rest)))


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while some := source.recv(65536):
            target.sendall(some)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
