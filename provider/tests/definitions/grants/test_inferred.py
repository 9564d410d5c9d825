"""Names in a task's definition, as its Dag file made it and as Airflow reads it back from its database."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from testkit.ledger import TaskInstance  # isort: skip  # noqa: F401  (points Airflow elsewhere)

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.providers.standard.sensors.external_task import ExternalTaskSensor
from airflow.sdk import DAG, Asset, AssetAlias, BaseNotifier, BaseOperator, TaskGroup, task, task_group
from airflow.serialization.serialized_objects import DagSerialization
from airflow_remote_provider.definitions.grants import GrantKind
from airflow_remote_provider.definitions.grants.inferred import Names, of_arguments, of_task

CONNECTIONS, VARIABLES = GrantKind.CONNECTIONS, GrantKind.VARIABLES


class Ship(BaseOperator):
    """An operator with a connection that is not a template, and fields to render."""

    template_fields = ("payload",)
    template_ext = (".sql",)

    def __init__(self, *, payload: Any = None, ship_conn_id: str = "ship_default", options: Any = None, **rest: Any) -> None:
        super().__init__(**rest)
        self.payload = payload
        self.ship_conn_id = ship_conn_id
        self.options = options


class Part:
    """A nested object that Airflow renders, because it has `template_fields`."""

    template_fields = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


class Bell(BaseNotifier):
    template_fields = ("text",)

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.bell_conn_id = "bell"

    def notify(self, context: Any) -> None: ...


def _names(of: Any) -> Names:
    return {kind: names for kind, names in of_task(of).items() if kind is not GrantKind.ASSETS}


def _read_back(dag: DAG) -> Any:
    return DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))


def _template(text: str) -> Names:
    with DAG("dag"):
        return _names(Ship(task_id="t", payload=text, ship_conn_id=""))


@pytest.mark.parametrize(
    ("text", "connections", "variables"),
    [
        ("{{ conn.a.host }}", {"a"}, set()),
        ("{{ conn['a-b'].host }}", {"a-b"}, set()),
        ("{{ conn.get('a').host }}", {"a"}, set()),
        ("{{ conn.get('a', none) }} and {{ conn.b }}", {"a", "b"}, set()),
        ("{{ var.value.a }}", set(), {"a"}),
        ("{{ var.value.a.b }}", set(), {"a"}),
        ("{{ var.value.get('a/b', 'fallback') }}", set(), {"a/b"}),
        ("{{ var.json.a.b[1].c }}", set(), {"a"}),
        ("{{ var.json.get('a')['b'] }}", set(), {"a"}),
        ("{{ var.json['a'] }}", set(), {"a"}),
        ("{{ var.value.get(key='a', default='b') }} {{ conn.get(conn_id='c') }}", {"c"}, {"a"}),
        ("{% if var.value.a == 'x' %}{{ conn.b.host }}{% endif %}", {"b"}, {"a"}),
        ("{% for x in var.json.a %}{% if x %}{% continue %}{% endif %}{% do x %}{% endfor %}", set(), {"a"}),
        ("{% set c = conn.a %}{{ c.host | default(var.value.b) }}", {"a"}, {"b"}),
        ("{# conn.a #} conn.b var.value.c {{ connection.d }} {{ my.conn.e }}", set(), set()),
        ("{{ conn[params.site].host }} {{ var.value.get(params.key) }}", set(), set()),
        ("{{ broken", set(), set()),
        ("no template: conn.a", set(), set()),
    ],
)
def test_templates_name_connections_and_variables(text: str, connections: set[str], variables: set[str]) -> None:
    expected = {CONNECTIONS: connections, VARIABLES: variables}
    assert _template(text) == {kind: names for kind, names in expected.items() if names}


def test_templates_name_dags_whose_xcoms_they_pull() -> None:
    assert _template("{{ ti.xcom_pull(task_ids='t', dag_id='other') }}") == {GrantKind.XCOMS_OF: {"other"}}
    assert _template("{{ ti.xcom_pull('t', include_prior_dates=True) }}") == {GrantKind.XCOMS_OF: {"dag"}}
    assert _template("{{ ti.xcom_pull('t') }}") == {}


@pytest.mark.parametrize(
    ("call", "dags"),
    [
        ("ti.xcom_pull('t', 'other')", {"other"}),
        ("ti.xcom_pull(['t', 'u'], 'other', 'k')", {"other"}),
        ("task_instance.xcom_pull(none, 'other', 'k', true)", {"other"}),
        ("ti.xcom_pull('t', none, 'k', True)", {"dag"}),
        ("ti.xcom_pull('t', 'dag', 'k', True)", {"dag"}),
        ("ti.xcom_pull('t', 'dag', 'k', False)", set()),
        ("ti.xcom_pull('t', dag_id='dag')", set()),
        ("ti.xcom_pull('t', dag_id='other', include_prior_dates=True)", {"other"}),
        ("ti.xcom_pull('t', key='k', run_id='earlier')", {"dag"}),
        ("ti.xcom_pull('t', run_id=dag_run.conf.run)", {"dag"}),
        ("context['ti'].xcom_pull('t', 'other')[0].x | tojson", {"other"}),
        ("ti.xcom_pull('t', none, 'k', False)", set()),
        ("ti.xcom_pull('t', run_id=run_id)", set()),
        ("ti.xcom_pull('t', run_id=dag_run.run_id)", set()),
        ("ti.xcom_pull('t', run_id=None)", set()),
        ("ti.xcom_pull('t', dag.dag_id, 'k')", set()),
        ("ti.xcom_pull('t', params.dag, 'k', True)", set()),
    ],
)
def test_every_form_of_a_pull_names_the_dag(call: str, dags: set[str]) -> None:
    assert _template(f"{{{{ {call} }}}}") == ({GrantKind.XCOMS_OF: dags} if dags else {})


def test_fields_without_templates_name_connections() -> None:
    with DAG("dag", default_args={"ship_conn_id": "from_default_args"}):
        assert _names(Ship(task_id="a")) == {CONNECTIONS: {"from_default_args"}}
        assert _names(Ship(task_id="b", ship_conn_id="own")) == {CONNECTIONS: {"own"}}
    with DAG("plain"):
        assert _names(Ship(task_id="a")) == {CONNECTIONS: {"ship_default"}}


def test_nested_values_are_searched() -> None:
    payload = {"a": ["{{ conn.x.host }}", ("{{ var.value.y }}", Part("{{ var.json.z.q }}"))], "inner_conn_id": "w"}
    with DAG("dag"):
        found = _names(Ship(task_id="a", payload=payload, ship_conn_id="own", options={"deep": [{"other_conn_id": "v"}]}))
    assert found == {CONNECTIONS: {"own", "x", "w", "v"}, VARIABLES: {"y", "z"}}


def test_a_connection_computed_by_a_template_is_not_inferred() -> None:
    with DAG("dag"):
        found = _names(Ship(task_id="a", ship_conn_id="{{ params.conn }}", payload={"x_conn_id": "{{ var.value.name_of_it }}"}))
    assert found == {VARIABLES: {"name_of_it"}}


def test_values_that_are_not_rendered_name_nothing() -> None:
    with DAG("dag", params={"p": "{{ conn.a }}"}):
        assert _names(Ship(task_id="a", ship_conn_id="", options="{{ conn.a.host }}", doc_md="{{ conn.b }}")) == {}


def test_templates_in_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "q.sql").write_text("select {{ var.value.column }}")
    with DAG("dag", template_searchpath=str(tmp_path)) as dag:
        ship = Ship(task_id="a", payload="q.sql", ship_conn_id="own")
    dag.resolve_template_files()  # as parsing does before it runs policies
    assert _names(ship) == {CONNECTIONS: {"own"}, VARIABLES: {"column"}}


def test_arguments_of_python_tasks_count() -> None:
    with DAG("dag") as dag:

        @task
        def read(text: str, source_conn_id: str) -> None: ...

        read("{{ conn.a.host }}", source_conn_id="b")
        PythonOperator(task_id="plain", python_callable=print, op_kwargs={"conn_id": "c", "x": "{{ var.value.d }}"})
    assert _names(dag.get_task("read")) == {CONNECTIONS: {"a", "b"}}
    assert _names(dag.get_task("plain")) == {CONNECTIONS: {"c"}, VARIABLES: {"d"}}


def test_mapped_tasks_name_constant_and_expanded_values() -> None:
    with DAG("dag") as dag:
        Ship.partial(task_id="defaulted").expand(payload=["{{ conn.a.host }}", {"k": "{{ var.value.b }}"}])
        Ship.partial(task_id="partial", ship_conn_id="p").expand(payload=["x"])
        Ship.partial(task_id="expanded", payload="{{ var.value.c }}").expand(ship_conn_id=["d", "e"])
        Ship.partial(task_id="by_kwargs").expand_kwargs([{"ship_conn_id": "f", "payload": "{{ conn.g }}"}, {"ship_conn_id": "h"}])

        @task
        def read(text: str, the_conn_id: str) -> None: ...

        read.partial(the_conn_id="i").expand(text=["{{ conn.j }}"])
    assert _names(dag.get_task("defaulted")) == {CONNECTIONS: {"ship_default", "a"}, VARIABLES: {"b"}}
    assert _names(dag.get_task("partial")) == {CONNECTIONS: {"p"}}
    assert _names(dag.get_task("expanded")) == {CONNECTIONS: {"d", "e"}, VARIABLES: {"c"}}
    assert _names(dag.get_task("by_kwargs"))[CONNECTIONS] >= {"f", "g", "h"}
    assert _names(dag.get_task("read")) == {CONNECTIONS: {"i", "j"}}


def test_mapped_tasks_get_default_args() -> None:
    with DAG("dag", default_args={"ship_conn_id": "of_dag", "options": {"x_conn_id": "o"}, "payload": "{{ conn.p }}"}) as dag:
        Ship.partial(task_id="a").expand(payload=["{{ var.value.v }}"])
        with TaskGroup("g", default_args={"ship_conn_id": "of_group"}):
            Ship.partial(task_id="b").expand(options=["x"])
        Ship.partial(task_id="c", ship_conn_id="own").expand(payload=["x"])
    assert _names(dag.get_task("a")) == {CONNECTIONS: {"of_dag", "o"}, VARIABLES: {"v"}}
    assert _names(dag.get_task("g.b")) == {CONNECTIONS: {"of_group", "p"}}
    assert _names(dag.get_task("c")) == {CONNECTIONS: {"own", "o"}}


def test_a_mapped_group_names_what_it_is_expanded_over() -> None:
    with DAG("dag") as dag:

        @task_group
        def group(the_conn_id: str) -> None:
            Ship(task_id="t", ship_conn_id=the_conn_id)

        group.expand(the_conn_id=["a", "b"])
    assert _names(dag.get_task("group.t")) == {CONNECTIONS: {"a", "b"}}


def test_notifiers_are_searched() -> None:
    with DAG("dag"):
        ship = Ship(task_id="a", ship_conn_id="own", on_failure_callback=[print, Bell("{{ var.value.ring }}")])
    assert _names(ship) == {CONNECTIONS: {"own", "bell"}, VARIABLES: {"ring"}}


def test_notifiers_in_any_field_are_searched(tmp_path: Path) -> None:
    with DAG("dag"):
        ask = HITLOperator(task_id="a", subject="s", options=["yes"], notifiers=[Bell("{{ var.value.ring }}"), Bell("")])
        many = HITLOperator.partial(task_id="b", options=["yes"], notifiers=[Bell("{{ var.value.ring }}")]).expand(subject=["s"])
    assert _names(ask) == _names(many) == {CONNECTIONS: {"bell"}, VARIABLES: {"ring"}}


def test_callbacks_with_bound_arguments_are_searched() -> None:
    with DAG("dag"):
        one = Ship(task_id="a", ship_conn_id="", on_failure_callback=Bell("{{ conn.gate }}").notify)
        other = Ship(task_id="b", ship_conn_id="", on_success_callback=[partial(print, bell_conn_id="of_partial")])
        third = Ship(task_id="c", ship_conn_id="", on_retry_callback=partial(Bell("").notify, options={"x_conn_id": "deep"}))
    assert _names(one) == {CONNECTIONS: {"bell", "gate"}}
    assert _names(other) == {CONNECTIONS: {"of_partial"}}
    assert _names(third) == {CONNECTIONS: {"bell", "deep"}}


def test_mail_about_a_failure_needs_its_connection() -> None:
    with DAG("dag", default_args={"email": "ada@plant.example"}) as dag:
        BashOperator(task_id="a", bash_command="")
        BashOperator.partial(task_id="b").expand(bash_command=["true"])
        BashOperator(task_id="c", bash_command="", email_on_failure=False, email_on_retry=False)
    for some in (dag, _read_back(dag)):
        assert _names(some.get_task("a")) == _names(some.get_task("b")) == {CONNECTIONS: {"smtp_default"}}
        assert _names(some.get_task("c")) == {}


def test_fields_name_other_dags() -> None:
    with DAG("dag"):
        found = _names(TriggerDagRunOperator(task_id="a", trigger_dag_id="other"))
    assert found[GrantKind.DAGS] == found[GrantKind.TRIGGER_DAGS] == {"other"}


def test_a_sensor_can_query_the_dag_that_it_names_but_not_trigger_it() -> None:
    with DAG("dag"):
        found = _names(ExternalTaskSensor(task_id="a", external_dag_id="other"))
    assert found[GrantKind.DAGS] == {"other"}
    assert GrantKind.TRIGGER_DAGS not in found


def test_inlets_can_be_read_and_outlets_also_written() -> None:
    with DAG("dag") as dag:
        BashOperator(
            task_id="a", bash_command="", inlets=[Asset("in", "s3://in/x")], outlets=[AssetAlias("alias"), Asset.ref(name="r")]
        )
    expected = {GrantKind.ASSETS: {"in", "s3://in/x", "alias", "r"}, GrantKind.ASSET_WRITES: {"alias", "r"}}
    for some in (dag, _read_back(dag)):
        assert of_task(some.get_task("a")) == expected


def test_a_serialized_task_has_only_its_templates() -> None:
    with DAG("dag") as dag:
        Ship(task_id="plain", payload={"a": ["{{ conn.x.host }}"], "p_conn_id": "y"}, ship_conn_id="lost")
        Ship.partial(task_id="mapped", ship_conn_id="kept").expand(payload=["{{ var.value.z }}"])

        @task
        def read(text: str, the_conn_id: str) -> None: ...

        read.partial(the_conn_id="i").expand(text=["{{ conn.j }}"])
    back = _read_back(dag)
    assert _names(back.get_task("plain")) == {CONNECTIONS: {"x", "y"}}
    assert _names(back.get_task("mapped")) == {CONNECTIONS: {"kept"}, VARIABLES: {"z"}}
    assert _names(back.get_task("read")) == {CONNECTIONS: {"i", "j"}}


def test_a_callbacks_arguments_count() -> None:
    kwargs = {"slack_conn_id": "slack", "text": "{{ var.value.a }}", "deep": {"more": [{"x_conn_id": "b"}]}}
    conf = {"context": {"dag_run": {"conf": {"x_conn_id": "from the user who triggered the run"}}}}
    assert of_arguments(kwargs | conf) == {CONNECTIONS: {"slack", "b"}, VARIABLES: {"a"}}
    assert of_arguments(None) == {}
