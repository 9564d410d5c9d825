"""A runtime without Airflow: uses the frames of `local/frames.py` and executes the lines of the "Dag" file.

run                 the `run` call, through the gateway; exits 1 unless it is answered with 200
call METHOD PATH    any other call
write METHOD PATH   a call without a needed answer: goes to the outbox if central or the daemon can't be reached
log TEXT            a line into task.log
env NAME            a line with an environment variable and the interpreter
bytes N             N bytes into task.log
sleep SECONDS       unless a stop comes: then the job ends as stopped
await FILE          sleep until the file exists
deaf SECONDS        sleep and ignore stops
stray SECONDS       leave a process behind in its own session
die                 exit without a result
exit CODE           the end, with that code (0 if the file just ends)
unborn CODE         as exit, before the task's own code has begun
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psutil
from airflow_remote_worker.local import frames, job_files
from airflow_remote_worker.shim.outbox_writer import OutboxWriter


class Stopped(Exception):
    pass


class Daemon:
    """A shim's client of the gateway. Reconnects when necessary."""

    def __init__(self, job: job_files.JobSpec) -> None:
        self.job = job
        self.sock: socket.socket | None = None

    def connect(self) -> socket.socket:
        while self.sock is None:
            if not self.try_to_connect():
                time.sleep(0.05)
        return self.sock

    def try_to_connect(self) -> bool:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(self.job.socket_path)
            sock.sendall(frames.pack(frames.Hello(job_id=self.job.job_id, key=self.job.key, pid=os.getpid())))
        except OSError:
            sock.close()
            return False
        self.sock = sock
        return True

    def call(self, method: str, path: str, body: bytes = b"") -> frames.Answer:
        while True:
            try:
                headers = {"content-type": "application/json"}
                self.connect().sendall(frames.pack(frames.Call(id=1, method=method, path=path, headers=headers, body=body)))
                while True:
                    frame = frames.receive(self.connect())
                    if frame is None:
                        raise OSError
                    if isinstance(frame, frames.Answer):
                        return frame
                    raise Stopped
            except OSError:
                self.sock = None

    def write(self, outbox: OutboxWriter, method: str, path: str, body: bytes) -> str:
        headers = {"content-type": "application/json"}
        call = frames.Call(id=1, method=method, path=path, headers=headers, body=body, may_spool=True)
        if not outbox.waits:
            try:
                if self.sock is not None or self.try_to_connect():
                    self.connect().sendall(frames.pack(call))
                    frame = frames.receive(self.connect())
                    if isinstance(frame, frames.Stop):
                        raise Stopped
                    if isinstance(frame, frames.Answer):
                        return f"{frame.status} {frame.body.decode()}"
            except OSError:
                self.sock = None
        outbox.append(call)
        if self.sock is not None:
            self.sock.sendall(frames.pack(frames.Spooled()))
        return "spooled"

    def sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self.sock is None and not self.try_to_connect():
                time.sleep(min(left, 0.05))
                continue
            ready, _, _ = select.select([self.sock], [], [], min(left, 0.2))
            if ready:
                try:
                    frame = frames.receive(self.connect())
                except OSError:
                    frame = None
                if frame is None:
                    self.sock = None
                elif isinstance(frame, frames.Stop):
                    raise Stopped


def canary(directory: Path) -> int:
    trouble = Path(broken).read_text() if (broken := os.environ.get("FAKE_CANARY")) and Path(broken).exists() else ""
    found = job_files.CanaryResult(
        trouble=trouble, airflow="3.3.0", task_sdk="1.3.0", python="3.11.0", watched=[broken or "/nowhere"]
    )
    (directory / "result.json").write_bytes(msgspec.json.encode(found))
    return 0


def host(job_dir: Path) -> int:
    if (job_dir / job_files.CANARY_SPEC).exists():
        return canary(job_dir)
    job = msgspec.json.decode((job_dir / "job.json").read_bytes(), type=job_files.JobSpec)
    workload = json.loads(bytes(job.workload))
    daemon, code, stopped, begun = Daemon(job), 0, False, True
    with (job_dir / "task.log").open("ab", buffering=0) as log:
        try:
            for line in (Path(job.bundle_path) / workload["dag_rel_path"]).read_text().splitlines():
                verb, _, rest = line.strip().partition(" ")
                if verb == "run":
                    body = {"state": "running", "hostname": job.worker_name, "unixname": "x", "pid": os.getpid()}
                    body["start_date"] = "2026-01-01T00:00:00Z"
                    answer = daemon.call("PATCH", f"task-instances/{workload['ti']['id']}/run", json.dumps(body).encode())
                    if answer.status != 200:
                        code = 1
                        break
                elif verb == "call":
                    method, path = rest.split(" ", 1)
                    answer = daemon.call(method, path)
                    log.write(f"{answer.status} {answer.body.decode()}\n".encode())
                elif verb == "write":
                    method, path, *content = rest.split(" ", 2)
                    path = path.replace("TI", workload["ti"]["id"])
                    said = daemon.write(OutboxWriter(job_dir), method, path, "".join(content).encode())
                    log.write(f"{said}\n".encode())
                elif verb == "log":
                    log.write(json.dumps({"event": rest}).encode() + b"\n")
                elif verb == "env":
                    line = {"event": f"{rest}={os.environ.get(rest, '')}", "python": sys.executable}
                    log.write(json.dumps(line).encode() + b"\n")
                elif verb == "bytes":
                    log.write(os.urandom(int(rest)))
                elif verb == "sleep":
                    daemon.sleep(float(rest))
                elif verb == "await":
                    while not Path(rest).exists():
                        daemon.sleep(0.05)
                elif verb == "deaf":
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)
                    time.sleep(float(rest))
                elif verb == "stray":
                    left = subprocess.Popen(
                        ["sleep", rest], start_new_session=True, env={job_files.JOB_MARK: job_dir.name, **os.environ}
                    )
                    log.write(json.dumps({"event": f"left {left.pid}"}).encode() + b"\n")
                elif verb == "die":
                    os._exit(9)
                elif verb in ("exit", "unborn"):
                    code, begun = int(rest), verb == "exit"
                    break
        except Stopped:
            code, stopped = 1, True
    result = job_files.Result(exit_code=code, final_state="failed" if code else "success", stopped=stopped, begun=begun)
    temporary = job_dir / ".result"
    temporary.write_bytes(msgspec.json.encode(result))
    temporary.replace(job_dir / "result.json")
    return 0


def zygote(fd: int) -> int:
    control = socket.socket(fileno=fd)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    if reason := os.environ.get("FAKE_UNABLE"):
        control.sendall(frames.pack(frames.Unable(reason=reason)))
        return 1
    if os.environ.get("FAKE_CRASH"):
        return 9
    control.sendall(frames.pack(frames.Ready(pid=os.getpid(), python=sys.executable, airflow="0.fake")))
    while (order := frames.receive(control)) is not None:
        assert isinstance(order, frames.Spawn)
        pid = os.fork()
        if pid == 0:
            control.close()
            os.setsid()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            log = os.open(Path(order.job_dir) / "shim.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os._exit(host(Path(order.job_dir)))
        if os.environ.get("FAKE_CRASH_IN_FORK") and not (Path(order.job_dir) / job_files.CANARY_SPEC).exists():
            return 9
        try:
            started = psutil.Process(pid).create_time()
        except psutil.NoSuchProcess:  # it was quick, and SIGCHLD is ignored
            started = 0.0
        control.sendall(frames.pack(frames.Spawned(job_dir=order.job_dir, pid=pid, start_time=started)))
    return 0


if __name__ == "__main__":
    if sys.argv[1] == "zygote":
        sys.exit(zygote(int(sys.argv[3])))
    sys.exit(host(Path(sys.argv[2])))
