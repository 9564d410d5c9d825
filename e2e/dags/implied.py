"""Reads that central infers from Airflow's documented forms: top-level code, notifiers, positional arguments, asset events."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Asset, BaseHook, BaseNotifier, BaseOperator, Variable, dag, task

REMOTE = "RemoteExecutor"
MADE = Asset("implied")
EVENT = "(triggering_asset_events.values() | first | first)"

LIMIT = Variable.get("implied_limit", default="no limit yet")


class Rings(BaseNotifier):
    """Pushes the host of its connection."""

    def __init__(self) -> None:
        super().__init__()
        self.bell_conn_id = "implied_bell"

    def notify(self, context: Any) -> None:
        context["ti"].xcom_push(key="rang", value=BaseHook.get_connection(self.bell_conn_id).host)


class Asks(BaseOperator):
    """Calls notifiers while it runs, as operators that wait for a user's input do."""

    def __init__(self, *, notifiers: list[BaseNotifier], **options: Any) -> None:
        super().__init__(**options)
        self.notifiers = notifiers

    def execute(self, context: Any) -> None:
        for notifier in self.notifiers:
            notifier(context)


@dag(schedule=None, default_args={"executor": REMOTE})
def implied_source():
    @task(outlets=[MADE])
    def make() -> str:
        return "made at the site"

    make()


@dag(schedule=[MADE], default_args={"executor": REMOTE})
def implied():
    @task
    def see(source: str, pulled: str) -> dict[str, str]:
        return {"source": source, "pulled": pulled, "limit": LIMIT}

    see(
        f"{{{{ {EVENT}.source_dag_run.run_id }}}}",
        f"{{{{ ti.xcom_pull('make', 'implied_source', run_id={EVENT}.source_run_id) }}}}",
    )
    Asks(task_id="ask", notifiers=[Rings()])
    Asks(task_id="tell", notifiers=[], on_success_callback=Rings().notify)


implied_source()
implied()
