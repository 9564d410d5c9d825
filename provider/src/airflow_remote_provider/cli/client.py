"""One user's requests to central's REST API. What fails becomes the one sentence that ends the command."""

from __future__ import annotations

import html
import re
import ssl
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urljoin

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from airflow_remote_provider.cli.words import CentralUnavailable
from airflow_remote_provider.ledger.presentable import presentable

if TYPE_CHECKING:
    from airflow_remote_provider.cli.server import Server

T = TypeVar("T")

PREFIX = "/remote/ui/v1"
TIMEOUT = httpx.Timeout(60, connect=10)
"""Longer than any view takes on a busy database; no request here waits for work."""
PROBLEM = "application/problem+json"
LONGEST_SENTENCE = 2000
MOST_KNOWN = 100
"""Responses to keep. In a list that changes, every page but the first has a new URL each time."""
LIMITS = httpx.Limits(keepalive_expiry=2)
"""One connection serves all pages of a list, but not the next turn of `--watch`: servers close idle ones after some 5 s."""


class _Problem(BaseModel):
    """The body of every error of the API."""

    status: int
    detail: str
    code: str


def connect(server: Server) -> Client:
    """Return a client that calls *server* with the token that it was given."""
    headers = {"authorization": f"Bearer {server.token}", "accept": "application/json"}
    options: dict[str, Any] = {"base_url": server.url + PREFIX, "headers": headers, "timeout": TIMEOUT, "limits": LIMITS}
    try:
        return Client(httpx.Client(verify=_trust(server.ca), **options), server.url, server.source)
    except OSError as error:
        text = f"SSL_CERT_FILE or SSL_CERT_DIR names what can't be used ({error.strerror or error}); correct it, or use --ca"
        raise SystemExit(text) from None
    except (ValueError, ImportError, httpx.InvalidURL) as error:
        raise SystemExit(
            f"a proxy that the environment names can't be used ({error}); correct HTTPS_PROXY, or ALL_PROXY"
        ) from None


class Client:
    """Makes requests to central's REST API, which *http* has as its base URL.

    *central* names it in messages, and *token_source* what its token came from. A request that fails or is refused raises
    SystemExit with one sentence.
    """

    def __init__(self, http: httpx.Client, central: str, token_source: str = "") -> None:
        self._http = http
        self._central = central
        self._token_source = token_source
        self._known: dict[str, tuple[str, bytes]] = {}
        """By URL, the ETag and body of the last response: under `--watch` most responses stay the same."""

    def get(self, kind: type[T], *path: str, query: Mapping[str, Any] | None = None) -> T:
        """Return the response's body as *kind*."""
        request = self._http.build_request("GET", _joined(path), params=query)
        known = self._known.get(str(request.url))
        if known is not None:
            request.headers["if-none-match"] = known[0]
        response = self._send(request)
        if response.status_code == 304 and known is not None:
            return self._read(kind, response, known[1])
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        if "etag" in response.headers:
            self._known[str(request.url)] = (response.headers["etag"], response.content)
        return self._read(kind, response, response.content)

    def change(self, kind: type[T], method: str, *path: str, body: Mapping[str, Any] | None = None) -> T:
        """Send *body*; return the response's body as *kind*."""
        response = self._send(self._http.build_request(method, _joined(path), json=body))
        return self._read(kind, response, response.content)

    def upload(self, kind: type[T], method: str, *path: str, body: bytes) -> T:
        """As :meth:`change`, with bytes as the body."""
        response = self._upload(method, path, body)
        return self._read(kind, response, response.content)

    def upload_only(self, method: str, *path: str, body: bytes) -> None:
        """As :meth:`send`, with bytes as the body."""
        response = self._upload(method, path, body)
        if response.status_code != 204:
            raise SystemExit(self._not_central(response))

    def _upload(self, method: str, path: tuple[str, ...], body: bytes) -> httpx.Response:
        headers = {"content-type": "application/octet-stream"}
        return self._send(self._http.build_request(method, _joined(path), content=body, headers=headers))

    def send(self, method: str, *path: str, body: Mapping[str, Any] | None = None) -> None:
        """Send *body* to a route whose response has no content."""
        response = self._send(self._http.build_request(method, _joined(path), json=body))
        if response.status_code != 204:
            raise SystemExit(self._not_central(response))

    def _send(self, request: httpx.Request) -> httpx.Response:
        """Return central's response, unless it is an error."""
        try:
            response = self._http.send(request)
        except (httpx.HTTPError, OSError) as error:
            raise CentralUnavailable(_unreachable(self._central, error)) from None
        kind = _media_type(response)
        ends = CentralUnavailable if response.is_server_error else SystemExit
        if response.status_code in (204, 304) or (response.is_success and kind == "application/json"):
            return response
        if kind == PROBLEM:
            try:
                problem = _Problem.model_validate_json(response.content)
            except ValidationError:
                pass
            else:
                raise ends(self._refusal(problem))
        raise ends(self._not_central(response))

    def _refusal(self, problem: _Problem) -> str:
        if problem.code == "unauthorized":
            return (
                f"{self._central} refuses the token in {self._token_source}: it has expired, or another Airflow has issued it. "
                f"Get a new one (POST {self._central}/auth/token with username and password) and put it there"
            )
        return presentable(problem.detail, longest=LONGEST_SENTENCE)

    def _read(self, kind: type[T], response: httpx.Response, body: bytes) -> T:
        try:
            return TypeAdapter(kind).validate_json(body)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "the whole"
            raise SystemExit(
                f"{response.request.url} answered what this command does not understand ({where}: {first['msg']}); "
                "is the provider there of another version than here?"
            ) from None

    def _not_central(self, response: httpx.Response) -> str:
        """Return a sentence about a response that is not the API's."""
        what = (
            f"{self._central} answered {response.status_code} {_media_type(response) or 'no content type'} "
            "by something that is not the Remote Executor's API"
        )
        if response.is_redirect:
            target = presentable(urljoin(str(response.request.url), response.headers.get("location", "")), longest=200)
            return f"{what}: a redirect to {target}, which is not followed; is it a login page, or has the address moved?"
        found = re.search(r"<title[^>]*>(.*?)</title", response.text[:8192], re.IGNORECASE | re.DOTALL)
        if found:
            title = presentable(" ".join(html.unescape(found[1]).split()), longest=100)
            what += f" (its page is titled {title!r})"
        return f"{what}; check the address and its sub-path, what is on the way to it, and that the provider is installed there"


def _media_type(response: httpx.Response) -> str:
    return str(response.headers.get("content-type", "")).partition(";")[0].strip()


def _joined(path: tuple[str, ...]) -> str:
    return "/" + "/".join(map(_segment, path))


def _segment(name: str) -> str:
    """Return *name* as one segment of a path: `/` and dots in it don't lead to another path."""
    if not name:
        raise SystemExit("a name is empty; give one")
    quoted = quote(name, safe="")
    return quoted.replace(".", "%2E") if name in (".", "..") else quoted


def _trust(ca: str | None) -> ssl.SSLContext | bool:
    if ca is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        cause = error.strerror or error
        raise SystemExit(f"--ca: {ca} can't be used ({cause}); give a PEM file with the authority's certificate") from None


def _unreachable(central: str, error: Exception) -> str:
    """Return a sentence about why there is no response."""
    causes = list(_causes(error))
    distrust = next((cause for cause in causes if isinstance(cause, ssl.SSLCertVerificationError)), None)
    if distrust is not None:
        return (
            f"{central} can't be reached: its certificate is not trusted ({distrust.verify_message}); "
            "name a file with its authority's certificate with --ca"
        )
    if isinstance(error, httpx.TimeoutException):
        return f"{central} did not answer in time ({type(error).__name__}); is the address right, and the server up?"
    said = [cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror]
    why = said[-1] if said else str(error) or type(error).__name__
    return f"{central} can't be reached: {why}; is the address right, and the server up?"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield *error* and its causes."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__
