"""Serves the SDK calls of triggers (`Connection.get`, `Variable.get`, XComs, …) as the Task SDK's `SUPERVISOR_COMMS`.

A task's process sends such a message to its supervisor, which calls the Execution API. Here the host itself handles the message
with the same functions of the Task SDK, and a client whose transport calls the daemon for the calling trigger.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

from airflow_remote_protocol.execution import CALL_HEADERS, MAX_BODY_BYTES, explain_too_large

from airflow_remote_worker.local import frames
from airflow_remote_worker.shim.compat import httpx
from airflow_remote_worker.shim.denials import reason_of
from airflow_remote_worker.shim.transport import BASE_URL, SERVER_ERROR_PAUSES_S, as_response, refusal
from airflow_remote_worker.shim.triggers.current import ContextThreads, Running, current
from airflow_remote_worker.shim.triggers.logs import LogBook
from airflow_remote_worker.shim.triggers.portal import greenback

THREADS = 32
"""Maximum number of concurrent SDK calls of one host. While central is unreachable each holds a thread; others queue."""

HANDLERS = {
    "GetConnection": "handle_get_connection",
    "GetVariable": "handle_get_variable",
    "GetVariableKeys": "handle_get_variable_keys",
    "PutVariable": "handle_put_variable",
    "DeleteVariable": "handle_delete_variable",
    "GetXCom": "handle_get_xcom",
    "GetXComCount": "handle_get_xcom_count",
    "GetXComSequenceItem": "handle_get_xcom_sequence_item",
    "GetXComSequenceSlice": "handle_get_xcom_sequence_slice",
    "SetXCom": "handle_set_xcom",
    "DeleteXCom": "handle_delete_xcom",
    "GetDRCount": "handle_get_dr_count",
    "GetDagRunState": "handle_get_dag_run_state",
    "GetPreviousDagRun": "handle_get_previous_dag_run",
    "GetPrevSuccessfulDagRun": "handle_get_prev_successful_dag_run",
    "GetTICount": "handle_get_ti_count",
    "GetTaskStates": "handle_get_task_states",
    "GetPreviousTI": "handle_get_previous_ti",
    "ClearAssetStateStoreByName": "handle_clear_asset_state_store_by_name",
    "ClearAssetStateStoreByUri": "handle_clear_asset_state_store_by_uri",
    "DeleteAssetStateStoreByName": "handle_delete_asset_state_store_by_name",
    "DeleteAssetStateStoreByUri": "handle_delete_asset_state_store_by_uri",
    "GetAssetStateStoreByName": "handle_get_asset_state_store_by_name",
    "GetAssetStateStoreByUri": "handle_get_asset_state_store_by_uri",
    "SetAssetStateStoreByName": "handle_set_asset_state_store_by_name",
    "SetAssetStateStoreByUri": "handle_set_asset_state_store_by_uri",
}
"""Message type → function of `airflow.sdk.execution_time.request_handlers`. Central decides what a trigger may read or write."""


class Comms:
    """Takes the place of a task's socket to its supervisor."""

    def __init__(self, client: Any, loop: asyncio.AbstractEventLoop) -> None:
        """*client*: the Task SDK's, with :class:`TriggerTransport`."""
        self._client = client
        self._loop = loop
        self._loop_thread = threading.get_ident()
        self._threads = ContextThreads(THREADS, thread_name_prefix="sdk-call")

    def send(self, msg: Any) -> Any:
        """Return the answer to *msg*. Blocks the thread, except on the event loop's own thread, where only this trigger waits.

        Raises:
            AirflowRuntimeError: central refused.
            RuntimeError: the call is on the event loop's thread, and the runtime lacks greenback.
        """
        if _is_mask_request(msg):
            return None
        if threading.get_ident() != self._loop_thread:
            return self._answer(msg)
        if greenback is None or not greenback.has_portal():
            remedy = "install greenback into the runtime (requirements/runtime.lock has it)" if greenback is None else ""
            raise RuntimeError(
                f"{type(msg).__name__} was sent synchronously from the event loop of the trigger host, which must not wait: "
                f"use the asynchronous method (aget_connection, aget_hook, …){', or ' + remedy if remedy else ''}"
            )
        return greenback.await_(self.asend(msg))

    async def asend(self, msg: Any) -> Any:
        """Return the answer to *msg* without blocking the loop. Raises: as :meth:`send`."""
        if _is_mask_request(msg):
            return None
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._answer, msg)

    def _answer(self, msg: Any) -> Any:
        from airflow.sdk.api.client import ServerResponseError
        from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
        from airflow.sdk.execution_time.comms import ErrorResponse, OKResponse

        handle = self._find_handler(type(msg).__name__)
        try:
            answer = handle(self._client, msg)
        except ServerResponseError as error:
            detail = {"status_code": error.response.status_code, "message": str(error), "detail": _content(error.response)}
            raise AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail=detail)) from None
        # A handler returns (response, options of its encoding), or None.
        return answer[0] if isinstance(answer, tuple) else OKResponse(ok=True)

    def _find_handler(self, name: str) -> Callable[[Any, Any], Any]:
        from airflow.sdk.execution_time import request_handlers

        handle: Callable[[Any, Any], Any] | None = _HITL.get(name) or getattr(request_handlers, HANDLERS.get(name, ""), None)
        if handle is None:
            raise RuntimeError(f"a trigger can't send {name}: the trigger host of this worker does not support it")
        return handle


def _update_hitl(client: Any, msg: Any) -> tuple[Any, dict[str, bool]]:
    answer = client.hitl.update_response(ti_id=msg.ti_id, chosen_options=msg.chosen_options, params_input=msg.params_input)
    return answer, {}


_HITL: dict[str, Callable[[Any, Any], Any]] = {
    "UpdateHITLDetail": _update_hitl,
    "GetHITLDetailResponse": lambda client, msg: (client.hitl.get_detail_response(ti_id=msg.ti_id), {}),
}


def _is_mask_request(msg: Any) -> bool:
    """Return whether *msg* needs no answer: its sender has masked the secret in this process, which is also the supervisor's."""
    return type(msg).__name__ == "MaskSecret"


def _content(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return response.text[:2000]


class TriggerTransport(httpx.BaseTransport):
    """Sends each request through *ask*, under the lease of the calling trigger. For threads only."""

    def __init__(self, ask: Callable[[Running, frames.TriggerCall], frames.Answer | None], book: LogBook) -> None:
        """*ask* blocks during an outage; it returns None if the trigger was cancelled meanwhile."""
        self._ask = ask
        self._book = book

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        running = current.get()
        if running is None:
            raise RuntimeError(
                "an SDK call was made outside of any trigger (a thread of its own?); start threads with asyncio.to_thread, or "
                "copy the context (contextvars.copy_context)"
            )
        path = request.url.raw_path.decode("ascii").removeprefix(httpx.URL(BASE_URL).path).lstrip("/")
        headers = {name: request.headers[name] for name in CALL_HEADERS if name in request.headers}
        body = request.read()
        if len(body) > MAX_BODY_BYTES:
            return refusal(
                413,
                "too-large",
                explain_too_large(f"the body of {request.method} {path[:200]}", size=len(body), most=MAX_BODY_BYTES),
            )
        call = frames.TriggerCall(0, running.lease, request.method, path, headers, body)
        answer = self._ask(running, call)
        for pause in SERVER_ERROR_PAUSES_S:
            if answer is None or answer.status < 500:
                break
            time.sleep(pause)
            answer = self._ask(running, call)
        if answer is None:
            message = "the trigger was cancelled while it waited for central"
            return httpx.Response(410, json={"detail": {"reason": "airflow-remote", "message": message}})
        if (reason := reason_of(answer.status, lambda: answer.body)) and reason not in running.denials:
            running.denials.add(reason)
            self._book.add_event(running.lease, reason, level="error")
        return as_response(answer.status, answer.headers, answer.body)


def make_client(transport: httpx.BaseTransport) -> Any:
    """Return a client of the Task SDK that uses *transport*."""
    from airflow.sdk.api.client import Client

    return Client(base_url=BASE_URL, token="", transport=transport)
