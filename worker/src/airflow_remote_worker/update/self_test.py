"""`airflow-remote-worker self-test`: whether this release can work with what is on this machine. Changes nothing.

The release that runs asks the next one before it hands over: :func:`ask`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from airflow_remote_protocol.trees import DIGEST

import airflow_remote_worker
from airflow_remote_worker.clock import SystemClock
from airflow_remote_worker.code.interpreter import find
from airflow_remote_worker.code.runtimes import CannotMake, Environments, environment_of
from airflow_remote_worker.code.trees import TreeStore
from airflow_remote_worker.config import Config
from airflow_remote_worker.errors import Damaged, Unreachable
from airflow_remote_worker.jobs.canary import WITHIN_S, run_canary
from airflow_remote_worker.jobs.launcher import Launcher, scrub_environment
from airflow_remote_worker.lifecycle import EXIT_OK
from airflow_remote_worker.link.client import Link
from airflow_remote_worker.link.network import Network
from airflow_remote_worker.state.directory import State
from airflow_remote_worker.state.spool import JobDir, Spool
from airflow_remote_worker.update.trial import without_systemd

EXIT_LATER = 4
"""Central can't be reached, or the disk fails: perhaps no fault of the release."""
OF_AIRFLOW = ("airflow_remote_worker.shim", "airflow_remote_worker.testing", "airflow_remote_worker.__main__")
"""Modules that need Airflow, or that only tests use."""
ANSWER_WITHIN_S = WITHIN_S + 120
"""The canary, and the imports on a small board without bytecode."""


class SelfTestFailed(Exception):
    """This release can't work here; the text says why."""


async def run(config: Config, state: State) -> list[str]:
    """Test everything; return a line for each part that works.

    Raises:
        SelfTestFailed, WorkerError, OSError: something doesn't; `Unreachable`: central can't be reached.
    """
    lines = [
        f"{_import_all()} modules can be imported",
        f"the state in {state.root} can be read: {_read(state)} open jobs",
    ]
    link = Link(Network.of(config, state.membership()), credential=state.membership().credential, clock=SystemClock())
    try:
        lines.append(f"central answers {(await link.ping()).name} at {link.central}")
    finally:
        await link.close()
    lines.append(await _host(config, state))
    return lines


def _import_all() -> int:
    """Import every module of this release. Raises: SelfTestFailed."""
    count = 0
    for module in pkgutil.walk_packages(airflow_remote_worker.__path__, "airflow_remote_worker."):
        if not module.name.startswith(OF_AIRFLOW):
            try:
                importlib.import_module(module.name)
            except Exception as error:
                raise SelfTestFailed(f"{module.name} can't be imported: {type(error).__name__}: {error}") from error
            count += 1
    return count


def _read(state: State) -> int:
    """Read the notes of all open jobs; return how many there are. Raises: SelfTestFailed."""
    jobs = 0
    for job in Spool(state.jobs, quarantine=state.quarantine) if state.jobs.exists() else ():
        notes = JobDir(job.path, job.lease)  # damaged files stay where they are
        try:
            notes.offer()
            notes.spec()
        except Damaged as error:
            if (job.path / "offer.json").exists() and notes.closed() is None:  # it was not closed meanwhile
                raise SelfTestFailed(f"the notes of a job can't be read by this release: {error}") from None
        else:
            jobs += 1
    return jobs


async def _host(config: Config, state: State) -> str:
    """Run the canary in a runtime of this machine, as a job is run. Raises: SelfTestFailed, OSError."""
    found = _find_runtime(config)
    if found is None:
        return "no runtime is here yet, so no task was tried"
    python, env = found
    with tempfile.TemporaryDirectory(prefix="self-test-", dir=state.root) as directory:
        scrubbed = scrub_environment(os.environ, python=python, airflow_home=state.airflow_home, extra=env)
        place = Path(directory)
        launcher = Launcher(python, env=scrubbed, home=state.airflow_home, zygote_log=place / "zygote.log")
        try:
            tested = await run_canary(launcher, place / "canary")
            if tested.trouble:  # once more: the daemon repeats it too, and a release fails for good
                tested = await run_canary(launcher, place / "canary")
        finally:
            launcher.close()
    if tested.trouble:
        raise SelfTestFailed(tested.trouble)
    return f"a built-in task ran in {python} (Task SDK {tested.task_sdk})"


def _find_runtime(config: Config) -> tuple[Path, Mapping[str, str]] | None:
    """Return the interpreter of a runtime that works, and the variables of its tasks."""
    if config.runtime.python is not None:
        return config.runtime.python, config.runtime.env
    root = config.code_path / "runtimes"
    environments = Environments(root, find(config))
    for path in sorted(root.glob("*/ready.json"), key=lambda path: -path.stat().st_mtime):
        digest = path.parent.name
        if DIGEST.match(digest) and (ready := environments.ready(digest)) and ready.passed:
            with contextlib.suppress(CannotMake):
                tree = TreeStore(config.code_path / "trees").files_of(digest)
                return environments.python_of(digest), environment_of(tree, config.runtime.env)
    return None


def ask(command: Sequence[str]) -> None:
    """Let another release test itself. Blocks, for minutes on a slow machine.

    Raises:
        Unreachable: it can't reach central now, or the disk fails.
        SelfTestFailed: it does not work here.
    """
    try:
        done = subprocess.run(
            command,
            env=without_systemd(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=ANSWER_WITHIN_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SelfTestFailed(f"its self-test did not end within {ANSWER_WITHIN_S:.0f} s") from None
    if done.returncode != EXIT_OK:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no message"]
        text = lines[-1].strip().removeprefix("airflow-remote-worker: ")[:500]
        if done.returncode == EXIT_LATER:
            raise Unreachable(text)
        raise SelfTestFailed(f"its self-test ended with {done.returncode}: {text}")
