"""For each site, a Dag that records on disk what it prints and pushes until it is released, and a Dag that waits for a stop."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DeadlineAlert, DeadlineReference, Param, SyncCallback, dag, task

REMOTE = "RemoteExecutor"
SITES = ("refused", "reset", "pages", "dark", "deaf", "slow", "clocks")
"""The queues, each with one worker, named after the first fault of its network."""
DIRECTORY = Param("", type="string")


def _durable_run(site: str) -> None:
    @dag(
        dag_id=f"durable_{site}",
        schedule=None,
        params={"directory": DIRECTORY, "every_s": Param(0.2, type="number"), "ballast": Param(0, type="integer")},
    )
    def durable_run():
        @task(executor=REMOTE, queue=site)
        def speak(params: dict | None = None) -> int:
            """Print numbered lines; the file `printed` has the lines, `speak` the pids."""
            import os
            import time
            from pathlib import Path

            directory = Path(params["directory"])
            with (directory / "speak").open("a") as starts:
                starts.write(f"{os.getpid()}\n")
            number = 0
            with (directory / "printed").open("a") as printed:
                while True:
                    may_end = (directory / "go").exists()
                    line = f"line {number}: {'.' * params['ballast']}grüße ☃"
                    printed.write(f"{line}\n")
                    printed.flush()
                    print(line)
                    number += 1
                    if may_end:
                        (directory / "speak.ended").touch()
                        return number
                    time.sleep(params["every_s"])

        @task(executor=REMOTE, queue=site)
        def push(params: dict | None = None, ti=None) -> int:
            """Push numbered XComs; the file `push` has the pids."""
            import os
            import time
            from pathlib import Path

            directory = Path(params["directory"])
            with (directory / "push").open("a") as starts:
                starts.write(f"{os.getpid()}\n")
            number = 0
            while True:
                may_end = (directory / "go").exists()
                ti.xcom_push(key=f"number_{number}", value=number)
                number += 1
                if may_end:
                    (directory / "push.ended").touch()
                    return number
                time.sleep(params["every_s"] * 5)

        speak()
        push()

    durable_run()


def _stoppable(site: str) -> None:
    @dag(dag_id=f"stoppable_{site}", schedule=None, params={"directory": DIRECTORY})
    def stoppable():
        """Writes its pids and waits for a stop; the second run only prints a line."""
        BashOperator(
            task_id="linger",
            executor=REMOTE,
            queue=site,
            cwd="{{ params.directory }}",
            bash_command=(
                "if [ -e pids ]; then echo the second time; exit; fi; "
                'sleep 600 & echo "$PPID $$ $!" > writing; mv writing pids; wait'
            ),
        )

    stoppable()


def print_text(text: str, **_: object) -> None:
    print(text)


def _late(site: str) -> None:
    """Define a Dag that misses its deadline and whose callback runs at the same site."""
    alert = DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(seconds=1),
        callback=SyncCallback(print_text, kwargs={"text": "it is late"}, executor=REMOTE),
    )

    @dag(dag_id=f"late_{site}", schedule=None, deadline=alert)
    def late():
        @task(executor=REMOTE, queue=site)
        def work() -> None:
            import time

            time.sleep(4)

        work()

    late()


for _site in SITES:
    _durable_run(_site)
    _stoppable(_site)


_late(SITES[0])
