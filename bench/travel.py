"""Measures how Dag code, releases and runtimes travel: bytes, requests, time, on a fast line and on one of 1 Mbit/s and 600 ms.

    make bench ONLY=travel
    make bench ONLY=travel ARGS="--parts runtimes"

Starts a Postgres, one Airflow with all its processes, and workers behind a proxy that slows traffic down and counts its bytes.
The bundle has 2,000 modules (17 MB) and a Dag. The last line is one JSON object. Takes about fifteen minutes.

| figure | meaning |
|---|---|
| `publish_cold_2000_s` | publish all files, of which central has none |
| `publish_unchanged_s`, `publish_one_changed_s` | scan and publish again, nothing or one file changed |
| `bundle_cold_2000_s` | from the first task's offer to its start, on a worker without any file |
| `bundle_cold_2000_slow_s` | the same on the slow line |
| `bundle_cold_2000_mb` | bytes on the wire for it |
| `bundle_one_changed_bytes_ratio` | bytes on the wire for one changed file ÷ its bytes |
| `bundle_one_changed_round_trips` | requests for it |
| `bundle_one_changed_slow_s` | from the offer to the start, on the slow line, less the same for unchanged code |
| `bundle_warm_requests` | requests for code when a task starts whose code is here |
| `bundle_warm_ms` | the check of 2,000 files that are here (at most once a minute) |
| `start_pushed_ms`, `start_placed_ms` | from the offer to the start of a no-op task, with code of central or of the site |
| `runtime_build_s` | build the default runtime for one platform, store and publish it |
| `runtime_ready_s` | from the start of a worker without a runtime until its runtime has passed the canary |
| `runtime_cold_mb`, `runtime_patch_mb` | bytes on the wire for it, and for the next patch of Airflow |
| `release_gap_s` | how long a worker takes no jobs while it changes to another release of itself |
| `empty_machine_to_first_task_s_at_…_mbit_s` | from `join` to the first task's end, without runtime and Dag files, by line |
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
from collections.abc import Collection
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

from bench import travel_releases, travel_runtimes
from testkit.network.fault_proxy import FaultProxy
from testkit.servers.airflow import Airflow
from testkit.servers.postgres import PostgresServer
from testkit.versions import WORK
from testkit.worker import Worker

ROOT = Path(__file__).parent.parent
HOME = ROOT / ".work/bench-run/travel"
MODULES = 2000
MODULE_BYTES = 8500
PACK = r"/trees/[0-9a-f]{64}/"
SLOW = {"latency_s": 0.3, "bytes_per_s": 125_000}
"""In each direction: 600 ms for a round trip, 1 Mbit/s."""
PARTS = ("code", "releases", "runtimes")
RUNS = 12
"""No-op tasks for each of the two ways."""
CHECK = """
import json, statistics, sys, time
from pathlib import Path
from airflow_remote_worker.code.trees import TreeStore
store = TreeStore(Path(sys.argv[1]))
digest = store.held()[0].digest
def check():
    begin = time.perf_counter()
    tree = store.load(digest)
    assert tree is not None and not store.check(tree)
    store.note_use(digest)
    return time.perf_counter() - begin
check()
print(json.dumps(min(check() for _ in range(10))))
"""


class Bench:
    """Central, and the directory of its bundle."""

    def __init__(self, stack: ExitStack) -> None:
        self.home = HOME
        self.dags = HOME / "dags"
        shutil.copytree(ROOT / "bench/dags_travel", self.dags, ignore=shutil.ignore_patterns("__pycache__"))
        (self.dags / ".airflowignore").write_text("library\n")
        (self.dags / "library").mkdir()
        for number in range(MODULES):
            (self.dags / f"library/module_{number:04}.py").write_text(module(number))
        postgres = stack.enter_context(PostgresServer())
        self.central = Airflow(
            HOME / "central",
            database_url=postgres.create_database("bench_travel"),
            dags=self.dags,
            settings={"AIRFLOW__REMOTE__PUBLISH": "off", "AIRFLOW__REMOTE__RUNTIMES": "off", "PYTHONPATH": str(ROOT)},
        )
        stack.callback(self.central.stop)
        self.central.start()
        self.proxy = stack.enter_context(FaultProxy(self.central.url))
        self._stack = stack

    def add_worker(
        self,
        name: str,
        *,
        queue: str,
        bundles: dict[str, Path] | None = None,
        has_runtime: bool = True,
        starts: bool = True,
    ) -> Worker:
        token = self.central.enrolment_token(queues=queue, name_pattern=name)
        worker = Worker(HOME / name, name=name, central=self.proxy.url, token=token, bundles=bundles, has_runtime=has_runtime)
        self._stack.callback(worker.stop)
        return worker.start() if starts else worker

    def change_one(self, number: int) -> int:
        """Replace a module by another text; return its bytes."""
        text = module(number, seed=random.randrange(1 << 30))
        (self.dags / f"library/module_{number:04}.py").write_text(text)
        return len(text)

    def start_s(self, queue: str, *, timeout_s: float = 180) -> float:
        """Run a no-op task; return the seconds from its offer to its start."""
        run = self.central.trigger(f"travel_{queue}")
        assert self.central.wait_for_run(f"travel_{queue}", run, timeout_s=timeout_s) == "success"
        (job,) = self.central.jobs(run)
        offered, accepted = (_moment(job[name]) for name in ("offered_at", "accepted_at"))
        return (accepted - offered).total_seconds()

    def traffic(self) -> tuple[int, int]:
        """Return the number of requests for code so far, and the bytes of their answers."""
        seen = [exchange for exchange in list(self.proxy.exchanges) if "/trees/" in exchange.path]
        return len(seen), sum(sum(exchange.reply_bytes) for exchange in seen)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="make bench ONLY=travel",
        description="Measures how code, releases and runtimes travel.",
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="measure only these (all)")
    options = parser.parse_args()
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir(parents=True)
    with ExitStack() as stack:
        say("starting central")
        bench = Bench(stack)
        figures = measure(bench, options.parts)
    for name, value in figures.items():
        print(f"  {name:<34} {value}")
    print(json.dumps(figures))
    return 0


def measure(bench: Bench, parts: Collection[str]) -> dict[str, float]:
    figures: dict[str, float] = {}
    say("publishing")
    with Publisher(bench) as publisher:
        figures["publish_cold_2000_s"] = publisher.publish()
        figures["publish_unchanged_s"] = min(publisher.publish() for _ in range(5))
        if "code" in parts:
            figures |= measure_code(bench, publisher)
    for name, part in (("releases", travel_releases), ("runtimes", travel_runtimes)):
        if name in parts:
            say(name)
            figures |= part.measure(bench)
    return {name: round(value, 3) for name, value in figures.items()}


def measure_code(bench: Bench, publisher: Publisher) -> dict[str, float]:
    figures: dict[str, float] = {}
    say("a worker without any file")
    worker = bench.add_worker("cold", queue="pushed")
    figures["bundle_cold_2000_s"] = bench.start_s("pushed")
    figures["bundle_cold_2000_mb"] = bench.traffic()[1] / 1e6
    before = bench.traffic()[0]
    bench.start_s("pushed")
    figures["bundle_warm_requests"] = bench.traffic()[0] - before
    check = [WORK / "worker/bin/python", "-I", "-c", CHECK, worker.state / "code/trees"]
    figures["bundle_warm_ms"] = float(subprocess.check_output(check, text=True)) * 1000

    say("one changed file")
    size = bench.change_one(1)
    figures["publish_one_changed_s"] = publisher.publish()
    requests, received = bench.traffic()
    bench.start_s("pushed")
    figures["bundle_one_changed_bytes_ratio"] = (bench.traffic()[1] - received) / size
    figures["bundle_one_changed_round_trips"] = bench.traffic()[0] - requests

    say("no-op tasks, whose code came from central or is the site's")
    bench.add_worker("placed", queue="placed", bundles={"dags-folder": bench.dags})
    starts: dict[str, list[float]] = {"pushed": [], "placed": []}
    for _ in range(RUNS):
        for queue in starts:
            starts[queue].append(bench.start_s(queue))
    for queue, values in starts.items():
        figures[f"start_{queue}_ms"] = statistics.median(values) * 1000

    say("a line of 1 Mbit/s and 600 ms")
    bench.proxy.slow(**SLOW)
    unchanged = statistics.median(bench.start_s("pushed") for _ in range(3))
    bench.change_one(2)
    publisher.publish()
    figures["bundle_one_changed_slow_s"] = bench.start_s("pushed") - unchanged
    worker.stop()
    bench.proxy.heal()
    bench.add_worker("slow", queue="pushed")
    bench.proxy.slow(**SLOW)
    figures["bundle_cold_2000_slow_s"] = bench.start_s("pushed")
    bench.proxy.heal()
    return figures


class Publisher:
    """A process that publishes on command, as `airflow remote publish --watch` does by itself."""

    def __init__(self, bench: Bench) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.travel_publisher"],
            env=bench.central.environment,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._read()

    def publish(self) -> float:
        """Publish the bundle; return the seconds that it took."""
        assert self._process.stdin is not None
        self._process.stdin.write("publish\n")
        self._process.stdin.flush()
        return float(self._read())

    def _read(self) -> Any:
        """Return the next answer of the process; other lines are Airflow's."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("answer "):
                return json.loads(line.removeprefix("answer "))
        raise RuntimeError(f"the publisher ended with {self._process.wait(10)}")

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def module(number: int, *, seed: int = 0) -> str:
    """Return the text of a module that packs about as well as a Dag file."""
    words = random.Random(number * 7919 + seed)
    lines = [f'"""Module {number}."""', "", "from __future__ import annotations", ""]
    size = 0
    while size < MODULE_BYTES:
        name = f"step_{words.randrange(10_000)}"
        line = (
            f"def {name}(value: int) -> int:\n    return value * {words.randrange(1000)} + {words.randrange(1000)}  # {name}\n\n"
        )
        lines.append(line)
        size += len(line)
    return "\n".join(lines)


def _moment(value: Any) -> datetime:
    return value if isinstance(value, datetime) else datetime.fromisoformat(str(value))


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
