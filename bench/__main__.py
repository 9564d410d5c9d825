"""Measures, in one run: the executors in comparison, memory, kills, idle fleets, the reconnection of a fleet.

Prints tables and, as the last line, the headline as JSON.

Only ratios from one run are meaningful: computers and their other load differ.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.cold_start import measure_cold_start
from bench.deployment import ROOT, Deployment
from bench.figures import Figure
from bench.fleet import measure_fleets
from bench.footprint import idle_figures, installed_figures
from bench.holding import hold, kill_figures, measure_idle_memory, measure_kills, measure_memory_per_task, measure_requests
from bench.peers import CELERY, EDGE, LOCAL, OURS, Peer
from bench.report import headline_of, print_table, write_results
from bench.workloads import measure_rounds, warm_up
from testkit.servers.postgres import PostgresServer

HOME = ROOT / ".work/bench-run"
PARTS = ("rounds", "holding", "fleet", "cold", "edge")
COLD_FLEET = 2000
QUICK_ROUNDS_UNTIL_S = 210.0
"""A quick run starts no round later than this: the rest takes two and a half minutes, the whole run less than eight."""
WINDOW_S = 60.0
"""Contains at least one whole poll (50 s) of every worker."""
REQUESTS_WINDOW_S = 60.0
IDLE_AFTER_S = 5.0
"""The wait after the last task: its processes have ended."""
PEERS_REQUESTS_WINDOW_S = 30.0
"""The peers poll every five seconds; the full run must end within 25 minutes."""
PEERS_KILLS = 8
STATISTICS = {"shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.track": "top"}


def main() -> int:
    options = parse()
    _raise_file_limit()
    begin = time.monotonic()
    phases: dict[str, list[Figure]] = {}
    details: dict[str, object] = {}
    with PostgresServer(STATISTICS) as postgres:
        if set(options.only) - {"edge"}:
            _measure_main(options, postgres, begin, phases, details)
        if "edge" in options.only:
            _measure_edge(options, postgres, phases)
    for phase, figures in phases.items():
        print_table(phase, figures)
    target = write_results(phases, details, options=vars(options))
    say(f"written to {target.relative_to(ROOT)}; {time.monotonic() - begin:.0f} s in all")
    print(json.dumps(headline_of(phases)))
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under 8 minutes: LocalExecutor and CeleryExecutor only, one fleet")
    parser.add_argument("--rounds", type=int, help="rounds of the workloads (4; quick: 3)")
    parser.add_argument("--kills", type=int, help="kills of our tasks, at most 16 (16; peers: 8; quick: 8)")
    parser.add_argument(
        "--fleets",
        type=lambda text: [int(n) for n in text.split(",")],
        help="sizes of the idle fleets (50,500,1000,3000; quick: 1000)",
    )
    parser.add_argument("--only", type=lambda text: text.split(","), help=f"measure only these parts: some of {','.join(PARTS)}")
    options = parser.parse_args()
    quick = options.quick
    options.rounds = options.rounds or (3 if quick else 4)
    options.kills = min(16, options.kills or (8 if quick else 16))
    options.fleets = options.fleets or ([1000] if quick else [50, 500, 1000, 3000])
    options.only = options.only or [part for part in PARTS if not (quick and part == "edge")]
    if "hostile" in options.only:
        parser.error("the hostile part is a separate program: python -m bench.hostile")
    if unknown := set(options.only) - set(PARTS):
        parser.error(f"--only: unknown parts: {', '.join(sorted(unknown))}; the parts are {', '.join(PARTS)}")
    return options


def _measure_main(
    options: argparse.Namespace,
    postgres: PostgresServer,
    begin: float,
    phases: dict[str, list[Figure]],
    details: dict[str, object],
) -> None:
    say("starting central, a Remote Worker, a Celery worker")
    with _running(Deployment(HOME / "main", postgres, [LOCAL, CELERY, OURS])) as deployment:
        say("warming up")
        warm_up(deployment)
        if "rounds" in options.only:
            deadline = begin + QUICK_ROUNDS_UNTIL_S if options.quick else None
            phases["side by side"] = measure_rounds(deployment, options.rounds, say, deadline=deadline)
        if "holding" in options.only:
            time.sleep(IDLE_AFTER_S)
            idle = [*installed_figures(), *idle_figures(deployment)]
            phases["the worker"] = idle + _measure_holding(options, deployment, [OURS] if options.quick else None)
        if "fleet" in options.only:
            phases["idle fleets"], details["fleets"] = measure_fleets(deployment, options.fleets, WINDOW_S, say)
        if "cold" in options.only:
            phases["cold start"], details["cold start"] = measure_cold_start(deployment, COLD_FLEET, say)


def _measure_edge(options: argparse.Namespace, postgres: PostgresServer, phases: dict[str, list[Figure]]) -> None:
    """Measure edge3 in a separate deployment: its plugin and its executor's queries must not affect the other figures."""
    say("starting another central, a Remote Worker, an edge worker")
    with _running(Deployment(HOME / "edge", postgres, [EDGE, OURS])) as deployment:
        say("warming up")
        warm_up(deployment)
        figures = measure_rounds(deployment, 1, say)  # a round with edge3 takes two minutes
        time.sleep(IDLE_AFTER_S)
        figures += [*idle_figures(deployment), *_measure_holding(options, deployment, [EDGE, OURS])]
        phases["beside edge3"] = figures


def _measure_holding(options: argparse.Namespace, deployment: Deployment, peers: list[Peer] | None) -> list[Figure]:
    idle_mb = measure_idle_memory(deployment)
    per_task: dict[str, float] = {}
    requests: dict[str, float] = {}
    kills: dict[str, list[float]] = {}
    for peer in peers or deployment.peers:
        with hold(deployment, peer) as held:
            time.sleep(3)
            per_task[peer.name] = measure_memory_per_task(deployment, held, idle_mb[peer.name])
            if not options.quick:
                window_s = REQUESTS_WINDOW_S if peer is OURS else PEERS_REQUESTS_WINDOW_S
                requests[peer.name] = measure_requests(deployment, held, window_s)
            samples = options.kills if peer is OURS else min(options.kills, PEERS_KILLS)
            kills[peer.name] = measure_kills(deployment, held, samples)
        say(f"held and killed {len(kills[peer.name])} tasks of {peer.name}: {', '.join(f'{s:.2f}' for s in kills[peer.name])} s")
    figures = [Figure("task_pss", "MB", "memory (PSS) per running Bash task, all of its processes", per_task)]
    if requests:
        text = "requests to central per running task, without logs"
        figures.append(Figure("requests_per_task_per_s", "/s", text, requests))
    return figures + kill_figures(kills)


@contextmanager
def _running(deployment: Deployment) -> Iterator[Deployment]:
    """Start the deployment; print the logs of its processes if an error occurs."""
    with deployment:
        try:
            yield deployment
        except BaseException:
            print(deployment.logs(), file=sys.stderr)
            raise


def _raise_file_limit() -> None:
    """Raise the limit of open files: central and the simulated fleet need one per worker, and both inherit our limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
