"""A task that reads a granted secret, tries to print it, and requests another one; then it waits for the test."""

from __future__ import annotations

from airflow.sdk import BaseHook, Param, Variable, dag, task

REMOTE = "RemoteExecutor"


@dag(schedule=None, params={"directory": Param("", type="string")})
def need_to_know():
    @task(executor=REMOTE, executor_config={"remote": {"connections": ["known_*"], "variables": ["known_*"]}})
    def hold(directory: str) -> list[int]:
        import time
        from pathlib import Path

        password = BaseHook.get_connection("known_plant").password
        text = Variable.get("known_password")
        print(f"the password is {password}, the text is {text}")
        denied = 0
        for ask in (lambda: BaseHook.get_connection("unknown_plant"), lambda: Variable.get("unknown_password")):
            try:
                print(ask())
            except Exception as error:
                print(f"denied: {error}")
                denied += 1
        (Path(directory) / "holding").touch()
        for _ in range(600):
            if (Path(directory) / "seen").exists():
                break
            time.sleep(0.1)
        return [len(password), len(text), denied]

    hold("{{ params.directory }}")


need_to_know()
