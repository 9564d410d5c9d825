"""Determines how a job ended from the files that its shim left. Only decides: it writes no log and no file, and sends nothing."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from airflow_remote_protocol.messages import MAX_SHORT_TEXT, JobKind, Offer, Outcome, Report, Stop

from airflow_remote_worker import system
from airflow_remote_worker.errors import Damaged
from airflow_remote_worker.local.job_files import Result
from airflow_remote_worker.state.spool import JobDir, ShimRecord


@dataclass(frozen=True)
class Verdict:
    """How a job ended."""

    report: Report
    ending: str = ""
    """The same in words, for the worker's log."""
    begun: bool | None = None
    """Whether its own code had begun; None: unknown, or irrelevant because the job was stopped."""


def judge(job_dir: JobDir, shim: ShimRecord | None, stop: Stop | None) -> Verdict:
    """Return how a job ended whose shim has exited; *stop* is the stop that it received, if any."""
    try:
        result = job_dir.result()
    except Damaged as error:
        return Verdict(_without_result(job_dir, stop, str(error)))
    if result is None:
        cause = "its process was killed, ran out of memory, or the machine went down"
        if shim and _is_of_an_earlier_boot(shim):
            cause = "it died with the machine, which was restarted while the job ran"
        return Verdict(_without_result(job_dir, stop, cause))
    report = Report(
        outcome=_outcome(result), exit_code=result.exit_code, reason=(result.error or result.final_state)[:MAX_SHORT_TEXT]
    )
    return Verdict(report, _ending(result, stop), None if result.stopped else result.begun)


ENDINGS = {
    "success": "succeeded",
    "failed": "failed",
    "up_for_retry": "failed and is up for retry",
    "up_for_reschedule": "is up for reschedule",
    "deferred": "deferred",
    "awaiting_input": "waits for input",
    "skipped": "was skipped",
    "upstream_failed": "failed upstream",
    "removed": "was removed",
}
"""The Task SDK supervisor's final state of a task's try → words for the worker's log."""


def _ending(result: Result, stop: Stop | None) -> str:
    if result.stopped:
        return f"was stopped ({stop.reason.value})" if stop else "was stopped"
    words = ENDINGS.get(result.final_state) or ("ended well" if result.exit_code == 0 else "failed")
    details = [f"exit code {result.exit_code}"] if result.exit_code else []
    details += [result.error] if result.error else []
    return f"{words} ({', '.join(details)})" if details else words


class _Names(msgspec.Struct, frozen=True):
    dag_id: str = ""
    run_id: str = ""
    task_id: str = ""
    map_index: int | None = -1
    try_number: int = 0


class _Task(msgspec.Struct, frozen=True):
    ti: _Names = _Names()


def describe_offer(offer: Offer) -> str:
    """Return a description of the offer's job for the worker's log."""
    if offer.kind is not JobKind.TASK:
        return str(offer.kind.value)
    try:
        ti = msgspec.json.decode(offer.workload, type=_Task).ti
    except msgspec.MsgspecError:
        return "task"
    mapped = f"[{ti.map_index}]" if ti.map_index is not None and ti.map_index >= 0 else ""
    return f"task {ti.dag_id}.{ti.task_id}{mapped} of run {ti.run_id}, try {ti.try_number},"


def _outcome(result: Result) -> Outcome:
    if result.stopped:
        return Outcome.STOPPED
    return Outcome.SUCCEEDED if result.exit_code == 0 else Outcome.FAILED


def _without_result(job_dir: JobDir, stop: Stop | None, cause: str) -> Report:
    if stop is not None:
        return Report(outcome=Outcome.STOPPED, reason=f"stopped ({stop.reason.value}) without a result of its own")
    reason = f"the task's supervisor (shim) ended without a result: {cause}; see {job_dir.shim_log} on the worker"
    return Report(outcome=Outcome.DIED, reason=reason[:MAX_SHORT_TEXT])


def _is_of_an_earlier_boot(shim: ShimRecord) -> bool:
    then, now = shim.birth_mark.partition(":")[0], system.boot_id()
    return bool(then and now and then != now)
