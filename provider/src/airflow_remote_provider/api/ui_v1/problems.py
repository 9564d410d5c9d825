"""Errors of the REST API as RFC 9457 problems: their format, and the status of each exception."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from airflow_remote_protocol.errors import STATUS, ProblemCode
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.exc import DataError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from airflow_remote_provider.api.reports import faults
from airflow_remote_provider.api.ui_v1.caller import Forbidden
from airflow_remote_provider.ledger.errors import LedgerError
from airflow_remote_provider.ledger.presentable import presentable

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 5
LONGEST_PATH = 200


class Problem(BaseModel):
    """The body of every error."""

    title: str
    status: int
    detail: str
    """The object, the cause and the remedy, for users."""
    code: str
    """The cause, for programs."""


def problem(status: int, detail: str, code: str) -> Problem:
    return Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, code=code)


def response(status: int, detail: str, code: str, *, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(problem(status, detail, code).model_dump(), status, headers, MEDIA_TYPE)


def describe_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the description of these errors for a route in the OpenAPI document."""
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"schema": {"$ref": SCHEMA}}}}
        for status in statuses
    }


SCHEMA = "#/components/schemas/Problem"


def answer_refusals(app: FastAPI) -> None:
    """Make *app* answer what it refuses with a problem."""

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code in (401, 403):  # Airflow's answer about a token: an invalid one gets 403
            text = f"{error.detail}; log in to Airflow, or send an Airflow token: Authorization: Bearer …"
            return response(401, text, "unauthorized", headers={"www-authenticate": "Bearer"})
        if error.status_code == 404:  # by the router; an unknown object is a LedgerError
            where = presentable(request.url.path, longest=200)
            return response(404, f"there is no route {where}; the provider on central may be older than this client", "not-found")
        code = {405: "method-not-allowed"}.get(error.status_code, "invalid")
        return response(error.status_code, str(error.detail), code, headers=dict(error.headers or {}))

    @app.exception_handler(Forbidden)
    async def forbidden(request: Request, error: Forbidden) -> JSONResponse:
        return response(403, str(error), "forbidden")

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        # Without the value itself, which may be a secret.
        said = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:10])
        return response(422, presentable(said, longest=2000), ProblemCode.INVALID.value)

    @app.exception_handler(LedgerError)
    async def of_the_ledger(request: Request, error: LedgerError) -> JSONResponse:
        return response(STATUS[error.code], str(error), error.code.value)


def answer_failures(app: FastAPI) -> None:
    """Make *app* answer what fails with a problem, and log it. Without this, the caller of the app gets the exception."""

    @app.exception_handler(DataError)
    async def unstorable(request: Request, error: DataError) -> JSONResponse:
        log.warning("The database can't store a value of a user's request: %s", presentable(str(error.orig), longest=500))
        return response(422, "central's database can't store a value in this request", ProblemCode.INVALID.value)

    @app.exception_handler(DBAPIError)
    @app.exception_handler(PoolTimeout)
    async def database_unavailable(request: Request, error: Exception) -> JSONResponse:
        found = faults.report_single_failure("answer a user's request", error)
        text = str(found) if found.is_public else "central's database does not answer; try again in a moment"
        return response(503, text, ProblemCode.BUSY.value, headers={"retry-after": str(RETRY_AFTER_S)})

    @app.exception_handler(Exception)
    async def internal(request: Request, error: Exception) -> JSONResponse:
        faults.report_single_failure(f"answer a user's request, {request.method} {request.url.path[:LONGEST_PATH]}", error)
        return response(500, "central failed on this request; its log says why", ProblemCode.INTERNAL.value)
