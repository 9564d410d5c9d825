"""A real central (our FastAPI app under uvicorn, on a real database) with a small stand-in for Airflow's Execution API."""

from __future__ import annotations

from testkit.ledger import Callback, TaskInstance, Trigger, queue_job  # isort: skip  (first: it points Airflow elsewhere)
from testkit.servers.uvicorn_app import Serving  # isort: skip

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from types import TracebackType
from typing import Any

import httpx
from airflow_remote_protocol.conformance.central import PLATFORM, Response
from airflow_remote_protocol.messages import IntentMode, JobKind, Usage
from airflow_remote_provider import compat
from airflow_remote_provider.api.worker_v1.app import create_worker_api
from airflow_remote_provider.ledger import (
    credentials,
    deferrals,
    expired_offers,
    lost_jobs,
    releases,
    restarts,
    rollouts,
    rotation,
    runtimes,
    suspension,
    trees,
    usage,
    workers,
)
from airflow_remote_provider.ledger.changes import stamp
from airflow_remote_provider.ledger.credentials import NewToken
from airflow_remote_provider.ledger.deferrals import NewWait
from airflow_remote_provider.ledger.runtimes import Built, Recipe
from airflow_remote_provider.ledger.wakeup import Topic, wake
from airflow_remote_provider.models import Deferral, EnrolmentToken, Job, Worker, WorkerContact
from airflow_remote_provider.placeholder_names import TRIGGER_QUEUE
from airflow_remote_provider.settings import settings
from airflow_remote_provider.stores.worker_logs import WorkerLogStore
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi.responses import Response as HTTPResponse
from sqlalchemy import select, update

from testkit import code

PREFIX = "/airflow/remote/v1"
LONG_AGO = datetime(2000, 1, 1, tzinfo=timezone.utc)


class ServedCentral:
    """Implements the conformance suite's `CentralUnderTest`; changes go through the ledger, as the executor's and users' do."""

    def __init__(self, execution_api: Callable[[], Any] | None = None) -> None:
        """Serve the app that *execution_api* returns instead of the stand-in."""
        self._serving = Serving(create_worker_api(execution_api or stand_in_execution_api), PREFIX)
        self.port = self._serving.port
        # It is plain HTTP. To load the system's authorities takes longer than most tests.
        self._client = httpx.Client(base_url=f"{self._serving.url}{PREFIX}/", timeout=30, verify=False)

    def __enter__(self) -> ServedCentral:
        self._serving.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._client.close()
        self._serving.__exit__(kind, error, trace)

    # Methods that the conformance suite calls

    def request(self, method: str, path: str, *, headers: Mapping[str, str], body: bytes = b"") -> Response:
        answer = self._client.request(method, path, headers=dict(headers), content=body)
        return Response(answer.status_code, {k.lower(): v for k, v in answer.headers.items()}, answer.content)

    def enrolment_token(self, queues: Sequence[str], *, name_pattern: str = "*", uses: int = 1, expires_s: float = 3600.0) -> str:
        with compat.transaction() as session:
            token, row = credentials.create_token(session, NewToken(list(queues), name_pattern, uses=uses))
            session.flush()
            expires = datetime.now(timezone.utc) + timedelta(seconds=expires_s)
            session.execute(update(EnrolmentToken).where(EnrolmentToken.id == row.id).values(expires_at=expires))
        return token

    def enqueue(
        self,
        queue: str,
        *,
        slots: int = 1,
        priority: int = 1,
        workload: dict[str, Any] | None = None,
        kind: JobKind = JobKind.TASK,
    ) -> str:
        ti_id = uuid.uuid4() if kind is JobKind.TASK else None
        ti = {"id": str(ti_id), "dag_id": "dag", "run_id": "run", "task_id": "task"}
        content = workload or {"ti": ti, "dag_rel_path": "dag.py", "bundle": {"name": "b", "version": None}}
        with compat.transaction() as session:
            job = queue_job(
                session,
                queue,
                with_task=ti_id is not None,
                kind=kind,
                ti_id=ti_id,
                slots=slots,
                priority=priority,
                workload=json.dumps(content),
            )
            if kind is JobKind.CALLBACK:
                session.add(Callback(id=uuid.UUID(job.job_id), state="queued"))
        return job.job_id

    def defer(self, queue: str) -> str:
        ti_id = uuid.uuid4()
        workload = {"ti": {"id": str(ti_id)}, "dag_rel_path": "dag.py", "bundle": {"name": "b", "version": None}}
        with compat.transaction() as session:
            job = queue_job(session, queue, ti_id=ti_id, workload=json.dumps(workload))
            session.flush()
            session.execute(update(Job).where(Job.id == job.job_id).values(state="running"))
            trigger = Trigger(queue=TRIGGER_QUEUE, created_date=datetime.now(timezone.utc))
            session.add(trigger)
            session.flush()
            waiting = update(TaskInstance).where(TaskInstance.id == ti_id)
            session.execute(waiting.values(state="deferred", trigger_id=trigger.id))
            deferrals.note(session, job.job_id, NewWait("resume", "{}", "{}", "site.Trigger"))
            deferrals.queue_trigger(session, job.job_id)
            session.execute(update(Job).where(Job.id == job.job_id).values(state="succeeded"))
            return str(session.scalar(select(Deferral.job_id).where(Deferral.ti_id == ti_id)))

    def publish(self, files: Mapping[str, bytes]) -> str:
        with compat.transaction() as session:
            return code.publish(session, f"bundle-{uuid.uuid4().hex}", files).digest

    def run_tree(self, job_id: str, digest: str) -> None:
        with compat.transaction() as session:
            session.execute(update(Job).where(Job.id == job_id).values(tree=digest))

    def roll_runtime(self, queue: str, files: Mapping[str, bytes]) -> str:
        name = f"of-{hashlib.sha256(queue.encode()).hexdigest()[:16]}"
        with compat.transaction() as session:
            digest = code.store(session, files, kind=trees.RUNTIME).digest
            built = [Built(PLATFORM, digest)]
            runtimes.add(session, name, Recipe(platforms=(PLATFORM,)), built, built_with={}, by="tests")
        with compat.transaction() as session:
            rollouts.roll(session, rollouts.of_runtime(name), by="tests")
            rollouts.assign_queue(session, queue, name, by="tests")
        return digest

    def roll_release(self, files: Mapping[str, bytes]) -> str:
        with compat.transaction() as session:
            digest = code.store(session, files, kind=trees.RELEASE).digest
            releases.add(session, "0.2.0", [Built(PLATFORM, digest)], by="tests")
            rollouts.roll(session, rollouts.RELEASES, by="tests")
        return digest

    def withdraw_release(self) -> None:
        with compat.transaction() as session:
            row = releases.must_lock(session)
            row.previous = 0
            session.flush()
            rollouts.halt(session, rollouts.RELEASES, by="tests")

    def task_state(self, job_id: str) -> str:
        with compat.transaction() as session:
            of_job = select(TaskInstance.state).join(Job, Job.ti_id == TaskInstance.id)
            return str(session.scalar(of_job.where(Job.id == job_id)))

    def end_task(self, job_id: str) -> None:
        with compat.transaction() as session:
            of_job = TaskInstance.id.in_(select(Job.ti_id).where(Job.id == job_id))
            session.execute(update(TaskInstance).where(of_job).values(state="failed"))

    def move_task_on(self, job_id: str) -> None:
        with compat.transaction() as session:
            again = update(TaskInstance).where(TaskInstance.external_executor_id == job_id)
            session.execute(again.values(state="running", external_executor_id=str(uuid.uuid4())))

    def expire_offer(self, job_id: str) -> None:
        rules = expired_offers.OfferRules(settings().offer_attempts, timedelta(seconds=settings().reoffer_delay_seconds))
        with compat.transaction() as session:
            session.execute(update(Job).where(Job.id == job_id, Job.state == "offered").values(deadline_at=LONG_AGO))
            session.flush()
            expired_offers.expire_offers(session, rules)

    def lose_job(self, job_id: str) -> None:
        with compat.transaction() as session:
            worker_id = session.scalar(select(Job.worker_id).where(Job.id == job_id))
            seen_at = session.scalar(select(WorkerContact.last_seen_at).where(WorkerContact.worker_id == worker_id))
            session.execute(update(Job).where(Job.id == job_id).values(lost_after_s=0.001, accepted_at=LONG_AGO))
            session.execute(update(WorkerContact).where(WorkerContact.worker_id == worker_id).values(last_seen_at=LONG_AGO))
            session.flush()
            lost_jobs.lose_silent(session)
            session.execute(update(WorkerContact).where(WorkerContact.worker_id == worker_id).values(last_seen_at=seen_at))

    def pass_grace(self, job_id: str) -> None:
        with compat.transaction() as session:
            session.execute(update(Job).where(Job.id == job_id, Job.missing_since.is_not(None)).values(missing_since=LONG_AGO))
            session.flush()
            lost_jobs.lose_missing(session, grace=timedelta(seconds=15))

    def skip_delay(self, job_id: str) -> None:
        with compat.transaction() as session:
            session.execute(update(Job).where(Job.id == job_id).values(not_before=None))
            wake(session, Topic.QUEUED)

    def job_state(self, job_id: str) -> str:
        return self._job(job_id).state

    def job_epoch(self, job_id: str) -> int:
        return self._job(job_id).epoch

    def log_bytes(self, job_id: str) -> bytes:
        job = self._job(job_id)
        file = compat.base_log_folder() / job.log_path
        return file.read_bytes()[job.log_base or 0 :] if file.exists() else b""

    def worker_log(self, worker_name: str) -> bytes:
        with compat.transaction() as session:
            worker_id = session.scalar(select(Worker.id).where(Worker.name == worker_name))
        return WorkerLogStore(1 << 20).read(worker_id or "", 0, 1 << 20).body

    def usage(self, worker_name: str) -> Usage | None:
        with compat.transaction() as session:
            worker_id = session.scalar(select(Worker.id).where(Worker.name == worker_name)) or ""
            return usage.fresh(session, [worker_id]).get(worker_id)

    def set_intent(self, worker_name: str, mode: IntentMode, *, slots: int | None = None) -> None:
        with compat.transaction() as session:
            workers.set_intent(session, worker_name, mode, by="conformance")
            workers.limit_slots(session, worker_name, slots, by="conformance")

    def revoke_worker(self, worker_name: str) -> None:
        with compat.transaction() as session:
            workers.revoke_worker(session, worker_name)

    def suspend_worker(self, worker_name: str) -> None:
        with compat.transaction() as session:
            suspension.suspend(session, worker_name, by="conformance")

    def unsuspend_worker(self, worker_name: str) -> None:
        with compat.transaction() as session:
            suspension.unsuspend(session, worker_name, by="conformance")

    def ask_to_restart(self, worker_name: str) -> None:
        with compat.transaction() as session:
            restarts.request_restart(session, worker_name, by="conformance")

    def ask_to_rotate(self, worker_name: str) -> None:
        with compat.transaction() as session:
            rotation.request_rotation(session, worker_name, by="conformance")

    def pass_handover(self, worker_name: str) -> None:
        with compat.transaction() as session:
            workers.find_worker(session, worker_name).past_at = LONG_AGO

    def expire_credential(self, worker_name: str) -> None:
        with compat.transaction() as session:
            worker = workers.find_worker(session, worker_name)
            worker.credential_expires_at = LONG_AGO
            worker.changed_at = stamp(session)
            wake(session, Topic.WORKER)
        time.sleep(2)  # the process that caches the worker must be notified

    def ungranted_variable(self) -> str:
        return f"ungranted-{uuid.uuid4().hex}"  # no grant names it

    def is_flagged(self, worker_name: str) -> bool:
        with compat.transaction() as session:
            return bool(workers.find_worker(session, worker_name).alarm)

    def _job(self, job_id: str) -> Job:
        with compat.transaction() as session:
            job = session.get(Job, job_id)
        assert job is not None
        return job


def stand_in_execution_api() -> FastAPI:
    """Return an app with the routes of the Execution API that affect a job's state; `echo` returns what the gateway forwards."""
    app = FastAPI()
    started: dict[uuid.UUID, int] = {}
    xcoms: dict[tuple[str, str, str, str], Any] = {}

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "healthy"}

    @app.patch("/task-instances/{ti_id}/run")
    async def run(ti_id: uuid.UUID, request: Request) -> Any:
        pid = (await request.json())["pid"]
        again = started.setdefault(ti_id, pid) == pid
        return _move(ti_id, ("queued", "running") if again else ("queued",), "running", 200)

    @app.patch("/task-instances/{ti_id}/state")
    async def state(ti_id: uuid.UUID, request: Request) -> Any:
        body = await request.json()
        return _move(ti_id, ("running",), body["state"], 204, body if body["state"] == "deferred" else None)

    @app.api_route("/xcoms/{dag_id}/{run_id}/{task_id}/{key:path}", methods=["GET", "HEAD", "POST"])
    async def xcom(dag_id: str, run_id: str, task_id: str, key: str, request: Request) -> Any:
        at = (dag_id, run_id, task_id, key)
        if request.method == "POST":
            xcoms[at] = await request.json()
            return JSONResponse({"message": "XCom successfully set"}, 201)
        if request.method == "HEAD":
            return HTTPResponse(headers={"Content-Range": f"map_indexes {int(at in xcoms)}", "Refreshed-API-Token": "a.b.c"})
        return {"key": key, "value": xcoms[at]} if at in xcoms else JSONResponse({"detail": {"reason": "not_found"}}, 404)

    @app.api_route("/echo/{path:path}", methods=["GET", "POST", "PATCH"])
    async def echo(path: str, request: Request) -> dict[str, Any]:
        raw_path = request.scope["raw_path"].decode()
        body = (await request.body()).decode()
        return {"path": raw_path, "headers": dict(request.headers), "body": body, "query": request.url.query}

    return app


def _move(ti_id: uuid.UUID, allowed: tuple[str, ...], state: str, status: int, deferral: dict[str, Any] | None = None) -> Any:
    with compat.transaction() as session:
        task = session.get(TaskInstance, ti_id)
        if task is None:
            return JSONResponse({"detail": {"reason": "not_found"}}, 404)
        if task.state == state and status == 204:
            return HTTPResponse(status_code=200)
        if task.state not in allowed:
            return JSONResponse({"detail": {"reason": "invalid_state", "previous_state": task.state}}, 409)
        task.state = state
        if deferral is not None:
            trigger = Trigger(
                queue=deferral["queue"],
                created_date=datetime.now(timezone.utc),
                classpath=deferral["classpath"],
                kwargs=json.dumps(deferral["trigger_kwargs"]),
            )
            session.add(trigger)
            session.flush()
            task.trigger_id = trigger.id
    return JSONResponse({"dag_run": {}}, status) if status == 200 else HTTPResponse(status_code=status)
