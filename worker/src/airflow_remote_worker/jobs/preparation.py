"""What a job needs before it can start: a workload that can be read, and its code on this machine."""

from __future__ import annotations

import secrets

from airflow_remote_protocol.codec import Malformed, decode
from airflow_remote_protocol.messages import (
    CallbackWorkload,
    ConnectionTestWorkload,
    JobKind,
    Offer,
    TaskWorkload,
    TriggerWorkload,
)

from airflow_remote_worker.jobs.apart import call_apart
from airflow_remote_worker.jobs.job import Job
from airflow_remote_worker.jobs.site import Site
from airflow_remote_worker.shim import wire

WORKLOADS: dict[JobKind, type[TaskWorkload | CallbackWorkload | ConnectionTestWorkload | TriggerWorkload]] = {
    JobKind.TASK: TaskWorkload,
    JobKind.CALLBACK: CallbackWorkload,
    JobKind.CONNECTION_TEST: ConnectionTestWorkload,
    JobKind.TRIGGER: TriggerWorkload,
}
PREPARE_WITHIN_S = 60.0
"""A look for a file that takes longer will not come back: a network drive that is away."""


class Unprepared(Exception):
    """The job can't start here; the text goes into its log and names the cause and the remedy."""


async def prepare(job: Job, site: Site, *, contact_at: float) -> wire.JobSpec:
    """Return what the job's shim must know. *contact_at*: when central was last heard of, on the machine's monotonic clock.

    Raises:
        Unprepared: the workload can't be read, or its bundle isn't here.
    """
    code = await locate_code(job.offer, site)
    return wire.JobSpec(
        job_id=job.lease.job_id,
        key=secrets.token_hex(32),
        socket_path=str(site.socket_path),
        worker_name=site.worker_name,
        queue=job.offer.queue,
        workload=job.offer.workload,
        bundle_path=code,
        kind=job.offer.kind.value,
        stop_after_s=job.offer.stop_after_s,
        contact_at=contact_at,
        contact_path=str(site.contact_path),
        run_as_user=site.config.user_of(job.offer.queue),
        body_bytes=site.body_bytes(),
    )


async def locate_code(offer: Offer, site: Site) -> str:
    """Return where the job's bundle is on this machine; empty for a kind that needs none.

    Raises:
        Unprepared: the workload can't be read, or its bundle isn't here.
    """
    try:
        # Apart: where the Dags are on a drive that doesn't answer, only this job waits.
        name = f"look for the code of {offer.job_id}"
        return await call_apart(lambda: _find_code(offer, site), within_s=PREPARE_WITHIN_S, name=name)
    except TimeoutError:
        places = ", ".join(sorted({str(bundle.path) for bundle in site.config.bundles.values()}))
        raise Unprepared(
            f"the worker {site.worker_name} got no answer from its disk within {PREPARE_WITHIN_S:.0f} s when it looked "
            f"for the Dag file ({places}); if that is a network drive, see whether it is there"
        ) from None


def _find_code(offer: Offer, site: Site) -> str:
    """Return where the job's bundle is on this machine; empty for a kind that needs none.

    Raises:
        Unprepared: the workload can't be read, or its bundle isn't here.
    """
    try:
        workload = decode(WORKLOADS[offer.kind], bytes(offer.workload))
    except Malformed as error:
        raise Unprepared(f"central sent a workload that this worker can't read ({error}); update the older of the two") from None
    if isinstance(workload, ConnectionTestWorkload):
        return ""
    name, config = workload.bundle.name, site.config
    bundle = config.bundles.get(name)
    if bundle is None:
        known = ", ".join(sorted(config.bundles)) or "none"
        remedy = f"set bundles.{name}.path in its settings to the directory with that bundle's Dags"
        raise Unprepared(f"the worker {site.worker_name} has no bundle {name!r} (it has: {known}); {remedy}")
    if not (bundle.path / workload.dag_rel_path).exists():
        what = f"{bundle.path}" if not bundle.path.is_dir() else f"{bundle.path / workload.dag_rel_path}"
        remedy = "bring it there, or correct bundles." + name + ".path"
        raise Unprepared(f"{what} does not exist on worker {site.worker_name} (bundle {name!r}); {remedy}")
    return str(bundle.path.absolute())
