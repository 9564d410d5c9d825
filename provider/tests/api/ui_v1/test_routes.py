"""Routes that modules declare, and the apps that they are added to."""

from __future__ import annotations

from airflow_remote_provider.api.ui_v1 import app as module
from airflow_remote_provider.api.ui_v1.app import LocalApi, create_rest_api
from airflow_remote_provider.api.ui_v1.routes import Routes
from fastapi import FastAPI
from fastapi.routing import APIRoute


def test_a_route_has_the_tag_of_its_resource_and_its_own() -> None:
    routes = Routes("queues")

    @routes.get("/policies", tags=["policies"], summary="List them")
    async def list_policies() -> None: ...

    app = FastAPI()
    routes.declared[0].add_to(app)
    (route,) = (route for route in app.routes if isinstance(route, APIRoute))
    assert (route.path, route.methods, route.tags, route.summary) == ("/policies", {"GET"}, ["queues", "policies"], "List them")


def test_a_route_may_match_requests_to_its_resource_with_its_method() -> None:
    routes = Routes()

    @routes.put("/queues/{queue:path}/rules")
    async def set_rules() -> None: ...

    (route,) = routes.declared
    assert route.may_match("PUT", "/queues/ships/at sea/rules")
    assert not route.may_match("GET", "/queues/ships/rules") and not route.may_match("PUT", "/policies/ships/mode")


def test_the_local_api_has_every_route_but_those_of_pages() -> None:
    served = {(route.path, *route.methods) for route in create_rest_api().routes if isinstance(route, APIRoute)}
    local = {(route.path, route.method) for route in LocalApi("ann")._missing}
    assert served - local == {("/me", "GET"), ("/live", "GET"), ("/openapi.json", "GET")} and not local - served


def test_a_call_adds_the_routes_that_it_needs() -> None:
    api = LocalApi("ann")
    declared = sum(len(part.router.declared) for part in module.PARTS)
    assert len(api._missing) == declared and not [route for route in api._app.routes if isinstance(route, APIRoute)]
