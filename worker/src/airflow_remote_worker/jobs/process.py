"""Processes: starting shims (through the zygote, or each in a fresh interpreter), telling them apart, watching them, ending them.

Knows nothing of offers, logs or central.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import anyio
import psutil

from airflow_remote_worker import posix
from airflow_remote_worker.shim import wire
from airflow_remote_worker.spool import ShimRecord

log = logging.getLogger(__name__)

LAUNCHER = Path(wire.__file__).parent / "launch.py"
READY_TIMEOUT_S = 180.0
"""Importing Airflow takes 1.3 s on a quiet desktop (docs: measured), far longer on a small board without bytecode."""
SPAWN_TIMEOUT_S = 60.0
FAILURES_BEFORE_HOSTING = 3
"""A zygote that died so often in a row is given up for this job: a fresh interpreter gets its chance."""
KEPT_VARIABLES = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "XDG_RUNTIME_DIR"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
        *("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
        *("SYSTEMROOT", "USERNAME", "USERPROFILE", "TEMP", "TMP"),
    }
)


class CannotHost(Exception):
    """The runtime can't run tasks; the text says why and what to do."""


class StartUncertain(Exception):
    """The start was interrupted: a shim may or may not be alive, and no second one must be started."""


def scrubbed(environ: Mapping[str, str], *, airflow_home: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """Return what tasks see of our environment: a short allow-list, so that no secret of the site leaks by accident."""
    kept = {name: value for name, value in environ.items() if name in KEPT_VARIABLES or name.startswith("LC_")}
    return {**kept, "AIRFLOW_HOME": str(airflow_home), **extra}


class Launcher:
    """Starts shims in the runtime at *python*: through a zygote, if the system can fork."""

    def __init__(
        self,
        python: Path | None,
        *,
        env: dict[str, str],
        home: Path,
        zygote_log: Path,
        fork: bool = posix.CAN_FORK,
        launcher: Path | None = None,
    ) -> None:
        self.runtime: wire.Ready | None = None
        """What the zygote said of its runtime."""
        self.python = python
        self._env = env
        self._home = home
        self._zygote_log = zygote_log
        self._fork = fork
        self._launcher = launcher or LAUNCHER
        self._zygote: Zygote | None = None
        self._starting = anyio.Lock()
        self._task_settings: dict[str, str] = {}
        self._has_outdated_zygote = anyio.Event()

    def use_task_settings(self, values: Mapping[str, str]) -> None:
        """Start every later process with these settings of central's (by `section.option`); what runs keeps those that it has.

        Airflow reads most of them while it is imported, so a zygote that has imported it under other ones is replaced.
        """
        if dict(values) != self._task_settings:
            self._task_settings = dict(values)
            self._has_outdated_zygote.set()

    @property
    def has_zygote(self) -> bool:
        return self._zygote is not None and not self._zygote.has_ended

    async def zygote_ended(self) -> None:
        """Return when the zygote, if there is one, has ended."""
        if self._zygote is not None and not self._zygote.has_ended:
            zygote = self._zygote
            await zygote.watch()
            log.warning("the zygote (pid %s) ended; starting another one", zygote.pid)

    async def retire(self) -> None:
        """Let the zygote go; its shims live on, and the next start takes another one."""
        if self._zygote:
            await self._zygote.retire()

    def close(self) -> None:
        """Let the zygote go at once."""
        if self._zygote:
            self._zygote.close()

    async def zygote_outdated(self) -> None:
        """Return when the next start would replace the zygote, because central's settings have changed."""
        await self._has_outdated_zygote.wait()

    async def launch(self, job_dir: Path) -> ShimRecord:
        """Start the shim of the job in *job_dir*; return its process.

        Raises:
            CannotHost: nothing was started.
            StartUncertain: perhaps something was.
        """
        for _ in range(FAILURES_BEFORE_HOSTING if self._fork else 0):
            try:
                zygote = await self._ready_zygote()
                return record(await zygote.spawn(job_dir))
            except ZygoteDied as error:
                log.warning("the zygote did not come up: %s", error)
        return record(self._host(job_dir))

    def _host(self, job_dir: Path) -> wire.Spawned:
        python = self._interpreter()
        argv = [str(python), str(self._launcher), "host", str(job_dir)]
        process = _start(argv, env=self._environment(), output=job_dir / "shim.log", cwd=self._home)
        _children[process.pid] = process
        return wire.Spawned(job_dir=str(job_dir), pid=process.pid, start_time=_start_time(process.pid))

    async def _ready_zygote(self) -> Zygote:
        """Raises: CannotHost, ZygoteDied."""
        async with self._starting:
            if self._has_outdated_zygote.is_set():
                self._has_outdated_zygote = anyio.Event()
                if self._zygote is not None:
                    await self._zygote.retire()
            if self._zygote is None or self._zygote.has_ended:
                self.runtime = None
                self._zygote = Zygote.start(
                    self._interpreter(), self._launcher, env=self._environment(), home=self._home, output=self._zygote_log
                )
            zygote = self._zygote
            try:
                self.runtime = await zygote.ready()
            except CannotHost:
                zygote.close()
                raise
            return zygote

    def _environment(self) -> dict[str, str]:
        return {**self._env, wire.TASK_SETTINGS: json.dumps(self._task_settings)} if self._task_settings else self._env

    def _interpreter(self) -> Path:
        if self.python is None:
            raise CannotHost("no runtime is set; set runtime.python to the Python of an environment with the Airflow Task SDK")
        return self.python


class ZygoteDied(CannotHost):
    """It went without a word; another attempt may do better."""


class Zygote:
    """One zygote process and the socket that holds it alive."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket, output: Path) -> None:
        self.pid = process.pid
        self.has_ended = False
        self._process = process
        self._control: socket.socket | None = control
        self._output = output
        self._ready: wire.Ready | None = None
        self._unable: str | None = None
        self._speaking = anyio.Lock()

    @classmethod
    def start(cls, python: Path, launcher: Path, *, env: dict[str, str], home: Path, output: Path) -> Zygote:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            fd = theirs.fileno()
            argv = [str(python), str(launcher), "zygote", "--control-fd", str(fd)]
            output.unlink(missing_ok=True)
            process = _start(argv, env=env, output=output, cwd=home, pass_fds=(fd,))
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        return cls(process, ours, output)

    async def ready(self) -> wire.Ready:
        """Wait until it is preloaded.

        Raises:
            CannotHost: it says that it can't.
            ZygoteDied: it went.
        """
        async with self._speaking:
            if self._ready is None and self._unable is None:
                frame = await self._receive(READY_TIMEOUT_S)
                if isinstance(frame, wire.Unable):
                    self._unable = frame.reason
                elif isinstance(frame, wire.Ready):
                    self._ready = frame
                else:
                    self.close()
                    raise ZygoteDied(f"the zygote of {self._process.args!r} ended without a word; see {self._output}")
            if self._unable is not None:
                raise CannotHost(f"the runtime can't host tasks: {self._unable}")
            assert self._ready is not None
            return self._ready

    async def spawn(self, job_dir: Path) -> wire.Spawned:
        """Fork a shim for *job_dir*.

        Raises:
            CannotHost: the fork failed; nothing was started.
            StartUncertain: the zygote went in the middle of it.
        """
        # One at a time: a fork takes a few ms, and an answer then always belongs to the last question.
        async with self._speaking:
            if self._control is None:
                raise ZygoteDied("the zygote has just ended")
            finished = False
            try:
                await asyncio.get_running_loop().sock_sendall(self._control, wire.pack(wire.Spawn(job_dir=str(job_dir))))
                frame = await self._receive(SPAWN_TIMEOUT_S)
                finished = isinstance(frame, wire.Spawned | wire.Unable)
            except OSError as error:
                raise StartUncertain(f"the zygote went while it was asked to start the job: {error}") from None
            finally:
                if not finished:
                    self.close()  # cancelled, silent or gone: later answers would be taken for other questions'
            if isinstance(frame, wire.Spawned):
                return frame
            if isinstance(frame, wire.Unable):
                raise CannotHost(f"the runtime could not fork a shim: {frame.reason}")
            raise StartUncertain("the zygote went while it started the job")

    def close(self) -> None:
        """Let it go: it exits when its socket closes. Its shims live on."""
        if self._control:
            self._control.close()
            self._control = None
        _children[self.pid] = self._process
        self.has_ended = True

    async def retire(self) -> None:
        """Let it go once it has answered what it was asked."""
        async with self._speaking:
            self.close()

    async def watch(self) -> None:
        """Return when the process has ended."""
        await wait_for_exit(ShimRecord(self.pid, 0.0, posix.birth_mark(self.pid) or ""))
        self.close()

    async def _receive(self, timeout_s: float) -> wire.Frame | None:
        """Return the next frame; None when it went, was silent for too long, or spoke nonsense."""
        with anyio.move_on_after(timeout_s):
            prefix = await self._receive_exactly(wire.LENGTH.size)
            if prefix is None:
                return None
            try:
                body = await self._receive_exactly(wire.check_length(prefix))
                return None if body is None else wire.unpack(body)
            except wire.BrokenFrame as error:
                log.warning("the zygote spoke nonsense: %s", error)
        return None

    async def _receive_exactly(self, count: int) -> bytes | None:
        loop = asyncio.get_running_loop()
        received = b""
        while len(received) < count:
            try:
                chunk = await loop.sock_recv(self._control, count - len(received)) if self._control else b""
            except OSError:
                chunk = b""
            if not chunk:
                return None
            received += chunk
        return received


# Which process is it, is it alive, when does it end


_children: dict[int, subprocess.Popen[bytes]] = {}
"""Our own children, kept to be reaped; a shim of a zygote is the zygote's child, or nobody's."""


def record(spawned: wire.Spawned) -> ShimRecord:
    """Return what to store of a shim that has just been started."""
    return ShimRecord(pid=spawned.pid, start_time=spawned.start_time, birth_mark=posix.birth_mark(spawned.pid) or "")


def is_alive(shim: ShimRecord) -> bool:
    """Say whether exactly this process still runs (no zombie, no later one with its pid)."""
    reap()
    try:
        process = psutil.Process(shim.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        mark = posix.birth_mark(shim.pid)
        if shim.birth_mark and mark:
            return shim.birth_mark == mark
        return not shim.start_time or abs(process.create_time() - shim.start_time) < 1.0
    except psutil.NoSuchProcess:
        return False


async def wait_for_exit(shim: ShimRecord) -> None:
    """Return when this very process has ended."""
    try:
        fd = posix.open_pidfd(shim.pid)
    except ProcessLookupError:
        return
    if fd is None:
        while is_alive(shim):  # noqa: ASYNC110 -- these systems have no event for it
            await anyio.sleep(0.5)
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    try:
        # Asked after the descriptor was opened: from here on the pid can't change hands unnoticed.
        if not is_alive(shim):
            return
        loop.add_reader(fd, ended.set)
        await ended.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)
        reap()


def reap() -> None:
    """Collect those of our own children that have ended."""
    for pid, process in list(_children.items()):
        if process.poll() is not None:
            del _children[pid]


def find_shim(shim_log: Path) -> ShimRecord | None:
    """Return the process that writes *shim_log*, if any: a shim whose start was not recorded. Looks at every process once."""
    found: list[tuple[float, int]] = []
    wanted = str(shim_log.resolve())
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if any(file.path == wanted for file in process.open_files()):
                found.append((process.create_time(), process.pid))
    if not found:
        return None
    start_time, pid = min(found)  # its task, a child, may hold the file too
    return ShimRecord(pid=pid, start_time=start_time, birth_mark=posix.birth_mark(pid) or "")


def terminate(shim: ShimRecord) -> None:
    """Ask the shim's process group to end."""
    if is_alive(shim):
        posix.signal_group(shim.pid, signal.SIGTERM)


def kill(shim: ShimRecord) -> None:
    """End the shim and everything that it started, in whatever process group or session."""
    if not is_alive(shim):
        return
    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(shim.pid)
        family = [process, *process.children(recursive=True)]
    for process in family:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _start(
    argv: list[str], *, env: dict[str, str], output: Path, cwd: Path, pass_fds: tuple[int, ...] = ()
) -> subprocess.Popen[bytes]:
    try:
        return posix.launch(argv, env=env, output=output, cwd=cwd, pass_fds=pass_fds)
    except OSError as error:
        remedy = "set runtime.python to the Python of an environment with the Airflow Task SDK"
        raise CannotHost(f"{argv[0]} can't be started: {error.strerror}; {remedy}") from None


def _start_time(pid: int) -> float:
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return 0.0
