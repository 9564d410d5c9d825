"""The routes of one resource, as its module declares them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import FastAPI

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class DeclaredRoute:
    """A route that no app has yet."""

    method: str
    path: str
    endpoint: Callable[..., Any]
    options: Mapping[str, Any]

    def add_to(self, app: FastAPI) -> None:
        app.add_api_route(self.path, self.endpoint, methods=[self.method], **self.options)

    def may_match(self, method: str, path: str) -> bool:
        """Return whether it has this method, and a path that begins with the same segment."""
        return method == self.method and path.split("/")[1] == self.path.split("/")[1]


class Routes:
    """Collects the routes of one resource.

    Declaring a route costs nothing: FastAPI analyses it when it is added to an app. An `APIRouter` analyses each route when it is
    declared, and again when the router is included: 0.4 s for all, which each `airflow remote …` would wait for (ADR 0039).
    """

    def __init__(self, tag: str | None = None) -> None:
        self.declared: list[DeclaredRoute] = []
        self._tags = [] if tag is None else [tag]

    def get(self, path: str, **options: Any) -> Callable[[F], F]:
        """Return a decorator that declares the route; *options* are those of :meth:`fastapi.FastAPI.add_api_route`."""
        return self._declare("GET", path, options)

    def post(self, path: str, **options: Any) -> Callable[[F], F]:
        return self._declare("POST", path, options)

    def put(self, path: str, **options: Any) -> Callable[[F], F]:
        return self._declare("PUT", path, options)

    def delete(self, path: str, **options: Any) -> Callable[[F], F]:
        return self._declare("DELETE", path, options)

    def _declare(self, method: str, path: str, options: Mapping[str, Any]) -> Callable[[F], F]:
        tags = [*self._tags, *options.get("tags", ())]

        def declare(endpoint: F) -> F:
            self.declared.append(DeclaredRoute(method, path, endpoint, {**options, "tags": tags}))
            return endpoint

        return declare
