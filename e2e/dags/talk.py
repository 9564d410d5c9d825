"""Tasks that print: slowly, very much, and bytes that are not text."""

from __future__ import annotations

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import Param, dag, task

REMOTE = "RemoteExecutor"
LONG = 10_000_000


@dag(schedule=None, params={"lines": Param(20, type="integer"), "every_s": Param(0.5, type="number")})
def talking():
    @task(executor=REMOTE)
    def talk(params: dict | None = None) -> int:
        import time

        for number in range(params["lines"]):
            print(f"line {number}: grüße ☃ said at {time.time():.3f} s")
            time.sleep(params["every_s"])
        return params["lines"]

    talk()


@dag(schedule=None, params={"lines": Param(8, type="integer"), "directory": Param("", type="string")})
def conversing():
    @task(executor=REMOTE)
    def talk(params: dict | None = None) -> None:
        """Print lines, each after the reader has created the file that is named after the one before."""
        import time
        from pathlib import Path

        for number in range(params["lines"]):
            print(f"line {number}: grüße ☃")
            while not (Path(params["directory"]) / str(number)).exists():
                time.sleep(0.05)

    talk()


@dag(schedule=None)
def shouting():
    @task(executor=REMOTE)
    def shout() -> None:
        """Print more than 50 MB as fast as possible."""
        for number in range(25_000):
            print(f"{number:06} " + "ö" * 1_000)

    shout()


@dag(schedule=None)
def mumbling():
    """A shell and Python print bytes that are not UTF-8, and lines longer than any buffer."""
    BashOperator(
        task_id="shell",
        executor=REMOTE,
        bash_command=(
            r"printf 'caf\351 \377\376\000 in Latin-1\n'; echo after it; "
            f"head -c {LONG} /dev/zero | tr '\\0' 'y'; echo; echo after the long line"
        ),
        do_xcom_push=False,
    )

    @task(executor=REMOTE)
    def python() -> None:
        import os

        print("before it", flush=True)
        os.write(1, b"caf\xe9 \xff\xfe\x00 in Latin-1\n")
        os.write(2, b"\xc3(\n")
        print("after it")
        print("z" * LONG)
        print("after the long line")

    python()


talking()
conversing()
shouting()
mumbling()
