"""`airflow-remote-worker code list|prune`: what of central's is on this machine, and what of it may go. Every function blocks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from airflow_remote_worker.code.interpreter import find_own
from airflow_remote_worker.code.trees import HeldTree, TreeStore
from airflow_remote_worker.config import Config
from airflow_remote_worker.errors import Damaged
from airflow_remote_worker.local import job_files
from airflow_remote_worker.state import files
from airflow_remote_worker.state.directory import State
from airflow_remote_worker.state.spool import Spool
from airflow_remote_worker.update.releases import Releases


class Line(NamedTuple):
    """A tree."""

    tree: HeldTree
    bytes: int
    """What it takes on the disk; files that it shares with others count for each."""
    needed: str
    """Why it stays; empty: it may go."""


def list_code(config: Config, state: State) -> list[Line]:
    """Return all trees, the last used first."""
    store = TreeStore(config.code_path / "trees")
    held = store.held()
    needed = dict.fromkeys(_newest(held), "newest of its name")
    needed |= dict.fromkeys(Releases(config, state, find_own()).load().trees, "release of the worker")
    needed |= dict.fromkeys(_of_jobs(state), "in use")
    return [Line(tree, _size(store.files_of(tree.digest)), needed.get(tree.digest, "")) for tree in held]


def prune(config: Config, state: State) -> list[Line]:
    """Remove what may go, and return it. The caller holds the state directory's lock."""
    store = TreeStore(config.code_path / "trees")
    gone = [line for line in list_code(config, state) if not line.needed]
    for line in gone:
        store.remove(line.tree.digest)
    return gone


def _newest(held: list[HeldTree]) -> Iterator[str]:
    names = {tree.about.bundle for tree in held if tree.about}
    for name in names:
        of_name = [(tree.about.made_at, tree.digest) for tree in held if tree.about and tree.about.bundle == name]
        yield max(of_name)[1]


def _of_jobs(state: State) -> Iterator[str]:
    """Yield the trees that jobs and trigger hosts use, which run on without a daemon.

    Raises:
        Damaged: it can't be known.
    """
    for job in Spool(state.jobs, quarantine=state.quarantine) if state.jobs.exists() else ():
        if job.closed() is None and (spec := type(job)(job.path, job.lease).spec()):
            yield from (spec.tree, spec.runtime, spec.release)
    for path in state.hosts.glob(f"*/{job_files.HOST_SPEC}"):
        try:
            host = files.read(job_files.HostSpec, path)
        except (Damaged, FileNotFoundError):
            continue  # the next daemon ends it
        yield from (host.tree, host.runtime, host.release)


def _size(path: Path) -> int:
    return sum(file.lstat().st_blocks * 512 for file in path.rglob("*"))
