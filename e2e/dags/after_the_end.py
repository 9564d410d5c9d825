"""Tasks with callbacks and operator links, which run after the tasks' code."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import BaseOperator, BaseOperatorLink, Variable, dag
from airflow.sdk.exceptions import AirflowSkipException

REMOTE = "RemoteExecutor"


class Link(BaseOperatorLink):
    name = "a link"
    xcom_key = "a_link"

    def get_link(self, operator, *, ti_key) -> str:
        return "https://example.com"


def push_variable(context) -> None:
    ti = context["ti"]
    ti.xcom_push(key="said", value=Variable.get(f"e2e_after_{ti.task_id}", default="not set"))


class Ends(BaseOperator):
    """Ends in the way that *how* names."""

    operator_extra_links = (Link(),)

    def __init__(self, *, how: str, **other) -> None:
        callbacks = dict.fromkeys(("on_success_callback", "on_failure_callback", "on_skipped_callback"), push_variable)
        super().__init__(executor=REMOTE, **callbacks, **other)
        self.how = how

    def execute(self, context) -> None:
        if self.how == "fail":
            raise ValueError(self.how)
        if self.how == "skip":
            raise AirflowSkipException(self.how)


class DefersBriefly(BaseOperator):
    """Prints many lines and defers briefly: it resumes while its log may still be in transit."""

    operator_extra_links = (Link(),)

    def execute(self, context) -> None:
        for number in range(500):
            print(f"line {number} before")
        self.defer(trigger=TimeDeltaTrigger(timedelta(milliseconds=10)), method_name="resume")

    def resume(self, context, event=None) -> None:
        print("back again")


@dag(schedule=None)
def after_the_end():
    for task_id, how in {"succeeds": "succeed", "fails": "fail", "skips": "skip"}.items():
        grants = {"variables": [f"e2e_after_{task_id}"]}
        Ends(task_id=task_id, how=how, executor_config={"remote": grants})


@dag(schedule=None)
def after_a_deferral():
    DefersBriefly(task_id="goes_away", executor=REMOTE)


after_the_end()
after_a_deferral()
