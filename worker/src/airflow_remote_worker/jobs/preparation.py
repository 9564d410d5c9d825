"""What a job needs before it can start: a workload that can be read, and its code on this machine."""

from __future__ import annotations

import hashlib
import secrets
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

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
    job.site_code, job.code_note = code.differs_as, code.note
    return wire.JobSpec(
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
    )


@dataclass(frozen=True)
class Code:
    """The code of a job on this machine."""

    path: str = ""
    """Where its bundle is; empty for a kind that needs none."""
    differs_as: str = ""
    """MD5 of its Dag file, where it is not the one that central parsed."""
    note: str = ""
    """What people should know about that."""


async def locate_code(offer: Offer, site: Site) -> Code:
    """Return the job's code on this machine.

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


def _find_code(offer: Offer, site: Site) -> Code:
    """Return the job's code on this machine.

    Raises:
        Unprepared: the workload can't be read, or its bundle isn't here.
    """
    try:
        workload = decode(WORKLOADS[offer.kind], bytes(offer.workload))
    except Malformed as error:
        raise Unprepared(f"central sent a workload that this worker can't read ({error}); update the older of the two") from None
    if isinstance(workload, ConnectionTestWorkload):
        return Code()
    name, config = workload.bundle.name, site.config
    bundle = config.bundles.get(name)
    if bundle is None:
        known = ", ".join(sorted(config.bundles)) or "none"
        remedy = f"set bundles.{name}.path in its settings to the directory with that bundle's Dags"
        raise Unprepared(f"the worker {site.worker_name} has no bundle {name!r} (it has: {known}); {remedy}")
    if not _is_there(bundle.path / workload.dag_rel_path):
        what = f"{bundle.path}" if not bundle.path.is_dir() else f"{bundle.path / workload.dag_rel_path}"
        remedy = "bring it there, or correct bundles." + name + ".path"
        raise Unprepared(f"{what} does not exist on worker {site.worker_name} (bundle {name!r}); {remedy}")
    path = str(bundle.path.absolute())
    if not isinstance(workload, TaskWorkload) or not workload.code_hash:
        return Code(path)
    theirs, ours = workload.code_hash, hash_of(bundle.path / workload.dag_rel_path)
    if ours in ("", theirs):
        return Code(path)
    note = (
        f"The Dag file {workload.dag_rel_path} of bundle {name!r} on worker {site.worker_name} (version {ours[:8]}) is not the "
        f"one that central parsed (version {theirs[:8]}): bring the newer one to the other side. The worker's is what runs here"
    )
    return Code(path, ours, note)


LONGEST_FILE = 16 * 1024 * 1024
"""Of Dag files that are compared, in bytes."""


def hash_of(file: Path) -> str:
    """Return the MD5 of a Dag file's text, as Airflow keeps it; empty if it can't be read, or is no text."""
    try:
        if (archive := archive_of(file)) is not None:
            with zipfile.ZipFile(archive) as packed:
                member = packed.getinfo(file.relative_to(archive).as_posix())
                content = packed.read(member) if member.file_size <= LONGEST_FILE else b"\xff"
        elif file.stat().st_size > LONGEST_FILE:
            return ""
        else:
            content = file.read_bytes()
        text = content.decode()
    except (OSError, KeyError, ValueError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile):
        return ""  # a damaged archive raises any of them
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _is_there(file: Path) -> bool:
    """Say whether a Dag file is there, also one that is in a zip archive (`…/dags.zip/dag.py`)."""
    if file.exists():
        return True
    if (archive := archive_of(file)) is None:
        return False
    try:
        with zipfile.ZipFile(archive) as packed:
            packed.getinfo(file.relative_to(archive).as_posix())
    except (OSError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile):
        return False
    return True


def archive_of(file: Path) -> Path | None:
    """Return the zip archive that a Dag file is in; None for an ordinary file."""
    return next((place for place in file.parents if place.suffix.lower() == ".zip" and place.is_file()), None)
