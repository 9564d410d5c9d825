from __future__ import annotations

import threading
import time

import anyio
import pytest
from airflow_remote_worker.jobs.apart import run_in_daemon_thread


def test_what_it_returns_and_raises_comes_back() -> None:
    async def main() -> None:
        assert await run_in_daemon_thread(lambda: 7, within_s=5, name="t") == 7
        with pytest.raises(ZeroDivisionError):
            await run_in_daemon_thread(lambda: 1 // 0, within_s=5, name="t")

    anyio.run(main)


def test_what_never_returns_delays_neither_the_loop_nor_its_end() -> None:
    never = threading.Event()

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await run_in_daemon_thread(never.wait, within_s=0.1, name="hangs")

    begun = time.monotonic()
    anyio.run(main)
    assert time.monotonic() - begun < 5
    (left,) = [thread for thread in threading.enumerate() if thread.name == "hangs"]
    assert left.daemon  # Python doesn't wait for it
    never.set()


def test_an_answer_that_comes_too_late_is_nobody_s() -> None:
    late = threading.Event()

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await run_in_daemon_thread(late.wait, within_s=0.05, name="late")
        late.set()
        await anyio.sleep(0.1)

    anyio.run(main)
