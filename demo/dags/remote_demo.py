"""Example Dag with remote and local tasks.

The tasks with `executor="RemoteExecutor"` run on a Remote Worker, the others on central. There is no other difference.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import Param, dag, task

REMOTE = "RemoteExecutor"


@dag(
    schedule=None,
    params={"greeting": Param("Hello", type="string"), "numbers_up_to": Param(4, type="integer", minimum=1, maximum=20)},
    tags=["remote", "demo"],
    doc_md=__doc__,
)
def remote_demo():
    @task
    def ask_central() -> dict[str, str]:
        """Runs on central; the worker's task reads its return value as an XCom."""
        import socket

        return {"host": socket.gethostname(), "question": "what is the answer?"}

    @task(executor=REMOTE)
    def answer_remotely(asked: dict[str, str]) -> dict[str, object]:
        """Runs on the worker: reads an XCom of a local task and writes one that a local task reads."""
        import os
        import sys

        print(f"central ({asked['host']}) asks: {asked['question']}")
        airflow_settings = sorted(name for name in os.environ if name.startswith("AIRFLOW__DATABASE"))
        return {"answer": 42, "python": sys.executable, "directory": os.getcwd(), "database_settings": airflow_settings}  # noqa: PTH109

    greet = BashOperator(
        task_id="greet",
        executor=REMOTE,
        # Templates are rendered on the worker, from params and XComs.
        bash_command=(
            "for i in 1 2 3; do echo '{{ params.greeting }} number '$i' from '$(pwd); sleep 0.3; done; "
            'echo \'{{ ti.xcom_pull(task_ids="answer_remotely")["answer"] }}\''
        ),
    )

    @task
    def list_numbers(params: dict[str, int] | None = None) -> list[int]:
        return list(range(1, (params or {})["numbers_up_to"] + 1))

    @task(executor=REMOTE)
    def square(number: int) -> int:
        """Runs on the worker, one task per number."""
        return number * number

    @task(executor=REMOTE, execution_timeout=timedelta(seconds=3))
    def take_too_long() -> None:
        """Runs on the worker until its execution_timeout stops it; the demo expects that it fails."""
        import time

        for second in range(120):
            print(f"still here after {second} s")
            time.sleep(1)

    @task(trigger_rule="all_failed")
    def see_it_stopped() -> str:
        return "take_too_long was stopped, as expected"

    @task
    def sum_up(answer: dict[str, object], greeting: str, squares: list[int], stopped: str) -> dict[str, object]:
        """Runs on central: checks the return values of the worker's tasks."""
        assert greeting == str(answer["answer"]), (greeting, answer)
        squares = list(squares)
        assert squares == [number * number for number in range(1, len(squares) + 1)], squares
        return {"answer": answer["answer"], "squares": squares, "stopped": stopped}

    answer = answer_remotely(ask_central())
    answer >> greet
    too_long = take_too_long()
    stopped = see_it_stopped()
    too_long >> stopped
    sum_up(answer, greet.output, square.expand(number=list_numbers()), stopped)


remote_demo()
