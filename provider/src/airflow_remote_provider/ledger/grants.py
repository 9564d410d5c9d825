"""Decides what a job is allowed to read and change at the gateway.

A job's grant is the sum of the names in its task's definition, its author's declarations, and its queue's policy. The definition
is that of the Dag version from which the job was made, so a worker can't change it. Every read of a secret and every denial is
recorded (:class:`..models.Access`) before it is answered.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from enum import Enum
from typing import Any
from uuid import UUID

import msgspec
from airflow_remote_protocol.messages import JobKind
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from airflow_remote_provider import compat
from airflow_remote_provider.definitions.grants import SECRET, Ask, Grant, GrantKind, inferred, named
from airflow_remote_provider.definitions.grants.declared import BadDeclaration, declared, noted, noted_of_file, spell
from airflow_remote_provider.ledger.errors import NoSuchJob
from airflow_remote_provider.ledger.presentable import presentable
from airflow_remote_provider.ledger.queue_policy import Mode, policy_of
from airflow_remote_provider.models import Access, Job

MOST_NAMES = 500
"""Rows kept per job. A task that reads more is rare, and a hostile worker must not fill the table."""
MORE = "(more)"
CALL = "call"


class Answer(str, Enum):
    GRANTED = "granted"
    DENIED = "denied"
    AUDITED = "audited"


@dataclass(frozen=True)
class Verdict:
    """*why* is the text for the task's log; empty if granted."""

    answer: Answer
    why: str = ""


def decide(session: Session, job_id: str, ask: Ask) -> Verdict:
    """Answer an *ask* of an open job; record the answer if it is about a secret or not granted.

    Raises:
        NoSuchJob: the job no longer exists.
    """
    job = session.get(Job, job_id)
    if job is None:
        raise NoSuchJob(job_id)
    policy = policy_of(session, job.queue)
    if policy.grant.allows(ask):
        verdict = Verdict(Answer.GRANTED)
    else:
        grant, trouble = _definition(session, job)
        if grant.allows(ask) or (ask.run and _is_source(session, job, ask)):
            verdict = Verdict(Answer.GRANTED)
        else:
            verdict = Verdict(Answer.AUDITED if policy.mode is Mode.AUDIT else Answer.DENIED, _why(job, ask, trouble))
    if ask.kind in SECRET or verdict.answer is not Answer.GRANTED:
        _record(session, job, kind=ask.kind.value, name=ask.name, answer=verdict.answer)
    return verdict


def deny_call(session: Session, job_id: str, call: str) -> None:
    """Record a *call* that no grant can allow: one of another task, or one without a rule."""
    job = session.get(Job, job_id)
    if job is not None:
        _record(session, job, kind=CALL, name=call, answer=Answer.DENIED)


def _definition(session: Session, job: Job) -> tuple[Grant, str]:
    """Return what the job's own definition grants, and why it could not be read in full."""
    workload = msgspec.json.decode(job.workload)
    if job.kind == JobKind.CALLBACK.value:
        return named(inferred.of_arguments(workload.get("kwargs"))) | _of_file_of(session, job.dag_id), ""
    version = workload.get("ti", {}).get("dag_version_id")
    return _of_task(compat.task_definition(session, UUID(version), job.task_id) if version else None)


def _is_source(session: Session, job: Job, ask: Ask) -> bool:
    """Say whether *ask* is about the `source_dag_run` of an asset event that triggered the job's own run."""
    return bool(job.dag_id and job.run_id) and compat.is_triggered_by(
        session, run=(job.dag_id, job.run_id), source=(ask.names[0], ask.run)
    )


def _of_file_of(session: Session, dag_id: str | None) -> Grant:
    """Return the names that loading the Dag's file reads, as a callback in it does; empty if none of its tasks is remote."""
    tasks = compat.newest_definitions(session, dag_id) if dag_id else {}
    grants = (noted_of_file(task.executor_config) for task in tasks.values())
    return next((grant for grant in grants if grant), Grant())


def _of_task(task: Any) -> tuple[Grant, str]:
    if task is None:
        return Grant(), "central no longer has that version of the Dag"
    grant, trouble = _declared(task)
    return grant | named(inferred.of_task(task)) | noted(task.executor_config), trouble


def _declared(task: Any) -> tuple[Grant, str]:
    try:
        return (Grant() if task is None else declared(task.executor_config)), ""
    except BadDeclaration as error:
        return Grant(), str(error)


def _why(job: Job, ask: Ask, trouble: str) -> str:
    name = _presentable(ask.name)
    if job.kind == JobKind.TASK.value:
        remedy = f"To allow it, give the task {spell({ask.kind: [name]})}, or run on central: "
        lack = "its task's fields and templates do not name it, its executor_config does not declare it"
    else:
        remedy, lack = "To allow it, run on central: ", "the callback's arguments do not name it"
    if trouble:
        lack += f" ({trouble})"
    command = f"airflow remote grants allow {shlex.quote(job.queue)} --{ask.kind.value.replace('_', '-')} {shlex.quote(name)}"
    return (
        f"Not granted to this job: {ask.kind.noun} {name!r}; {lack}, "
        f"and the policy of the queue {job.queue!r} does not allow it. {remedy}{command}"
    )


def _record(session: Session, job: Job, *, kind: str, name: str, answer: Answer) -> None:
    name = _presentable(name)
    if session.get(Access, (job.id, kind, name, answer.value)) is not None:
        return
    if session.scalar(select(func.count()).where(Access.job_id == job.id)) >= MOST_NAMES:  # type: ignore[operator]
        kind, name = CALL, MORE
    row = Access(
        job_id=job.id,
        kind=kind,
        name=name,
        answer=answer.value,
        at=compat.database_clock(session),
        worker_name=job.worker_name,
        queue=job.queue,
        dag_id=job.dag_id,
        run_id=job.run_id,
        task_id=job.task_id,
        map_index=job.map_index,
        try_number=job.try_number,
    )
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError:
        pass  # another process recorded the same at this moment


def _presentable(name: str) -> str:
    return presentable(name, longest=LONGEST_NAME)


LONGEST_NAME = 250
"""The column's length."""


# For users


def suggest(session: Session, dag_id: str) -> dict[str, dict[GrantKind, list[str]]]:
    """Return, by task, what its author should declare: the present declarations, and the names that jobs were refused.

    A name is left out if the Dag's newest version or the present policy of the job's queue grants it.
    """
    query = select(Access.task_id, Access.queue, Access.kind, Access.name).where(
        Access.dag_id == dag_id,
        Access.answer.in_([Answer.DENIED.value, Answer.AUDITED.value]),
        Access.kind.in_([kind.value for kind in GrantKind]),
    )
    tasks = compat.newest_definitions(session, dag_id)
    lacking: dict[str, dict[GrantKind, set[str]]] = {}
    for row in session.execute(query.distinct()):
        kind = GrantKind(row.kind)
        granted = policy_of(session, row.queue).grant | _of_task(tasks.get(row.task_id))[0]
        if not granted.allows(_as_asked(kind, row.name)):
            lacking.setdefault(row.task_id, {}).setdefault(kind, set()).add(row.name)
    for task_id, names in lacking.items():
        for kind, globs in _declared(tasks.get(task_id))[0].globs.items():
            names.setdefault(kind, set()).update(globs)
    return {task: {kind: sorted(names) for kind, names in kinds.items()} for task, kinds in sorted(lacking.items())}


def _as_asked(kind: GrantKind, name: str) -> Ask:
    """Return the ask that was recorded under this name."""
    return Ask(kind, (name.removesuffix("*"),), listing=True) if name.endswith("*") else Ask(kind, (name,))
