"""Tasks that write marks, from which a test derives what ran and how often.

The run's `plan` defines the work of each (`e2e/chaos/schedule.py`). Each try of user code appends to its own file in `directory`:
one line when it begins, one when it ends by itself. A file with two beginnings is a try that ran twice.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import Param, Variable, dag, get_current_context, task
from airflow.sdk.exceptions import DownstreamTasksSkipped

REMOTE = "RemoteExecutor"
QUEUE = "chaos"
AGAIN = {"retries": 2, "retry_delay": timedelta(seconds=1)}


class Try:
    """A context manager that marks the beginning and the end of the try."""

    def __enter__(self) -> Try:
        context = get_current_context()
        ti = context["ti"]
        self.number: int = ti.try_number
        self.name = f"{ti.task_id}.{ti.map_index}.{ti.try_number}"
        self._path = f"{context['params']['directory']}/{self.name}"
        self.plan = context["params"]["plan"]
        self._mark("begin")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._mark("end" if error is None else f"end {type(error).__name__}")

    def speak(self, lines: int, seconds: float, *, first: int = 0) -> None:
        """Print the try's known lines from *first*, evenly over *seconds*."""
        import time

        for line in range(first, first + lines):
            print(f"{self.name} says {line}")
            time.sleep(seconds / lines)

    def _mark(self, what: str) -> None:
        import os
        import time

        mark = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(mark, f"{what} {os.getpid()} {time.time():.3f}\n".encode())
        os.close(mark)


def marked(says: str) -> str:
    """Return a shell command that marks its try, as :class:`Try` does, and prints its lines."""
    name = "{{ ti.task_id }}.{{ ti.map_index }}.{{ ti.try_number }}"
    return (
        f'mark() {{ echo "$1 $$ $(date +%s.%3N)" >> "{{{{ params.directory }}}}/{name}"; }}; mark begin; '
        f'for line in $(seq 0 {{{{ params.plan["{says}"]["lines"] - 1 }}}}); do '
        f'echo "{name} says $line"; sleep {{{{ params.plan["{says}"]["pause_s"] }}}}; done; mark end'
    )


@dag(schedule=None, params={"directory": Param("", type="string"), "plan": Param({}, type="object")})
def chaos():
    @task(executor=REMOTE, queue=QUEUE)
    def numbers() -> list[int]:
        with Try() as this:
            this.speak(5, 0.2)
            return list(range(len(this.plan["work"])))

    @task(executor=REMOTE, queue=QUEUE, **AGAIN)
    def work(number: int) -> int:
        with Try() as this:
            mine = this.plan["work"][number]
            this.speak(mine["lines"], mine["seconds"])
            if this.number <= mine["fails"]:
                raise RuntimeError("this try fails, as planned")
            return number * number

    @task(executor=REMOTE, queue=QUEUE)
    def total(squares: list[int]) -> int:
        with Try() as this:
            this.speak(3, 0.1)
            return sum(squares)

    shell = BashOperator(
        task_id="shell",
        executor=REMOTE,
        queue=QUEUE,
        bash_command=marked("shell") + '; echo "the total is {{ ti.xcom_pull(task_ids="total") }}"',
    )

    @task(executor=REMOTE, queue=QUEUE)
    def check() -> str:
        with Try():
            return get_current_context()["ti"].xcom_pull(task_ids="shell")

    @task(executor=REMOTE, queue=QUEUE, executor_config={"remote": {"variables": ["chaos"]}})
    def reader() -> int:
        """Calls central continuously, with a read and a write in each round."""
        with Try() as this:
            rounds = this.plan["reader"]["rounds"]
            for number in range(rounds):
                this.speak(2, this.plan["reader"]["pause_s"], first=2 * number)
                get_current_context()["ti"].xcom_push(key=f"round {number}", value=Variable.get("chaos") + str(number))
            return rounds

    @task(executor=REMOTE, queue=QUEUE)
    def long() -> str:
        with Try() as this:
            this.speak(this.plan["long"]["lines"], this.plan["long"]["seconds"])
            return "done"

    BashOperator(task_id="long_shell", executor=REMOTE, queue=QUEUE, bash_command=marked("long_shell"))

    @task(executor=REMOTE, queue=QUEUE, retries=4, retry_delay=timedelta(seconds=1))
    def mortal() -> str:
        """Runs until its end, or until its processes are killed, as in some runs."""
        with Try() as this:
            this.speak(this.plan["mortal"]["lines"], this.plan["mortal"]["seconds"])
            return "survived"

    @task(executor=REMOTE, queue=QUEUE, retries=1, retry_delay=timedelta(seconds=1))
    def doomed() -> None:
        with Try() as this:
            this.speak(4, 0.5)
            raise RuntimeError("this task never works")

    @task(executor=REMOTE, queue=QUEUE)
    def refused() -> None:
        """Writes a value that the worker refuses, and a skip that only central can refuse."""
        with Try() as this:
            this.speak(4, 4)
            try:
                get_current_context()["ti"].xcom_push(key="value", value="a\0b")
            except Exception as error:
                get_current_context()["ti"].xcom_push(key="value", value=type(error).__name__)
            raise DownstreamTasksSkipped(tasks=["doomed"])

    total(work.expand(number=numbers())) >> shell >> check()
    reader()
    long()
    mortal()
    doomed()
    refused()


chaos()
