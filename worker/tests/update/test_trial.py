"""A release on trial, from its own side: what its environment has, and how it learns that its time is up."""

from __future__ import annotations

import os
import subprocess
import sys

import anyio
import pytest
from airflow_remote_worker.update.trial import TRIAL, environment_of_trial, take_descriptor, wait_for_end, without_systemd

pytestmark = pytest.mark.timeout(60)

ON_TRIAL = """
import os
import anyio
from airflow_remote_worker.update.trial import take_descriptor, wait_for_end
descriptor = take_descriptor(os.environ)
print("begun", os.get_inheritable(descriptor), take_descriptor(os.environ), flush=True)
anyio.run(wait_for_end, descriptor, backend="asyncio")
print("ended", flush=True)
"""


def test_a_trial_does_not_reach_systemd_and_knows_its_descriptor() -> None:
    of_service = {"PATH": "/bin", "NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}
    assert without_systemd(of_service) == {"PATH": "/bin"}
    assert environment_of_trial(of_service, 7) == {"PATH": "/bin", TRIAL: "7"}


@pytest.mark.parametrize("text", ["", "none", "-1"])
def test_a_process_without_a_descriptor_is_no_trial(text: str) -> None:
    environ = {TRIAL: text, "PATH": "/bin"}
    assert take_descriptor(environ) is None
    assert environ == {"PATH": "/bin"}


def test_a_trial_learns_that_the_other_end_is_closed_and_passes_nothing_to_its_children() -> None:
    ends, held = os.pipe()
    environ = environment_of_trial({**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, ends)
    with subprocess.Popen(
        [sys.executable, "-c", ON_TRIAL], env=environ, pass_fds=(ends,), stdout=subprocess.PIPE, text=True
    ) as trial:
        os.close(ends)
        assert trial.stdout is not None
        assert trial.stdout.readline() == "begun False None\n"
        assert trial.poll() is None
        os.close(held)
        assert trial.stdout.read() == "ended\n"
    assert trial.returncode == 0


def test_the_end_is_noticed_also_if_it_came_before() -> None:
    ends, held = os.pipe()
    os.close(held)
    try:
        anyio.run(wait_for_end, ends, backend="asyncio")
    finally:
        os.close(ends)
