"""The routes of `/remote/v1` (docs/protocol.md): parse, authenticate the caller, call one ledger verb, answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from airflow_remote_protocol.errors import ProblemCode
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from airflow_remote_provider.api.problems import as_response, problem_response
from airflow_remote_provider.api.worker_v1 import enrolment, jobs, logs, sessions, trees
from airflow_remote_provider.api.worker_v1.callers import as_worker, in_session, on_job
from airflow_remote_provider.api.worker_v1.context import ApiContext
from airflow_remote_provider.api.worker_v1.job_bounds import serve_within_bounds
from airflow_remote_provider.api.worker_v1.sending import Endpoint
from airflow_remote_provider.ledger.workers import WorkerRecord


def routes(central: ApiContext) -> list[Route]:
    """Return all routes. Any other path under the prefix also needs a credential, and is then `not-found`."""
    anything = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    return [
        _route(central, "/enrol", enrolment.enrol, methods=["POST"]),
        _route(central, "/credential", partial(as_worker, enrolment.replace_credential), methods=["POST"]),
        _route(central, "/session", partial(as_worker, sessions.open_session), methods=["POST"]),
        _route(central, "/session/end", partial(in_session, sessions.end_session), methods=["POST"]),
        _route(central, "/poll", partial(in_session, sessions.poll), methods=["POST"]),
        _route(central, "/jobs/{job_id}/accept", partial(on_job, jobs.accept), methods=["POST"]),
        _route(central, "/jobs/{job_id}/decline", partial(on_job, jobs.decline), methods=["POST"]),
        _route(central, "/jobs/{job_id}/event", partial(on_job, jobs.report_event), methods=["POST"]),
        _route(central, "/jobs/{job_id}/report", partial(on_job, jobs.report), methods=["POST"]),
        _route(central, "/jobs/{job_id}/log", partial(on_job, logs.append), methods=["POST"]),
        _route(central, "/jobs/{job_id}/execution/{path:path}", partial(on_job, serve_within_bounds), methods=anything),
        _route(central, "/logs", partial(in_session, logs.append_many), methods=["POST"]),
        _route(central, "/log", partial(in_session, logs.append_worker_log), methods=["POST"]),
        _route(central, "/usage", partial(in_session, sessions.report_usage), methods=["POST"]),
        _route(central, "/runtime", partial(in_session, sessions.report_runtime), methods=["POST"]),
        _route(central, "/trees/{digest}/pack", partial(in_session, trees.pack), methods=["GET"]),
        _route(central, "/trees/{digest}/blobs", partial(in_session, trees.blobs), methods=["POST"]),
        _route(central, "/trees/{digest}/statements", partial(in_session, trees.list_statements), methods=["GET"]),
        _route(central, "/inventory", partial(in_session, trees.note_inventory), methods=["POST"]),
        _route(central, "/ping", partial(as_worker, sessions.ping), methods=["GET"]),
        _route(central, "/leave", partial(as_worker, enrolment.leave), methods=["POST"]),
        _route(central, "/{path:path}", partial(as_worker, _nothing_here), methods=anything),
    ]


def _route(
    central: ApiContext, path: str, handle: Callable[[ApiContext, Request], Awaitable[Response]], *, methods: list[str]
) -> Route:
    async def answer(request: Request) -> Response:
        try:
            return await handle(central, request)
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception as error:
            return as_response(error)

    return Route(path, Endpoint(answer), methods=methods)


async def _nothing_here(_central: ApiContext, request: Request, _worker: WorkerRecord) -> Response:
    return problem_response(ProblemCode.NOT_FOUND, f"there is no {request.method} {request.url.path}")
