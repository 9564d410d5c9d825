"""Prepares a job before its start: decodes its workload, checks that the site accepts it, and gets its code."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path, PurePosixPath

from airflow_remote_protocol.codec import Malformed, decode
from airflow_remote_protocol.messages import (
    Bundle,
    CallbackWorkload,
    ConnectionTestWorkload,
    JobKind,
    Offer,
    TaskWorkload,
    TreeRef,
    TriggerWorkload,
)

from airflow_remote_worker import system
from airflow_remote_worker.code import local
from airflow_remote_worker.code.bundles import CodeUnavailable, Origin
from airflow_remote_worker.code.local import LocalCode
from airflow_remote_worker.daemon_thread import run_in_daemon_thread
from airflow_remote_worker.errors import WorkerError
from airflow_remote_worker.jobs.job import Job
from airflow_remote_worker.jobs.site import RuntimeGone, Site
from airflow_remote_worker.lease import Lease, runtime_of
from airflow_remote_worker.local import job_files
from airflow_remote_worker.state.free_space import FULL, NoRoom

Workload = TaskWorkload | CallbackWorkload | ConnectionTestWorkload | TriggerWorkload
WORKLOADS: dict[JobKind, type[Workload]] = {
    JobKind.TASK: TaskWorkload,
    JobKind.CALLBACK: CallbackWorkload,
    JobKind.CONNECTION_TEST: ConnectionTestWorkload,
    JobKind.TRIGGER: TriggerWorkload,
}
PREPARE_WITHIN_S = 60.0
"""A lookup of a file that takes longer does not return: the network drive is unreachable."""


class Unprepared(Exception):
    """The job can't start here. The text goes into its log and names the cause and the remedy."""


class Declined(Exception):
    """The job can't start here now, but may elsewhere or later: its offer returns to central, with the text as the reason."""


async def prepare(
    job: Job, site: Site, *, contact_at: float, note: Callable[[str], None] = lambda detail: None
) -> job_files.JobSpec:
    """Return the specification for the job's shim.

    Args:
        contact_at: the last contact with central, on the machine's monotonic clock.
        note: called with the progress while code is fetched.

    Raises:
        Unprepared: the workload can't be read, is not accepted here, or its code isn't on this machine.
        Declined: its code or its runtime can't be had here now.
    """
    code = await locate_code(job.offer, site, note=note)
    await ensure_runtime(job.offer, site, note=note)
    job.site_code, job.code_note, job.code_source = code.differs_as, code.note, code.source
    return job_files.JobSpec(
        job_id=job.lease.job_id,
        key=secrets.token_hex(32),
        socket_path=str(site.socket_path),
        worker_name=site.worker_name,
        queue=job.offer.queue,
        workload=job.offer.workload,
        bundle_path=code.path,
        site_code=code.differs_as,
        code_note=code.note,
        kind=job.offer.kind.value,
        stop_after_s=job.offer.stop_after_s,
        contact_at=contact_at,
        contact_path=str(site.contact_path),
        run_as_user=site.config.user_of(job.offer.queue),
        body_bytes=site.body_bytes(),
        tree=code.tree,
        signed=site.needs_signed_code(),
        runtime=runtime_of(job.offer),
        runtime_name=job.offer.runtime.name if job.offer.runtime else "",
        release=site.release,
    )


async def ensure_runtime(offer: Offer, site: Site, *, note: Callable[[str], None] = lambda detail: None) -> None:
    """Make sure that the runtime of the job is on this machine. It is held for the lease from now on.

    Raises:
        Unprepared: the user that the job runs as can't reach it.
        Declined: it isn't here.
    """
    if site.runtimes is None:
        if offer.runtime is not None:
            raise Declined("this worker uses the site's own runtime by now (runtime.python), and the job has another one")
        return
    try:
        python = await site.runtimes.ensure(offer, note)
    except RuntimeGone as error:
        raise Declined(str(error)) from None
    except TimeoutError:
        raise Declined(f"the worker's disk did not answer when it looked for the runtime ({site.config.code_path})") from None
    except OSError as error:
        if isinstance(error, NoRoom) or error.errno in FULL:
            site.note_failure(error)
        raise Declined(f"the runtime of the job can't be used: {error}") from None
    user = site.config.user_of(offer.queue)
    for path in (python, python.resolve()) if python and user else ():
        if closed := system.find_closed(path, user):
            raise Unprepared(
                f"the user {user} can't reach the runtime's interpreter {path}: {closed} is closed to other users; set code.path "
                f"(or runtime.interpreter) in the settings of the worker {site.worker_name} to a place that they can enter"
            )


async def locate_code(offer: Offer, site: Site, *, note: Callable[[str], None] = lambda detail: None) -> LocalCode:
    """Return the job's code on this machine: the site's own if it has the bundle, else the tree of the offer.

    The tree is held for the lease from now on. *note*: called with the progress while it is fetched.

    Raises:
        Unprepared: the workload can't be read, is not accepted here, or its code isn't on this machine.
        Declined: its code can't be had here now.
    """
    workload = decode_workload(offer)
    check_accepted(offer, workload, site)
    if isinstance(workload, ConnectionTestWorkload):
        return LocalCode()
    try:
        if offer.tree is None or site.code is None or workload.bundle.name in site.config.bundles:
            # In a thread of its own: if the drive with the Dags doesn't answer, only this job waits.
            name = f"look for the code of {offer.job_id}"
            return await run_in_daemon_thread(lambda: find_code(offer, site), within_s=PREPARE_WITHIN_S, name=name)
        return await _get_tree(offer, offer.tree, workload.bundle, workload.dag_rel_path, site, note)
    except TimeoutError:
        places = {str(bundle.path) for bundle in site.config.bundles.values()} | (
            {str(site.config.code_path)} if offer.tree else set()
        )
        raise Unprepared(
            f"the worker {site.worker_name} got no answer from its disk within {PREPARE_WITHIN_S:.0f} s when it looked "
            f"for the Dag file ({', '.join(sorted(places))}); if that is a network drive, check that it is mounted and reachable"
        ) from None


async def _get_tree(
    offer: Offer, tree: TreeRef, bundle: Bundle, dag_rel_path: str, site: Site, note: Callable[[str], None]
) -> LocalCode:
    """Return the code that central publishes. Raises: Unprepared, Declined, TimeoutError."""
    assert site.code is not None
    holder = Lease(offer.job_id, offer.epoch)
    try:
        if refused := await site.check_code(tree.digest, bundle.name):
            raise Unprepared(f"bundle {bundle.name!r}: {refused}")
    except WorkerError as error:
        raise Declined(f"central did not say who has signed the code of bundle {bundle.name!r}: {error}") from None
    for is_last in (False, True):
        try:
            files = await site.code.ensure(tree, Origin.of_bundle(bundle), holder, note)
        except CodeUnavailable as error:
            raise Declined(str(error)) from None
        except OSError as error:
            if isinstance(error, NoRoom) or error.errno in FULL:
                site.note_failure(error)
                raise Declined(str(error)) from None
            raise
        look = partial(_has, files, dag_rel_path)
        if await run_in_daemon_thread(look, within_s=PREPARE_WITHIN_S, name="look for the Dag file"):
            break
        if is_last:
            raise Unprepared(
                f"the code of bundle {bundle.name!r} that central sent (tree {tree.digest[:12]}) has no file {dag_rel_path!r}; "
                "check that .remoteignore does not exclude it, and publish the bundle again"
            )
        site.code.recheck(tree.digest)  # something on this machine may have removed it
    user = site.config.user_of(offer.queue)
    if user and (closed := system.find_closed(files, user)):
        raise Unprepared(
            f"the user {user} can't reach the code in {files}: {closed} is closed to other users; set code.path in the "
            f"settings of the worker {site.worker_name} to a directory that they can enter"
        )
    version = f", version {bundle.version}" if bundle.version else ""
    source = f"Bundle {bundle.name!r}{version}, tree {tree.digest[:12]}, sent by central"
    return LocalCode(str(files), note=tree.note, tree=tree.digest, source=source)


def _has(files: Path, dag_rel_path: str) -> bool:
    parts = PurePosixPath(dag_rel_path)
    return not parts.is_absolute() and ".." not in parts.parts and local.exists(files / dag_rel_path)


def decode_workload(offer: Offer) -> Workload:
    """Return the offer's workload.

    Raises:
        Unprepared: it can't be read.
    """
    try:
        return decode(WORKLOADS[offer.kind], bytes(offer.workload))
    except Malformed as error:
        raise Unprepared(f"central sent a workload that this worker can't read ({error}); update the older of the two") from None


def check_accepted(offer: Offer, workload: Workload, site: Site) -> None:
    """Return if the site accepts the job.

    Raises:
        Unprepared: it does not; the text names the setting.
    """
    accept = site.config.accept
    checked = [("queues", "the queue", offer.queue, accept.queues)]
    if not isinstance(workload, ConnectionTestWorkload):
        checked.append(("bundles", "the bundle", workload.bundle.name, accept.bundles))
    if isinstance(workload, TaskWorkload | TriggerWorkload):
        checked.append(("dags", "the Dag", str(workload.ti.get("dag_id", "")), accept.dags))
    elif isinstance(workload, CallbackWorkload):
        checked.append(("dags", "a callback, which does not name its Dag,", "*", accept.dags))
    for setting, what, name, patterns in checked:
        if "*" not in patterns and not any(fnmatchcase(name, pattern) for pattern in patterns):
            shown = f"{what} {name!r}" if name != "*" else what
            raise Unprepared(
                f"the worker {site.worker_name} does not accept {shown}: accept.{setting} in its settings is {list(patterns)}; "
                "run it on another queue, or ask the site to accept it"
            )


def find_code(offer: Offer, site: Site) -> LocalCode:
    """Return the job's code in the site's own directory.

    Raises:
        Unprepared: the workload can't be read, or its bundle isn't on this machine.
    """
    workload = decode_workload(offer)
    if isinstance(workload, ConnectionTestWorkload):
        return LocalCode()
    code_hash = workload.code_hash if isinstance(workload, TaskWorkload) else ""
    name = workload.bundle.name
    try:
        code = local.find(
            name, dag_rel_path=workload.dag_rel_path, code_hash=code_hash, config=site.config, worker_name=site.worker_name
        )
    except local.CodeMissing as error:
        raise Unprepared(str(error)) from None
    if offer.tree is None:
        return code
    source = (
        f"Bundle {name!r} is this machine's own directory {code.path} (bundles.{name}.path); the tree "
        f"{offer.tree.digest[:12]} of central is not used"
    )
    return LocalCode(code.path, code.differs_as, code.note, source=source)
