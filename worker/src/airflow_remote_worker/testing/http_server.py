"""HTTP/1.1 on 127.0.0.1 for the fake central: keep-alive, long polls, a thread per connection, and faults of the network.

Owns sockets, the log of requests, and the faults. It does not interpret requests.
"""

from __future__ import annotations

import contextlib
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from airflow_remote_worker.testing.routes import Answer, Request, split_target

PAUSE_S = 0.05
"""Between the pieces of an answer that is sent slowly."""
MAX_BODY = 64 << 20
"""More than any test sends; a longer body closes the connection."""


@dataclass
class Recorded:
    """One received request, for assertions."""

    method: str
    path: str
    """Below `/remote/v1/`, with its query."""
    headers: Mapping[str, str]
    body: bytes
    status: int | None = None
    """None while it is being answered, or if it was never answered."""


@dataclass(frozen=True)
class Proxy:
    """The answer of a proxy between worker and central."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Faults:
    """The faults to inject, set by tests and consumed by connections."""

    def __init__(self) -> None:
        self.proxy: Proxy | None = None
        self._dropped: list[str] = []
        self._lock = threading.Lock()

    def drop_next_reply(self, path_part: str) -> None:
        with self._lock:
            self._dropped.append(path_part)

    def takes_the_reply_to(self, path: str) -> bool:
        with self._lock:
            for path_part in self._dropped:
                if path_part in path:
                    self._dropped.remove(path_part)
                    return True
        return False


class HttpServer:
    """Always listens on the same port; can stop and start again."""

    def __init__(self, answer: Callable[[Request], Answer], faults: Faults, *, prefix: str) -> None:
        self.requests: list[Recorded] = []
        self.faults = faults
        self.answer = answer
        self.prefix = prefix
        """The prefix of every path of central, including `/remote/v1/`."""
        self.port = 0
        self._server: _Server | None = None

    def start(self) -> None:
        """Listen, on the same port as before."""
        if self._server is not None:
            return
        self._server = _Server(("127.0.0.1", self.port), self)
        self.port = self._server.server_address[1]
        # 0.02: how long `stop` may take; a new connection wakes the loop at once.
        serve = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="fake central", daemon=True)
        serve.start()

    def stop(self) -> None:
        """Stop listening and cut every connection, including those of waiting polls."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server.cut_connections()
            self._server = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # many workers may reconnect at the same moment
    allow_reuse_address = True  # the same port again, right after `stop`

    def __init__(self, address: tuple[str, int], owner: HttpServer) -> None:
        self.owner = owner
        self._connections: set[socket.socket] = set()
        self._connections_lock = threading.Lock()
        super().__init__(address, _Connection)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._connections_lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._connections_lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def cut_connections(self) -> None:
        with self._connections_lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):  # the peer was faster
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore closed connections, which this server provokes; show everything else, which is a bug."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else every reply waits 40 ms for the delayed ACK of its head
    wbufsize = -1  # head and body in one packet; flushed in `_write`
    server: _Server

    def _serve(self) -> None:
        owner = self.server.owner
        body = self._read_body()
        if body is None:
            self.close_connection = True
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        target = re.sub("^http://[^/]*", "", self.path)  # the absolute form, as sent to a proxy, which may pass it on
        below = target.removeprefix(owner.prefix)
        recorded = Recorded(self.command, below, headers, body)
        owner.requests.append(recorded)
        proxy = owner.faults.proxy
        if proxy is not None:
            recorded.status = proxy.status
            self._write(Answer(proxy.status, proxy.body, proxy.headers))
            return
        if below == target:  # like Airflow itself: a page for every GET, and no route for a POST
            is_get = self.command in ("GET", "HEAD")
            answer = Answer(200 if is_get else 405, b"{}", {"content-type": "text/html" if is_get else "application/json"})
            recorded.status = answer.status
            self._write(answer)
            return
        path, query = split_target(below)
        answer = owner.answer(Request(self.command, path, query, headers, body, self._peer_hung_up))
        if owner.faults.takes_the_reply_to(below):
            self.close_connection = True
            return
        recorded.status = answer.status
        try:
            if self._peer_hung_up():
                raise ConnectionResetError("the peer hung up before it was answered")
            self._write(answer)
        except OSError:
            answer.on_undelivered()
            raise

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = _serve

    def _read_body(self) -> bytes | None:
        """Return the body; None if it is malformed."""
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            return self._read_chunks()
        length = self.headers.get("content-length", "0")
        if not length.isdigit() or int(length) > MAX_BODY:
            return None
        body = self.rfile.read(int(length))
        return body if len(body) == int(length) else None

    def _read_chunks(self) -> bytes | None:
        body = b""
        while True:
            try:
                size = int(self.rfile.readline(20).split(b";")[0], 16)
            except ValueError:
                return None
            body += self.rfile.read(size)
            self.rfile.readline(4)  # the line end behind the chunk
            if size == 0 or len(body) > MAX_BODY:
                return body if size == 0 else None

    def _write(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.status not in (204, 304):
            self.send_header("content-length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD" and answer.status not in (204, 304):
            body = answer.body if answer.cut_after is None else answer.body[: answer.cut_after]
            if answer.bytes_s is None:
                self.wfile.write(body)
            else:
                self._write_slowly(body, answer.bytes_s)
        self.wfile.flush()
        if answer.cut_after is not None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def _write_slowly(self, body: bytes, bytes_s: float) -> None:
        piece = max(1, int(bytes_s * PAUSE_S))
        for begin in range(0, len(body), piece):
            self.wfile.write(body[begin : begin + piece])
            self.wfile.flush()
            time.sleep(PAUSE_S)

    def _peer_hung_up(self) -> bool:
        # Not `select`: it fails beyond 1,024 open files, and there are tests with that many workers.
        self.connection.setblocking(False)
        try:
            return not self.connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:  # nothing to read: the peer waits for the answer
            return False
        except OSError:
            return True
        finally:
            self.connection.setblocking(True)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: `HttpServer.requests` has every request."""
