"""The daemon's side of the zygote, a process with Airflow preloaded that forks a shim for each job."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
from pathlib import Path

import anyio

from airflow_remote_worker import system
from airflow_remote_worker.jobs.process import CannotHost, StartUncertain, keep_child, start, wait_for_exit
from airflow_remote_worker.local import frames
from airflow_remote_worker.state.spool import ShimRecord
from airflow_remote_worker.system import sockets

log = logging.getLogger(__name__)


READY_TIMEOUT_S = 180.0
"""Importing Airflow takes 1.3 s on an idle desktop (measured), and far longer on a small board without bytecode."""


SPAWN_TIMEOUT_S = 60.0


class ZygoteDied(CannotHost):
    """The zygote ended without an explanation; another attempt may succeed."""


class Zygote:
    """One zygote process and the control socket that keeps it alive."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket, output: Path) -> None:
        self.pid = process.pid
        self.has_ended = False
        self._process = process
        self._control: socket.socket | None = control
        self._output = output
        self._ready: frames.Ready | None = None
        self._unable: str | None = None
        self._speaking = anyio.Lock()

    @classmethod
    def start(cls, python: Path, *, launcher: Path, env: dict[str, str], home: Path, output: Path) -> Zygote:
        ours, theirs = sockets.pair()
        try:
            fd = theirs.fileno()
            argv = [str(python), str(launcher), "zygote", "--control-fd", str(fd)]
            output.unlink(missing_ok=True)
            process = start(argv, env=env, output=output, cwd=home, pass_fds=(fd,))
        except BaseException:  # no zygote is returned that would close it
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        return cls(process, ours, output)

    async def ready(self) -> frames.Ready:
        """Wait until it is preloaded.

        Raises:
            CannotHost: it reports that the runtime can't host tasks.
            ZygoteDied: it ended.
        """
        async with self._speaking:
            if self._ready is None and self._unable is None:
                frame = await self._receive(READY_TIMEOUT_S)
                if isinstance(frame, frames.Unable):
                    self._unable = frame.reason
                elif isinstance(frame, frames.Ready):
                    self._ready = frame
                else:
                    self.close()
                    raise ZygoteDied(f"the zygote of {self._process.args!r} ended without an explanation; see {self._output}")
            if self._unable is not None:
                raise CannotHost(f"the runtime can't host tasks: {self._unable}")
            assert self._ready is not None
            return self._ready

    async def spawn(self, job_dir: Path) -> frames.Spawned:
        """Fork a shim for *job_dir*.

        Raises:
            CannotHost: the fork failed; nothing was started.
            StartUncertain: the zygote ended before it answered.
        """
        # One at a time: a fork takes a few ms, and an answer then always belongs to the last request.
        async with self._speaking:
            if self._control is None:
                raise ZygoteDied("the zygote has just ended")
            finished = False
            try:
                await asyncio.get_running_loop().sock_sendall(self._control, frames.pack(frames.Spawn(job_dir=str(job_dir))))
                frame = await self._receive(SPAWN_TIMEOUT_S)
                finished = isinstance(frame, frames.Spawned | frames.Unable)
            except OSError as error:
                raise StartUncertain(f"the zygote ended while it was asked to start the job: {error}") from None
            finally:
                if not finished:
                    self.close()  # cancelled, silent or ended: a late answer would be taken for the answer to another request
            if isinstance(frame, frames.Spawned):
                return frame
            if isinstance(frame, frames.Unable):
                raise CannotHost(f"the runtime could not fork a shim: {frame.reason}")
            raise StartUncertain("the zygote ended while it started the job")

    def close(self) -> None:
        """Close the control socket, upon which the zygote exits. Its shims live on."""
        if self._control:
            self._control.close()
            self._control = None
        keep_child(self._process)
        self.has_ended = True

    async def retire(self) -> None:
        """Close it once it has answered the pending request."""
        async with self._speaking:
            self.close()

    async def watch(self) -> None:
        """Return when the process has ended."""
        await wait_for_exit(ShimRecord(self.pid, 0.0, system.birth_mark(self.pid) or ""))
        self.close()

    async def _receive(self, timeout_s: float) -> frames.Frame | None:
        """Return the next frame; None if the zygote ended, was silent for too long, or sent an invalid frame."""
        with anyio.move_on_after(timeout_s):
            prefix = await self._receive_exactly(frames.LENGTH.size)
            if prefix is None:
                return None
            try:
                body = await self._receive_exactly(frames.check_length(prefix))
                return None if body is None else frames.unpack(body)
            except frames.BrokenFrame as error:
                log.warning("the zygote sent an invalid frame: %s", error)
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
