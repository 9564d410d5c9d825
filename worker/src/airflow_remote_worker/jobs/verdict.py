"""How a job ended, by what its shim left behind. Decides only; the log, the report's file and central are others'."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_remote_protocol.messages import LONGEST_SHORT_TEXT, Outcome, Report, Stop

from airflow_remote_worker import posix
from airflow_remote_worker.errors import Damaged
from airflow_remote_worker.shim.wire import Result
from airflow_remote_worker.spool import JobDir, ShimRecord


@dataclass(frozen=True)
class Verdict:
    """How a job ended."""

    report: Report
    final_state: str = ""
    """Of its task; empty: unknown, or no task."""
    begun: bool | None = None
    """Whether its own code had begun; None: unknown, or of no meaning, because it was stopped."""


def judge(job_dir: JobDir, shim: ShimRecord | None, stop: Stop | None) -> Verdict:
    """Return what became of a job whose shim has gone; *stop* is the one that it was given, if any."""
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
        outcome=_outcome(result), exit_code=result.exit_code, reason=(result.error or result.final_state)[:LONGEST_SHORT_TEXT]
    )
    return Verdict(report, result.final_state, None if result.stopped else result.begun)


def _outcome(result: Result) -> Outcome:
    if result.stopped:
        return Outcome.STOPPED
    return Outcome.SUCCEEDED if result.exit_code == 0 else Outcome.FAILED


def _without_result(job_dir: JobDir, stop: Stop | None, cause: str) -> Report:
    if stop is not None:
        return Report(outcome=Outcome.STOPPED, reason=f"stopped ({stop.reason.value}) without a result of its own")
    reason = f"the task's supervisor (shim) ended without a result: {cause}; see {job_dir.shim_log} on the worker"
    return Report(outcome=Outcome.DIED, reason=reason[:LONGEST_SHORT_TEXT])


def _is_of_an_earlier_boot(shim: ShimRecord) -> bool:
    then, now = shim.birth_mark.partition(":")[0], posix.boot_id()
    return bool(then and now and then != now)
