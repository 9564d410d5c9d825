"""Topic suite: seeded runs of random faults on real jobs; nothing is lost, nothing runs twice.

`make chaos N=20 SEED=7` runs seeds 7 to 26. Seeds that have failed are added to :data:`FAILED_ONCE` and always run.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.chaos.invariants import violations
from e2e.chaos.run import run_schedule
from e2e.chaos.schedule import Schedule
from e2e.chaos.site import Site

FIRST = int(os.environ.get("CHAOS_SEED", "1"))
COUNT = int(os.environ.get("CHAOS_RUNS", "2"))
FAILED_ONCE: tuple[int, ...] = ()
SEEDS = dict.fromkeys((*([] if "CHAOS_SEED" in os.environ else FAILED_ONCE), *range(FIRST, FIRST + COUNT)))


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    # Not pytest's directory, of which it keeps three: the logs of a failure stay until a user removes them.
    home = Path(tempfile.mkdtemp(prefix="chaos-"))
    site = Site(home)
    try:
        yield site.start()
    finally:
        site.stop()
        if not request.session.testsfailed:
            shutil.rmtree(home)


@pytest.mark.parametrize("seed", SEEDS)
def test_all_invariants_hold(site: Site, seed: int) -> None:
    schedule = Schedule.of(seed)
    print(f"\nseed {seed}: {len(schedule.acts)} acts; logs in {site.home}", flush=True)
    begin = time.monotonic()
    try:
        found = violations(site, run_schedule(site, schedule))
    except (AssertionError, TimeoutError) as error:
        found = [f"it does not end: {error}"]
    print("\n".join([f"seed {seed}: {time.monotonic() - begin:.0f} s, {len(found)} violations", *found]), flush=True)
    assert not found, "\n".join([f"seed {seed}, logs in {site.home}", *found, "events:", *site.log])
