"""Measures the effect of one hostile worker and one stranger on others: their polls, and the memory of the API process.

    make bench ONLY=hostile

Starts a Postgres, one API server with the worker API, a process with four honest workers, and an attacker. There are pauses
between the attacks: the polls before and after an attack are its baseline. The last line is one JSON object: `{attack:
{"poll_ratio": …, "growth_mb": …}}`. Exits with 1 if a limit is exceeded. Takes about three minutes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx
import psutil

from bench.figures import percentile
from bench.hostile_attacks import ATTACKS
from bench.hostile_client import CERTIFICATE_HEADER, HOSTILE, MARK, POLL_EVERY_S
from testkit.servers.airflow import Airflow
from testkit.servers.postgres import PostgresServer

ROOT = Path(__file__).parent.parent
HOME = ROOT / ".work/bench-run/hostile"
OTHERS = 4
CALLS_PER_S = "40"
"""`[remote] calls_per_second`, lower than its default, so that the effect of a stolen credential on its worker shows within ten
seconds."""
ATTACK_S = 10.0
QUIET_S = 4.0
SETTLING_S = 2.0
"""The pause after an attack: its unfinished requests are not measured."""
MOST_POLL_RATIO = 2.0
MOST_GROWTH_MB = 100.0
LOOK_TIMEOUT_S = 90.0


@dataclass(frozen=True)
class Attack:
    """The effect of one attack."""

    name: str
    began: float
    ended: float
    growth_mb: float
    cpu_s: float
    log_mb: float
    answers: dict[str, int]


class Memory:
    """The resident set of the API server's processes, sampled; its highest value since the last :meth:`restart`."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._highest = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory", daemon=True)
        self._thread.start()

    def restart(self) -> float:
        """Reset the highest value to the present one; return it in MB."""
        self._highest = self._now()
        return self._highest

    @property
    def highest_mb(self) -> float:
        return max(self._highest, self._now())

    def cpu_s(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self._processes())

    def _sample(self) -> None:
        while not self._ended.wait(0.1):
            self._highest = max(self._highest, self._now())

    def _now(self) -> float:
        return sum(process.memory_info().rss for process in self._processes()) / 1e6

    def _processes(self) -> list[psutil.Process]:
        return [self._root, *self._root.children(recursive=True)]

    def close(self) -> None:
        self._ended.set()
        self._thread.join()


def main() -> int:
    shutil.rmtree(HOME, ignore_errors=True)
    with ExitStack() as stack:
        postgres = stack.enter_context(PostgresServer())
        say("starting central")
        central = _start_central(stack, postgres)
        credentials = _seed(central)
        others = stack.enter_context(_client(central, "bench.hostile_client"))
        _send_line(others, [credential for name, credential in credentials.items() if name != HOSTILE])
        attacker = stack.enter_context(_client(central, "bench.hostile_attacks", str(ATTACK_S)))
        stolen = next(credential for name, credential in credentials.items() if name != HOSTILE)
        _send_line(attacker, [credentials[HOSTILE], stolen])
        _expect(others, "ready")
        _expect(attacker, "ready")
        memory = Memory(central.process("api-server").pid)
        stack.callback(memory.close)
        quiet, attacks, look_s = _attack_with_all(central, memory, attacker)
        assert others.stdin is not None
        others.stdin.close()
        result = json.loads(_read_line(others))
    return _report(result["polls"], result["failures"], quiet, attacks, look_s)


def _start_central(stack: ExitStack, postgres: PostgresServer) -> Airflow:
    (HOME / "dags").mkdir(parents=True)
    settings = {
        "AIRFLOW__REMOTE__CLIENT_CERTIFICATE_HEADER": CERTIFICATE_HEADER,
        "AIRFLOW__REMOTE__CALLS_PER_SECOND": CALLS_PER_S,
    }
    url = postgres.create_database("airflow_hostile")
    central = Airflow(HOME / "central", database_url=url, dags=HOME / "dags", settings=settings)
    stack.callback(central.stop)
    central.cli("db", "migrate", timeout_s=180)
    central.start_api_server()
    return central


def _seed(central: Airflow) -> dict[str, str]:
    command = [sys.executable, "-m", "bench.hostile_seed", str(OTHERS)]
    environment = central.environment | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120)
    line = next((line for line in done.stdout.splitlines() if line.startswith(MARK)), None)
    if line is None:
        raise RuntimeError(f"the workers could not be enrolled:\n{done.stdout}{done.stderr}")
    credentials: dict[str, str] = json.loads(line.removeprefix(MARK))
    return credentials


@contextmanager
def _client(central: Airflow, module: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", module, "127.0.0.1", str(central.port), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


def _send_line(process: subprocess.Popen[str], content: object) -> None:
    assert process.stdin is not None
    process.stdin.write(content if isinstance(content, str) else json.dumps(content))
    process.stdin.write("\n")
    process.stdin.flush()


def _read_line(process: subprocess.Popen[str]) -> str:
    output: IO[str] | None = process.stdout
    assert output is not None
    line = output.readline()
    if not line:
        raise RuntimeError("a client of the benchmark ended early; its error is above")
    return line.strip()


def _expect(process: subprocess.Popen[str], text: str) -> None:
    line = _read_line(process)
    if line != text:
        raise RuntimeError(f"a client of the benchmark printed {line!r} instead of {text!r}")


def _attack_with_all(
    central: Airflow, memory: Memory, attacker: subprocess.Popen[str]
) -> tuple[list[tuple[float, float]], list[Attack], float]:
    """Return the quiet periods, the attacks, and the seconds that one user's view of the hostile worker's log took."""
    look_s = 0.0
    quiet: list[tuple[float, float]] = []
    attacks: list[Attack] = []
    log = central.process("api-server").log
    user = central.client()  # logged in before anything is measured
    time.sleep(SETTLING_S)
    for name in ATTACKS:
        began = time.monotonic()
        time.sleep(QUIET_S)
        quiet.append((began, time.monotonic()))
        before_mb, cpu_s, log_bytes = memory.restart(), memory.cpu_s(), log.stat().st_size
        began = time.monotonic()
        _send_line(attacker, name)
        answers = json.loads(_read_line(attacker))
        if name == "own_log":
            look_s = _view_worker_log(user)
        ended = time.monotonic()
        growth_mb, log_mb = memory.highest_mb - before_mb, (log.stat().st_size - log_bytes) / 1e6
        attacks.append(Attack(name, began, ended, growth_mb, memory.cpu_s() - cpu_s, log_mb, answers))
        say(f"{name}: {ended - began:.1f} s, {growth_mb:.0f} MB, answers {answers}")
        time.sleep(SETTLING_S)
    began = time.monotonic()
    time.sleep(QUIET_S)
    return [*quiet, (began, time.monotonic())], attacks, look_s


def _view_worker_log(user: httpx.Client) -> float:
    """Search the hostile worker's log for an absent text, read its end, download it; return the seconds that this took."""
    began = time.monotonic()
    path = f"/remote/ui/v1/workers/{HOSTILE}/log"
    answer = user.get(path, params={"contains": "absent", "most": 1000}, timeout=LOOK_TIMEOUT_S)
    answer.raise_for_status()
    user.get(path, params={"most": 1000}, timeout=LOOK_TIMEOUT_S).raise_for_status()
    user.get(f"{path}/download", timeout=LOOK_TIMEOUT_S).raise_for_status()
    return time.monotonic() - began


def _p95(polls: list[tuple[float, float]], times: list[tuple[float, float]]) -> float:
    """Return the 95th percentile of the polls that began in *times*. A slow poll also counts for the polls that it delayed."""
    seconds: list[float] = []
    for began, took in polls:
        if any(first <= began < last for first, last in times):
            seconds.append(took)
            seconds += [took - missed * POLL_EVERY_S for missed in range(1, int(took / POLL_EVERY_S) + 1)]
    return percentile(seconds, 95)


def _report(
    polls: list[tuple[float, float]],
    failures: list[str],
    quiet: list[tuple[float, float]],
    attacks: list[Attack],
    look_s: float,
) -> int:
    print(f"\nothers' polls: baseline p95 {_p95(polls, quiet) * 1000:.1f} ms; {len(failures)} refused or failed in all")
    for failure in dict.fromkeys(failures[:20]):
        print(f"  {failure}")
    print(f"one user's view of the hostile worker's log: {look_s:.2f} s\n")
    print(f"{'attack':<22} {'quiet p95':>10} {'attacked':>10} {'ratio':>7} {'growth':>9} {'CPU':>7} {'log':>9}  answers")
    exceeded: list[str] = []
    result: dict[str, dict[str, float]] = {}
    for number, attack in enumerate(attacks):
        # The quiet periods before and after: other load on the computer affects both.
        quiet_p95, p95 = _p95(polls, quiet[number : number + 2]), _p95(polls, [(attack.began, attack.ended)])
        ratio = p95 / quiet_p95
        print(
            f"{attack.name:<22} {quiet_p95 * 1000:>7.0f} ms {p95 * 1000:>7.0f} ms {ratio:>7.2f} {attack.growth_mb:>6.0f} MB "
            f"{attack.cpu_s:>5.1f} s {attack.log_mb:>6.2f} MB  {attack.answers}"
        )
        result[attack.name] = {"poll_ratio": round(ratio, 2), "growth_mb": round(attack.growth_mb, 1)}
        if ratio > MOST_POLL_RATIO:
            exceeded.append(f"{attack.name}: others' polls take {ratio:.2f} times as long; the limit is {MOST_POLL_RATIO:g}")
        if attack.growth_mb > MOST_GROWTH_MB:
            exceeded.append(f"{attack.name}: the API process grew by {attack.growth_mb:.0f} MB; the limit is {MOST_GROWTH_MB:g}")
    for text in exceeded:
        print(f"LIMIT EXCEEDED: {text}")
    print(json.dumps(result), flush=True)
    return 1 if exceeded else 0


def say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
