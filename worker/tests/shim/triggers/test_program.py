"""Trigger hosts in the real runtime with a stub of the daemon: the end of a trigger, and its effect on other triggers."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from airflow_remote_worker.local import boottime, frames

from ..conftest import wait_until
from .conftest import Host, StubDaemon

pytestmark = [pytest.mark.runtime, pytest.mark.timeout(120)]

HEAD = """
import asyncio
from airflow.triggers.base import BaseTrigger, TriggerEvent, TaskSuccessEvent, TaskFailedEvent, TaskSkippedEvent

class Base(BaseTrigger):
    def __init__(self, **kwargs):
        super().__init__()
        self.kwargs = kwargs
    def serialize(self):
        return f"{type(self).__module__}.{type(self).__qualname__}", self.kwargs
"""
WAITS = (
    HEAD
    + """
class Trigger(Base):
    async def run(self):
        print("waiting")
        try:
            await asyncio.sleep(600)
        finally:
            print("swept")
        yield TriggerEvent("late")
    async def on_kill(self):
        print("killed by", self.task_instance.dag_id)
    async def cleanup(self):
        print("cleaned up")
"""
)
ECHO = HEAD + "class Trigger(Base):\n    async def run(self):\n        yield TriggerEvent(self.kwargs)\n"


def a_trigger(body: str) -> str:
    """A module with a trigger whose `run` is *body*."""
    return HEAD + "class Trigger(Base):\n    async def run(self):\n" + "".join(f"        {line}\n" for line in body.splitlines())


def test_an_event_has_its_payload_and_is_logged(host: Host, daemon: StubDaemon) -> None:
    lease = host.run(
        ECHO, {"colour": "red", "when": {"__classname__": "datetime.date", "__version__": 1, "__data__": "2026-01-02"}}
    )
    event = daemon.event(lease)
    assert event["kind"] == "fired"
    assert event["payload"]["colour"] == "red"
    wait_until(lambda: "trigger completed" in daemon.lines(lease))
    assert f"trigger a_dag/a_run/a_task/-1/1 (job {lease[0]}) starting" in daemon.lines(lease)
    assert "Trigger fired event" in daemon.lines(lease)


def test_a_trigger_may_be_defined_in_the_dag_file(host: Host, daemon: StubDaemon) -> None:
    dag = "from airflow.sdk import DAG\nwith DAG('a_dag'):\n    pass\n"
    host.write("my-dag.py", a_trigger("yield TriggerEvent('from the Dag file')") + dag)
    elsewhere = hashlib.sha1(b"/another/workers/path/my-dag.py").hexdigest()
    lease = host.start(f"unusual_prefix_{elsewhere}_my_dag.Trigger", dag="my-dag.py")
    assert daemon.event(lease)["payload"] == "from the Dag file"


def test_a_dag_file_that_can_t_be_imported_fails_its_trigger_and_says_why(host: Host, daemon: StubDaemon) -> None:
    host.write("broken.py", "import no_such_module_anywhere\n")
    lease = host.start(f"unusual_prefix_{'0' * 40}_broken.Trigger", dag="broken.py")
    event = daemon.event(lease)
    assert event["kind"] == "failed"
    assert "no_such_module_anywhere" in "".join(event["traceback"])


def test_triggers_of_the_standard_provider_work(host: Host, daemon: StubDaemon, tmp_path: Path) -> None:
    moment = {"__classname__": "pendulum.datetime.DateTime", "__version__": 2}
    moment["__data__"] = {
        "timestamp": time.time() + 1,
        "tz": {
            "__classname__": "builtins.tuple",
            "__version__": 1,
            "__data__": ["UTC", "pendulum.tz.timezone.Timezone", 1, True],
        },
    }
    timer = host.start(
        "airflow.providers.standard.triggers.temporal.DateTimeTrigger", {"moment": moment, "end_from_trigger": False}
    )
    file = host.start(
        "airflow.providers.standard.triggers.file.FileTrigger",
        {"filepath": str(tmp_path / "arrives"), "recursive": False, "poke_interval": 0.2},
    )
    assert daemon.event(timer)["kind"] == "fired", daemon.event(timer)
    assert file not in daemon.events
    (tmp_path / "arrives").write_text("here")
    assert daemon.event(file)["payload"] is True


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (ECHO + "    def __init__(self):\n        raise OSError('no such luck')\n", "no such luck"),
        ("raise RuntimeError('at import')", "at import"),
        ("import sys; sys.exit(3)", "SystemExit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("x = 1", "has no 'Trigger'"),
        ("Trigger = 1", "is not a class"),
        (a_trigger("raise SystemExit(7)\nyield"), "SystemExit"),
        (a_trigger("raise KeyboardInterrupt\nyield"), "KeyboardInterrupt"),
        (a_trigger("raise asyncio.CancelledError\nyield"), "cancelled itself"),
        (a_trigger("raise ValueError('in run')\nyield"), "in run"),
        (a_trigger("return\nyield"), "without an event"),
        (a_trigger("yield 'text'"), "not a TriggerEvent"),
        (a_trigger("yield TriggerEvent(object())"), "cannot be serialised"),
        (a_trigger("yield TriggerEvent(float('nan'))"), "cannot be"),
        (a_trigger("yield TriggerEvent('x' * 2000000)"), "at most"),
        (a_trigger("class Odd(Exception):\n    def __str__(self): raise RuntimeError('no text')\nraise Odd\nyield"), "Odd"),
    ],
)
def test_any_exception_of_a_trigger_fails_only_that_trigger(host: Host, daemon: StubDaemon, source: str, reason: str) -> None:
    neighbour = host.run(a_trigger("await asyncio.sleep(1)\nyield TriggerEvent('well')"))
    lease = host.run(source)
    event = daemon.event(lease)
    assert event["kind"] == "failed"
    assert reason in "".join(event["traceback"])
    assert all(len(part) <= 2000 for part in event["traceback"])
    assert daemon.event(neighbour)["payload"] == "well"


def test_a_task_of_a_trigger_that_exits_does_not_end_the_host(host: Host, daemon: StubDaemon) -> None:
    body = """
async def leave():
    raise SystemExit
self.kept = asyncio.create_task(leave())
await asyncio.sleep(0.3)
yield TriggerEvent(1)"""
    assert daemon.event(host.run(a_trigger(body)))["payload"] == 1


def test_task_end_events_carry_the_state(host: Host, daemon: StubDaemon) -> None:
    success = daemon.event(host.run(a_trigger("yield TaskSuccessEvent(xcoms={'return_value': [1, 2]})")))
    assert success == {"kind": "ended", "state": "success", "xcoms": {"return_value": [1, 2]}}
    assert daemon.event(host.run(a_trigger("yield TaskFailedEvent()")))["state"] == "failed"
    assert daemon.event(host.run(a_trigger("yield TaskSkippedEvent()")))["state"] == "skipped"


def test_code_after_the_event_runs_and_further_events_are_dropped(host: Host, daemon: StubDaemon) -> None:
    lease = host.run(a_trigger("yield TriggerEvent(1)\nprint('after the event')\nyield TriggerEvent(2)"))
    wait_until(lambda: "trigger completed" in daemon.lines(lease))
    assert "after the event" in daemon.lines(lease)
    assert [event["payload"] for event in daemon.events[lease]] == [1]


@pytest.mark.parametrize("source", [ECHO, a_trigger("yield TriggerEvent(1)\nprint('unfinished', end='')"), "x = 1", WAITS])
def test_the_daemon_learns_that_a_log_is_complete_with_its_last_line(host: Host, daemon: StubDaemon, source: str) -> None:
    lease = host.run(source)
    if source is WAITS:
        wait_until(lambda: "waiting" in daemon.lines(lease))
        assert daemon.complete == []
        daemon.send(frames.CancelTrigger(lease))
    wait_until(lambda: daemon.complete == [lease])
    last = {ECHO: "trigger completed", "x = 1": "has no 'Trigger'", WAITS: "trigger completed"}.get(source, "unfinished")
    assert last in str(daemon.log(lease)[-1])
    later = host.run(WAITS)
    wait_until(lambda: "waiting" in daemon.lines(later))
    daemon.go_away()
    daemon.start()
    wait_until(lambda: len(daemon.hellos) == 2)
    assert daemon.hellos[-1].open_logs == [later]


def test_a_complete_log_that_was_not_acknowledged_is_sent_again(host: Host, daemon: StubDaemon) -> None:
    daemon.acknowledges = False
    lease = host.run(ECHO)
    wait_until(lambda: daemon.complete == [lease])
    daemon.go_away()
    daemon.logs.clear()
    daemon.acknowledges = True
    daemon.start()
    wait_until(lambda: daemon.complete == [lease, lease])
    assert daemon.hellos[-1].open_logs == [lease]
    assert "trigger completed" in daemon.lines(lease)


def test_a_trigger_that_can_t_be_read_completes_its_empty_log(host: Host, daemon: StubDaemon) -> None:
    lease = ("odd", 1)
    daemon.send(frames.StartTrigger(lease, b"{}", contact_at=boottime.now()))
    assert daemon.event(lease)["kind"] == "failed"
    wait_until(lambda: daemon.complete == [lease])


@pytest.mark.parametrize(
    "read",
    [
        "found = await BaseHook.aget_connection('vault')",
        "found = BaseHook.get_connection('vault')",
        "found = await asyncio.to_thread(BaseHook.get_connection, 'vault')",
        "found = await asyncio.get_running_loop().run_in_executor(None, BaseHook.get_connection, 'vault')",
        "from asgiref.sync import sync_to_async\nfound = await sync_to_async(BaseHook.get_connection)('vault')",
    ],
)
def test_a_connection_is_read_under_the_trigger_s_own_lease_and_its_password_masked(
    host: Host, daemon: StubDaemon, read: str
) -> None:
    body = f"""
from airflow.sdk.bases.hook import BaseHook
{read}
print('it is', found.password)
self.log.info('log %s', found.password)
yield TriggerEvent(found.host)"""
    lease = host.run(a_trigger(body))
    event = daemon.event(lease)
    assert event.get("payload") == "vault.example", "".join(event["traceback"])
    assert [call.lease for call in daemon.calls] == [lease]
    assert "it is ***" in daemon.lines(lease)
    assert "log ***" in daemon.lines(lease)


def test_concurrent_reads_use_each_trigger_s_own_lease(host: Host, daemon: StubDaemon) -> None:
    body = "from airflow.sdk import Variable\nawait asyncio.sleep(0.2)\nyield TriggerEvent(Variable.get('name'))"
    leases = [host.run(a_trigger(body)) for _ in range(20)]
    assert [daemon.event(lease).get("payload") for lease in leases] == [f"value of name for {lease[0]}" for lease in leases]


def test_a_denial_is_in_the_trigger_s_log_once(host: Host, daemon: StubDaemon) -> None:
    body = (
        "from airflow.sdk.bases.hook import BaseHook\n"
        "for _ in range(2):\n"
        "    try:\n"
        "        await BaseHook.aget_connection('secret')\n"
        "    except Exception as error:\n"
        "        print('refused', type(error).__name__)\n"
        "yield TriggerEvent(1)"
    )
    lease = host.run(a_trigger(body))
    daemon.event(lease)
    assert daemon.lines(lease).count("nothing grants the connection 'secret'") == 1
    assert daemon.lines(lease).count("refused") == 2


def test_a_call_waits_for_the_daemon_and_the_loop_continues(host: Host, daemon: StubDaemon) -> None:
    daemon.answer = lambda call: None
    reading = host.run(a_trigger("from airflow.sdk import Variable\nyield TriggerEvent(Variable.get('name'))"))
    wait_until(lambda: daemon.calls)
    other = host.run(ECHO, {"a": 1})
    assert daemon.event(other)["payload"] == {"a": 1}
    daemon.go_away()
    from .conftest import answer_calls

    daemon.answer = answer_calls
    daemon.start()
    assert daemon.event(reading)["payload"] == f"value of name for {reading[0]}"


def test_a_cancellation_by_a_user_runs_on_kill(host: Host, daemon: StubDaemon) -> None:
    lease = host.run(WAITS)
    wait_until(lambda: "waiting" in daemon.lines(lease))
    daemon.send(frames.CancelTrigger(lease, on_kill=True))
    wait_until(lambda: lease in daemon.cancelled)
    assert "killed by a_dag" in daemon.lines(lease)
    assert "swept" in daemon.lines(lease)
    assert "cleaned up" in daemon.lines(lease)
    assert lease not in daemon.events


def test_any_other_cancellation_does_not(host: Host, daemon: StubDaemon) -> None:
    lease = host.run(WAITS)
    wait_until(lambda: "waiting" in daemon.lines(lease))
    daemon.send(frames.CancelTrigger(lease))
    wait_until(lambda: lease in daemon.cancelled)
    assert "killed" not in daemon.lines(lease)
    assert "cleaned up" in daemon.lines(lease)


def test_an_event_that_fires_without_a_daemon_is_delivered_with_its_log_later(host: Host, daemon: StubDaemon) -> None:
    lease = host.run(a_trigger("await asyncio.sleep(1)\nprint('alone')\nyield TriggerEvent('kept')"))
    waiting = host.run(WAITS)
    wait_until(lambda: "waiting" in daemon.lines(waiting))
    daemon.go_away()
    time.sleep(1.5)
    daemon.start()
    assert daemon.event(lease)["payload"] == "kept"
    assert "alone" in daemon.lines(lease)
    assert set(daemon.hellos[-1].leases) == {lease, waiting}
    time.sleep(0.5)
    assert len(daemon.events[lease]) == 1


def test_an_event_that_was_not_acknowledged_is_sent_again(host: Host, daemon: StubDaemon) -> None:
    daemon.acknowledges = False
    lease = host.run(ECHO)
    daemon.event(lease)
    daemon.go_away()
    daemon.acknowledges = True
    daemon.start()
    wait_until(lambda: len(daemon.events[lease]) == 2)
    daemon.go_away()
    daemon.start()
    wait_until(lambda: len(daemon.hellos) == 3)
    assert daemon.hellos[-1].leases == []


def test_triggers_that_the_daemon_does_not_keep_are_cancelled_without_on_kill(host: Host, daemon: StubDaemon) -> None:
    kept, dropped = host.run(WAITS), host.run(WAITS)
    wait_until(lambda: "waiting" in daemon.lines(kept) and "waiting" in daemon.lines(dropped))
    daemon.go_away()
    daemon.kept = [kept]
    daemon.start()
    wait_until(lambda: dropped in daemon.cancelled)
    assert "killed" not in daemon.lines(dropped)
    assert kept not in daemon.cancelled


def test_the_host_enforces_stop_after_without_a_daemon(host: Host, daemon: StubDaemon) -> None:
    module = WAITS
    host.write("waits.py", module)
    soon = host.start("waits.Trigger", stop_after_s=1.0, contact_at=boottime.now())
    later = host.start("waits.Trigger", stop_after_s=1000.0)
    wait_until(lambda: "waiting" in daemon.lines(soon) and "waiting" in daemon.lines(later))
    daemon.go_away()
    time.sleep(4)
    daemon.start()
    wait_until(lambda: soon in daemon.cancelled)
    assert "no contact with central" in daemon.lines(soon)
    assert later not in daemon.cancelled


def test_a_blocked_loop_is_reported_with_the_trigger_and_its_stack(host: Host, daemon: StubDaemon) -> None:
    lease = host.run(
        a_trigger(
            "import time\nprint('before')\nawait asyncio.sleep(0.1)\ntime.sleep(1.5)\n"
            "await asyncio.sleep(0.2)\nyield TriggerEvent(1)"
        )
    )
    wait_until(lambda: daemon.blocked)
    assert daemon.blocked[0].lease == lease
    assert daemon.blocked[0].seconds > 0.5
    wait_until(lambda: "time.sleep(1.5)" in daemon.lines(lease))


def test_a_log_without_a_daemon_is_bounded_and_its_gap_is_noted(host: Host, daemon: StubDaemon) -> None:
    daemon.acknowledges = False
    lease = host.run(a_trigger("for n in range(3000):\n    print(n, 'x' * 1000)\nprint('end')\nyield TriggerEvent(1)"))
    daemon.event(lease)
    assert len(daemon.logs[lease]) < 2 << 20
    daemon.go_away()
    daemon.logs.clear()
    daemon.acknowledges = True
    daemon.start()
    wait_until(lambda: "lines of this log were lost here" in daemon.lines(lease))
    wait_until(lambda: daemon.complete == [lease])
    assert all(json.loads(line) for line in daemon.logs[lease].splitlines())


def test_a_host_without_triggers_leaves_when_ordered_to(host: Host, daemon: StubDaemon) -> None:
    lease = host.run(WAITS)
    wait_until(lambda: "waiting" in daemon.lines(lease))
    daemon.send(frames.Leave())
    time.sleep(0.3)
    assert host.is_alive()
    daemon.send(frames.CancelTrigger(lease))
    wait_until(lambda: lease in daemon.cancelled)
    daemon.send(frames.Leave())
    wait_until(lambda: not host.is_alive())


def test_the_host_has_no_descriptors_but_its_own(host: Host, daemon: StubDaemon) -> None:
    body = """
paths = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
yield TriggerEvent([os.readlink(path) for path in paths if os.path.exists(path)])"""
    lease = host.run(a_trigger("import os" + body))
    open_files = daemon.event(lease)["payload"]
    assert not [name for name in open_files if "job" in name or "zygote" in name], open_files


def test_many_triggers_start_within_seconds(host: Host, daemon: StubDaemon) -> None:
    host.write("echo.py", ECHO)
    leases = [host.start("echo.Trigger", {"n": n}) for n in range(300)]
    assert [daemon.event(lease)["payload"]["n"] for lease in leases] == list(range(300))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_as_another_user_the_host_is_that_user_and_reaches_the_daemon_only_through_its_parent(
    make_host: Callable[..., Host], daemon: StubDaemon
) -> None:
    host = make_host(run_as_user="nobody")
    host.bundle.chmod(0o755)
    for parent in host.bundle.parents:
        if str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    daemon.socket_path.chmod(0o600)
    body = "import os, socket\nfrom airflow.sdk import Variable\nyield TriggerEvent([os.getuid(), Variable.get('name')])"
    lease = host.run(a_trigger(body))
    import pwd

    assert daemon.event(lease)["payload"] == [pwd.getpwnam("nobody").pw_uid, f"value of name for {lease[0]}"]
    daemon.go_away()
    daemon.start()
    second = host.run(a_trigger(body))
    assert daemon.event(second)["payload"][0] == pwd.getpwnam("nobody").pw_uid
    os.kill(host.pid, signal.SIGKILL)
    wait_until(lambda: not host.is_alive())
