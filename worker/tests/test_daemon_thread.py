from __future__ import annotations

import threading

import anyio
import pytest
from airflow_remote_worker.daemon_thread import run_in_daemon_thread


def test_results_and_exceptions_reach_the_caller() -> None:
    async def main() -> None:
        assert await run_in_daemon_thread(lambda: 7, within_s=5, name="t") == 7
        with pytest.raises(ZeroDivisionError):
            await run_in_daemon_thread(lambda: 1 // 0, within_s=5, name="t")

    anyio.run(main)


def test_a_call_that_never_returns_delays_neither_the_loop_nor_its_end() -> None:
    never = threading.Event()

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await run_in_daemon_thread(never.wait, within_s=0.1, name="hangs")

    anyio.run(main)  # would not return before the call does
    (left,) = [thread for thread in threading.enumerate() if thread.name == "hangs"]
    assert left.daemon  # Python doesn't wait for it
    never.set()


def test_a_late_result_is_ignored() -> None:
    late = threading.Event()

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await run_in_daemon_thread(late.wait, within_s=0.05, name="late")
        late.set()
        await anyio.sleep(0.1)

    anyio.run(main)
