"""The same tasks on both executors; they return the settings of central's configuration that they have."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseOperator, Param, dag, get_current_context, task
from site_triggers import TellsSettings, settings_seen

REMOTE = "RemoteExecutor"
READS = {"remote": {"variables": ["plant_*"]}}


def look() -> dict[str, Any]:
    from airflow.sdk import Variable

    context = get_current_context()
    print("the recipe is", Variable.get("plant_recipe"))
    print("the dose is", Variable.get("plant_dose"))
    print("the color is", Variable.get("plant_color"))
    the_task = context["ti"].task
    return {
        "log_url": context["ti"].log_url,
        "execution_timeout_s": the_task.execution_timeout.total_seconds() if the_task.execution_timeout else None,
        "owner": the_task.owner,
        **settings_seen(),
    }


class Defers(BaseOperator):
    def execute(self, context: Any) -> None:
        self.defer(trigger=TellsSettings(), method_name="go_on")

    def go_on(self, context: Any, event: Any = None) -> Any:
        return event


@dag(schedule=None)
def settings_here_and_there():
    task(task_id="here", executor_config=READS)(look)()
    task(task_id="there", executor=REMOTE, executor_config=READS)(look)()
    Defers(task_id="wait_there", executor=REMOTE)


@dag(schedule=None)
def settings_of_a_site():
    task(task_id="there", executor=REMOTE, executor_config=READS, queue="settings")(look)()


@dag(schedule=None, params={"directory": Param("", type="string")})
def settings_while_it_runs():
    @task(executor=REMOTE, queue="settings")
    def hold(directory: str) -> str:
        import os
        import time
        from pathlib import Path

        Path(directory, "pid").write_text(str(os.getpid()))
        while not Path(directory, "go").exists():
            time.sleep(0.1)
        return str(get_current_context()["ti"].task.owner)

    hold("{{ params.directory }}")


settings_here_and_there()
settings_of_a_site()
settings_while_it_runs()
