"""A proxy on loopback between a worker and a real central that adds releases of the worker, as the protocol describes them.

    with ReleaseProxy(central.url) as proxy:
        worker = Worker(…, central=proxy.url, …)
        wanted = proxy.send({"release.json": …, "site-packages/…": …}, "0.2.0")

It adds `release` to the answers of `session` and `poll`, and serves the packs of the releases itself. Everything else passes.
"""

from __future__ import annotations

import hashlib
import http.client
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import urlsplit

import msgspec
from airflow_remote_protocol.messages import Inventory, TreeRef, WantedRelease
from airflow_remote_protocol.packs import Encoding, Stored, lay_out
from airflow_remote_protocol.trees import Entry, Tree
from airflow_remote_protocol.version import MARKER_HEADER, PROTOCOL_VERSION

NOT_PASSED = frozenset({"accept-encoding", "connection", "transfer-encoding", "content-length", "host", "keep-alive"})


class ReleaseProxy:
    """Listens on a port of its own until the end of its context."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self.upstream = (str(parts.hostname), int(parts.port or 80))
        self.packs: dict[str, bytes] = {}
        """By the digest of the tree."""
        self.wanted: WantedRelease | None = None
        self.inventory: Inventory | None = None
        """The worker's last report."""
        proxy = self

        class Handler(_Handler):
            proxy_of = proxy

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> ReleaseProxy:
        threading.Thread(target=self._server.serve_forever, name="release proxy", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def send(self, files: Mapping[str, bytes], version: str) -> WantedRelease:
        """Roll out a release with these files. Workers learn of it from their next session or poll."""
        serial = self.wanted.serial + 1 if self.wanted else 1
        blobs = {hashlib.sha256(content).hexdigest(): content for content in files.values()}
        tree = Tree.of(Entry(path, hashlib.sha256(content).hexdigest(), len(content), False) for path, content in files.items())
        layout = lay_out(tree, None, {sha256: Stored(Encoding.RAW, len(content)) for sha256, content in blobs.items()}, lzma=True)
        parts = layout.slice(0, layout.size)
        self.packs[tree.digest] = b"".join((part.data or blobs[part.sha256])[start:end] for part, start, end in parts)
        self.wanted = WantedRelease(version, serial, TreeRef(digest=tree.digest, files=tree.files, bytes=tree.bytes))
        return self.wanted

    def add_release(self, path: str, asked: bytes, answer: bytes) -> bytes:
        """Return central's answer to `session` or `poll` with the release, if the worker does not know it."""
        wanted = self.wanted
        known = msgspec.json.decode(asked).get("release_serial", 0) if path.endswith("/poll") else 0
        if wanted is None or known == wanted.serial:
            return answer
        return msgspec.json.encode({**msgspec.json.decode(answer), "release": msgspec.to_builtins(wanted)})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy_of: ReleaseProxy

    def do_GET(self) -> None:
        self._pass_on()

    do_POST = do_PATCH = do_PUT = do_DELETE = do_HEAD = do_GET

    def _pass_on(self) -> None:
        proxy, path = self.proxy_of, self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        parts = path.strip("/").split("/")
        if parts[-1] == "pack" and (pack := proxy.packs.get(parts[-2])):  # whole, whatever part was asked for
            headers = {MARKER_HEADER: PROTOCOL_VERSION, "content-type": "application/octet-stream", "etag": f'"{parts[-2]}"'}
            self._answer(200, headers, pack)
            return
        if path.endswith("/inventory"):
            proxy.inventory = msgspec.json.decode(body, type=Inventory)
        upstream = http.client.HTTPConnection(*proxy.upstream, timeout=120)
        try:
            passed = {name: value for name, value in self.headers.items() if name.lower() not in NOT_PASSED}
            upstream.request(self.command, self.path, body, {**passed, "accept-encoding": "identity"})
            found = upstream.getresponse()
            answer = found.read()
        except OSError:
            self.close_connection = True
            return
        finally:
            upstream.close()
        if found.status == 200 and path.endswith(("/remote/v1/session", "/remote/v1/poll")):
            answer = proxy.add_release(path, body, answer)
        self._answer(found.status, {n.lower(): v for n, v in found.getheaders() if n.lower() not in NOT_PASSED}, answer)

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing."""
