"""Tasks that read what their definitions name, what they declare, and what neither of these names."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import BaseHook, BaseOperator, Variable, dag, get_current_context, task

REMOTE = "RemoteExecutor"


class Dock(BaseOperator):
    """Reads the connection that a field without template names."""

    template_fields = ("options",)

    def __init__(self, *, dock_conn_id: str = "dock_default", options: object = None, **rest: object) -> None:
        super().__init__(**rest)
        self.dock_conn_id = dock_conn_id
        self.options = options

    def execute(self, context: object) -> list[object]:
        return [BaseHook.get_connection(self.dock_conn_id).host, self.options]


@dag(schedule=None, default_args={"executor": REMOTE, "dock_conn_id": "granted_b"})
def grants_inferred():
    nested = {
        "deep": ["{{ conn.granted_a.host }}", {"deeper": "{{ var.json.granted_json.x }} {{ var.value.get('granted_text') }}"}]
    }
    Dock(task_id="fields", options=nested)
    Dock.partial(task_id="mapped").expand(options=["{{ conn.granted_a.host }}", "{{ conn.granted_c.host }}"])

    @task
    def passed_on(one_conn_id: str) -> str:
        return BaseHook.get_connection(one_conn_id).host

    passed_on.expand(one_conn_id=["granted_a", "granted_c"])


@dag(schedule=None, default_args={"executor": REMOTE})
def grants_declared():
    @task(executor_config={"remote": {"variables": ["granted_*"], "writes": ["written_*"]}})
    def read_and_write() -> list[object]:
        Variable.set("written_one", "1")
        Variable.delete("written_one")
        return [Variable.get("granted_text"), list(Variable.keys(prefix="granted_"))]

    read_and_write()


@dag(schedule=None, default_args={"executor": REMOTE})
def grants_denied(run_id: str = ""):
    """Tasks that request what nothing grants, and return the outcome."""

    def got(ask):
        try:
            return repr(ask())
        except Exception as error:
            print(f"the error in the task: {error}")
            return f"{type(error).__name__}"

    @task
    def connection() -> str:
        return got(lambda: BaseHook.get_connection("withheld_plant").host)

    @task
    def variable() -> str:
        return got(lambda: Variable.get("withheld_text", default="a default"))

    @task
    def listing() -> str:
        return got(lambda: list(Variable.keys(prefix="")))

    @task
    def writing() -> str:
        return got(lambda: Variable.set("withheld_text", "changed"))

    @task
    def xcom_of_another_dag() -> str:
        context = get_current_context()
        run = context["params"]["run_id"]
        return got(lambda: context["ti"].xcom_pull(dag_id="grants_declared", run_id=run, task_ids="read_and_write"))

    @task
    def runs_of_another_dag() -> str:
        return got(lambda: get_current_context()["ti"].get_dr_count(dag_id="grants_declared"))

    connection()
    variable()
    listing()
    writing()
    xcom_of_another_dag()
    runs_of_another_dag()


@dag(schedule=None, default_args={"executor": REMOTE})
def grants_across(run_id: str = ""):
    """Reads of another Dag, with declared grants."""

    @task(executor_config={"remote": {"xcoms_of": ["grants_declared"], "dags": ["grants_*"]}})
    def look() -> list[object]:
        context = get_current_context()
        ti, run = context["ti"], context["params"]["run_id"]
        found = ti.xcom_pull(dag_id="grants_declared", run_id=run, task_ids="read_and_write")
        return [found, ti.get_dr_count(dag_id="grants_declared") > 0]

    look()


class Rogue(TimeDeltaTrigger):
    """Serialises as another class: what a compromised worker would let central's triggerer call."""

    def serialize(self) -> tuple[str, dict[str, object]]:
        return "subprocess.Popen", {"args": ["touch", self.touched]}


class Defer(BaseOperator):
    def execute(self, context: dict) -> None:
        trigger = Rogue(timedelta(seconds=1))
        trigger.touched = context["params"]["touched"]
        self.defer(trigger=trigger, method_name="resume")

    def resume(self, context: object, event: object) -> None: ...


@dag(schedule=None, default_args={"executor": REMOTE}, params={"touched": ""})
def grants_rogue():
    Defer(task_id="defer")


@dag(schedule=None, default_args={"executor": REMOTE, "queue": "watched"})
def grants_watched():
    """Runs in a queue whose policy allows some names and only records other accesses."""

    @task
    def read() -> list[object]:
        return [
            BaseHook.get_connection("site_7").host,
            BaseHook.get_connection("withheld_plant").host,
            Variable.get("withheld_text"),
        ]

    read()


grants_inferred()
grants_declared()
grants_denied()
grants_across()
grants_rogue()
grants_watched()
