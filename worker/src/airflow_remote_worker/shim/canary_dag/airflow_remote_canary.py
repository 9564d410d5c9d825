"""The Dag of the canary: one task that only logs. Parsed and run in the runtime, like any Dag."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, BaseOperator


class Canary(BaseOperator):  # type: ignore[misc]
    """Succeeds if a task can run at all."""

    template_fields = ("text",)

    def __init__(self, text: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.text = text

    def execute(self, context: Any) -> None:
        self.log.info("%s", self.text)


with DAG("airflow_remote_canary", schedule=None):
    # No XCom: the site's XCom backend would store it outside.
    Canary(task_id="canary", text="{{ run_id }} runs", do_xcom_push=False)
