"""A preloaded process that forks a shim for each job: 47 ms to the task's first line instead of 1.3 s, with shared memory.

Single-threaded, because it forks. Never imports a Dag, so that one job's code can't affect the next job. It ends with its daemon
(end of file on the control socket); its shims live on.
"""

from __future__ import annotations

import gc
import importlib.metadata
import os
import selectors
import signal
import socket
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped,unused-ignore]

from airflow_remote_worker.local import frames
from airflow_remote_worker.shim import host, posix
from airflow_remote_worker.shim.explain import explain_import_error
from airflow_remote_worker.shim.preload import import_operators, preload, warm


def main(control_fd: int) -> int:
    """Preload, then fork on demand until the daemon closes the control socket; return the exit code."""
    with socket.socket(fileno=control_fd) as control:
        control.set_inheritable(False)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the daemon's terminal: the daemon reacts to it
        try:
            preload()
            import_operators()
            warm()
        except ImportError as error:
            return _give_up(control, explain_import_error(error))
        except Exception as error:
            traceback.print_exc()
            return _give_up(control, f"the runtime {sys.executable} can't host tasks: {type(error).__name__}: {error}")
        if threading.active_count() > 1:
            names = ", ".join(thread.name for thread in threading.enumerate())
            print(f"zygote: more than one thread before forking ({names}): a plugin started it; tasks may hang", file=sys.stderr)
        # Permanent objects need no further garbage collection, which would copy their pages into each shim.
        gc.collect()
        gc.freeze()
        version = importlib.metadata.version("apache-airflow-task-sdk")
        control.sendall(frames.pack(frames.Ready(pid=os.getpid(), python=sys.executable, airflow=version)))
        Zygote(control).serve()
    return 0


def _give_up(control: socket.socket, reason: str) -> int:
    control.sendall(frames.pack(frames.Unable(reason=reason)))
    return 1


class Zygote:
    """The loop: receives spawn orders on *control* and the exits of shims as SIGCHLD."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._selector = selectors.DefaultSelector()
        self._wakeup, self._wakeup_sender = socket.socketpair()
        for end in (self._wakeup, self._wakeup_sender):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wakeup_sender.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)

    def serve(self) -> None:
        """Serve orders until the daemon closes *control*."""
        with self._selector:
            self._selector.register(self._control, selectors.EVENT_READ)
            self._selector.register(self._wakeup, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in self._selector.select()}
                if self._wakeup in ready:
                    self._reap()
                if self._control in ready and not self._execute_order():
                    return

    def _execute_order(self) -> bool:
        """Execute one order; return False if the daemon has closed the connection."""
        try:
            order = frames.receive(self._control)
            if order is None:
                return False
            if isinstance(order, frames.Spawn):
                self._control.sendall(frames.pack(self._spawn(order.job_dir)))
        except (OSError, frames.BrokenFrame) as error:
            print(f"zygote: lost the daemon: {error}", file=sys.stderr)
            return False
        return True

    def _spawn(self, job_dir: str) -> frames.Spawned | frames.Unable:
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            pid = os.fork()
        except OSError as error:
            return frames.Unable(reason=f"can't fork: {error}", job_dir=job_dir)
        if pid == 0:
            self._become_shim(Path(job_dir))
        # The child can't have been reaped yet: only _reap() does that, in this thread.
        return frames.Spawned(job_dir=job_dir, pid=pid, start_time=psutil.Process(pid).create_time())

    def _become_shim(self, job_dir: Path) -> None:
        """Host the job in the forked child, and exit without returning into the zygote's loop."""
        code = 1
        try:
            self._control.close()
            posix.detach(job_dir)
            self._wakeup.close()
            self._wakeup_sender.close()
            self._selector.close()  # a process that keeps it could change the zygote's own selector
            code = host.run(job_dir)
        except BaseException:
            traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):  # the disk of shim.log is full; the result is stored already
                    stream.flush()
            os._exit(code)

    def _reap(self) -> None:
        with suppress(BlockingIOError):
            while self._wakeup.recv(4096):
                pass
        with suppress(ChildProcessError):  # no shim is left
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
