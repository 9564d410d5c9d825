"""Measures the largest bundles that the limits allow, and shows that larger ones are refused.

    make bench ONLY=largest

Starts a Postgres, one Airflow with all its processes, and a worker for each of two bundles: 20,000 files, and 512 MiB of noise.
The last line is one JSON object. Takes about five minutes and 4 GB of disk.

| figure, for `files` and `bytes` | meaning |
|---|---|
| `…_publish_s`, `…_publish_cpu_s`, `…_publish_mb` | the first `airflow remote publish`: time, CPU, most memory (RSS) |
| `…_again_s` | the same command again |
| `…_start_s` | from the first task's offer to its start, on a worker without any file |
| `…_wire_mb` | bytes of the answers with code |
| `…_daemon_mb`, `…_daemon_before_mb` | the most memory (RSS) of the worker's daemon meanwhile, and what it used before |
| `…_api_server_mb`, `…_api_server_before_mb` | the same of the API server |
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import psutil

from testkit.bundles import LOCAL
from testkit.network.fault_proxy import FaultProxy
from testkit.servers.airflow import Airflow
from testkit.servers.postgres import PostgresServer
from testkit.worker import Worker

ROOT = Path(__file__).parent.parent
HOME = ROOT / ".work/bench-run/largest"
FILES, BYTES = 20_000, 512 << 20
"""The default of `[remote] tree_files` and `tree_bytes`."""
PARTS = 16
"""Files of the bundle of 512 MiB."""
DAG = """
from airflow.sdk import dag, task

@dag(dag_id="largest_{name}", schedule=None)
def largest():
    @task(executor="RemoteExecutor", queue="{name}")
    def noop():
        pass

    noop()

largest()
"""


def main() -> int:
    shutil.rmtree(HOME, ignore_errors=True)
    bundles = {"files": make_many(HOME / "files"), "bytes": make_large(HOME / "bytes")}
    config = [{"name": name, "classpath": LOCAL, "kwargs": {"path": str(path)}} for name, path in bundles.items()]
    figures: dict[str, float] = {}
    with ExitStack() as stack:
        postgres = stack.enter_context(PostgresServer())
        central = Airflow(
            HOME / "central",
            database_url=postgres.create_database("bench_largest"),
            dags=HOME / "files",
            settings={
                "AIRFLOW__REMOTE__PUBLISH": "off",
                "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(config),
            },
        )
        stack.callback(central.stop)
        central.start()
        proxy = stack.enter_context(FaultProxy(central.url))
        for name, path in bundles.items():
            print(f"the bundle {name}", flush=True)
            figures |= {f"{name}_{what}": value for what, value in measure(central, proxy, name).items()}
            refuse(central, name, path)
    for name, value in figures.items():
        print(f"  {name:<24} {value:.1f}")
    print(json.dumps({name: round(value, 1) for name, value in figures.items()}))
    return 0


def make_many(path: Path) -> Path:
    """Write a bundle with as many files as are allowed."""
    make(path, "files")
    for number in range(FILES - 2):
        directory = path / f"library/part_{number % 100:02}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"module_{number:05}.py").write_text(f"NUMBER = {number}\n" * 20)
    return path


def make_large(path: Path) -> Path:
    """Write a bundle with as many bytes as are allowed."""
    make(path, "bytes")
    left = BYTES - sum(file.stat().st_size for file in path.iterdir())
    (path / "library").mkdir()
    for number in reversed(range(PARTS)):
        size = left // (number + 1)
        (path / f"library/data_{number:02}.bin").write_bytes(os.urandom(size))
        left -= size
    return path


def make(path: Path, name: str) -> None:
    path.mkdir(parents=True)
    (path / ".airflowignore").write_text("library\n")
    (path / "largest.py").write_text(DAG.format(name=name))


def measure(central: Airflow, proxy: FaultProxy, name: str) -> dict[str, float]:
    figures: dict[str, float] = {}
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    figures["publish_mb"] = publish(central, name)
    figures["publish_s"] = time.monotonic() - began
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    figures["publish_cpu_s"] = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    began = time.monotonic()
    publish(central, name)
    figures["again_s"] = time.monotonic() - began

    token = central.enrolment_token(queues=name, name_pattern=name)
    worker = Worker(HOME / f"worker-{name}", name=name, central=proxy.url, token=token).start()
    try:
        server = psutil.Process(central.process("api-server").pid)
        processes = {"daemon": [psutil.Process(worker.pid)], "api_server": [server, *server.children(recursive=True)]}
        for what, some in processes.items():
            figures[f"{what}_before_mb"] = forget_most(some)
        before = received(proxy)
        run = central.trigger(f"largest_{name}")
        if central.wait_for_run(f"largest_{name}", run, timeout_s=300) != "success":
            raise RuntimeError(central.task_log(f"largest_{name}", run, "noop"))
        (job,) = central.jobs(run)
        figures["start_s"] = (moment(job["accepted_at"]) - moment(job["offered_at"])).total_seconds()
        figures["wire_mb"] = (received(proxy) - before) / 1e6
        for what, some in processes.items():
            figures[f"{what}_mb"] = most_mb(some)
    finally:
        worker.stop()
    return figures


def publish(central: Airflow, name: str) -> float:
    """Publish a bundle by the command; return the most memory that it used, in MB."""
    command = ["/usr/bin/env", "airflow", "remote", "publish", name]
    process = subprocess.Popen(command, env=central.environment, cwd=central.home, stdout=sys.stderr)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"publishing {name} failed")
    return used.ru_maxrss / 1000


def refuse(central: Airflow, name: str, path: Path) -> None:
    """Add a file that is one too many, and print how the publisher refuses it."""
    more = path / "one_more"
    more.write_bytes(b"1")
    try:
        central.cli("remote", "publish", name, timeout_s=300)
    except RuntimeError as error:
        (line,) = [line for line in str(error).splitlines() if "not published" in line]
        print(f"  {line}", flush=True)
        assert f"[remote] tree_{name}" in line
        assert ".remoteignore" in line
    else:
        raise AssertionError(f"{name}: it was published, although it is larger than the limit")
    finally:
        more.unlink()


def received(proxy: FaultProxy) -> int:
    return sum(sum(exchange.reply_bytes) for exchange in list(proxy.exchanges) if "/trees/" in exchange.path)


def forget_most(processes: list[psutil.Process]) -> float:
    """Begin to count the most memory of processes again; return what the largest uses now, in MB."""
    for process in processes:
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")
    return most_mb(processes)


def most_mb(processes: list[psutil.Process]) -> float:
    """Return the most memory that the largest of these processes used, in MB. Linux counts it."""
    found = []
    for process in processes:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        found += [int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM")]
    return max(found)


def moment(value: object) -> datetime:
    return value if isinstance(value, datetime) else datetime.fromisoformat(str(value))


if __name__ == "__main__":
    sys.exit(main())
