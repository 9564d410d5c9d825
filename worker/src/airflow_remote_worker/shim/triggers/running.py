"""Runs one trigger from its workload to its end, as Airflow's `TriggerRunner` does; comments explain the differences."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import structlog  # type: ignore[import-not-found,unused-ignore]

from airflow_remote_worker.shim.triggers.current import Running, current
from airflow_remote_worker.shim.triggers.encoding import BadEvent, encode_event, encode_failure
from airflow_remote_worker.shim.triggers.loading import Loader
from airflow_remote_worker.shim.triggers.portal import greenback

AFTER_EVENT_S = 10.0
"""How long a trigger may run on after its event. Airflow ends it when it next compares its list with the database."""
CLEANUP_S = 30.0
"""As long as Airflow gives `on_kill`; Airflow does not limit `cleanup`."""

Fire = Callable[[Running, bytes], None]


class Runner:
    """Runs triggers of one bundle."""

    def __init__(self, loader: Loader, fire: Fire, on_kill_timeout_s: float) -> None:
        """*fire* is called once for each trigger that was not cancelled, with its `TriggerEvent` as JSON."""
        self._loader = loader
        self._fire = fire
        self._on_kill_timeout_s = on_kill_timeout_s
        self._loading = asyncio.Lock()
        self._log = structlog.get_logger("airflow_remote_worker.shim.triggers")

    async def run(self, running: Running, workload: Mapping[str, Any]) -> None:
        """Run the trigger to its end. Never raises, whatever its code raises: the other triggers must go on."""
        current.set(running)
        try:
            if greenback is not None:
                # Allows the trigger's code to call the SDK's synchronous methods from the loop.
                await greenback.ensure_portal()
            await self._run(running, workload)
        except asyncio.CancelledError as error:
            if running.is_cancelled:
                return
            self._fail(running, error, "the trigger cancelled itself")
        except BadEvent as error:
            self._log.error("Trigger failed: %s", error)
            self._fail(running, error.__cause__, str(error))
        except BaseException as error:  # also SystemExit and KeyboardInterrupt, which would end the loop and all triggers
            self._log.exception("Trigger failed")
            self._fail(running, error)

    async def _run(self, running: Running, workload: Mapping[str, Any]) -> None:
        name = _name(running, workload)
        async with self._loading:
            trigger = self._loader.load(workload)
        trigger.task_instance = running.ti
        trigger.trigger_id = running.lease[0]
        trigger.triggerer_job_id = None
        trigger.timeout_after = None
        self._log.info("trigger %s starting", name)
        try:
            await self._follow(running, trigger, name)
        except asyncio.CancelledError:
            if running.runs_on_kill:
                await self._kill(trigger, name)
            raise
        finally:
            with suppress(Exception):  # Airflow ignores errors of `cleanup`, too
                await asyncio.wait_for(trigger.cleanup(), CLEANUP_S)
            self._log.info("trigger completed", name=name)

    async def _follow(self, running: Running, trigger: Any, name: str) -> None:
        # A trigger that could share a stream (`shared_stream_key`) runs by itself, as in Airflow when its key can't be made.
        events = trigger.run()
        async for event in events:
            self._log.info("Trigger fired event", name=name, result=event)
            self._fire(running, encode_event(event, running.ti))
            running.has_fired = True
            break
        else:
            raise BadEvent("the trigger ended without an event: its `run` must yield a TriggerEvent")
        await self._wind_down(events)

    async def _wind_down(self, events: Any) -> None:
        """Run the trigger's code after its `yield`. A task takes one event; further ones are dropped."""
        try:
            async with _timeout(AFTER_EVENT_S):
                async for event in events:
                    self._log.warning("Trigger fired another event, which is dropped: its task takes only one", result=event)
        except TimeoutError:
            self._log.warning("Trigger still ran %d s after its event and was ended", AFTER_EVENT_S)
        except Exception:
            self._log.exception("Trigger failed after its event; its task continues with the event")

    async def _kill(self, trigger: Any, name: str) -> None:
        self._log.info("Trigger cancelled by user action, invoking on_kill", name=name)
        try:
            await asyncio.wait_for(trigger.on_kill(), self._on_kill_timeout_s)
        except (TimeoutError, asyncio.TimeoutError):
            self._log.warning("on_kill() timed out", timeout=self._on_kill_timeout_s, name=name)
        except asyncio.CancelledError:
            pass  # the trigger is being cancelled already
        except Exception:
            self._log.warning("on_kill() raised an exception", name=name, exc_info=True)

    def _fail(self, running: Running, error: BaseException | None, explanation: str = "") -> None:
        if running.has_fired:
            return
        running.has_fired = True
        try:
            event = encode_failure(error, explanation)
        except BaseException as broken:  # an exception that can't be formatted
            print(f"trigger host: {running.lease}: {type(broken).__name__} while formatting a failure", file=sys.stderr)
            event = encode_failure(None, explanation or f"the trigger raised {type(error).__name__}, which can't be shown")
        self._fire(running, event)


def _name(running: Running, workload: Mapping[str, Any]) -> str:
    ti = workload["ti"]
    parts = (ti.get(part) for part in ("dag_id", "run_id", "task_id", "map_index", "try_number"))
    return "/".join(str(part) for part in parts) + f" (job {running.lease[0]})"


class _timeout:
    """`asyncio.timeout` for Python 3.10, which does not have it."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._is_over = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._end, task)

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._is_over = True
        task.cancel()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self._timer.cancel()
        if self._is_over and kind is asyncio.CancelledError:
            if (uncancel := getattr(asyncio.current_task(), "uncancel", None)) is not None:
                uncancel()
            raise TimeoutError
