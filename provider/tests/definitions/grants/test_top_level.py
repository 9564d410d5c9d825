from __future__ import annotations

import pytest
from airflow_remote_provider.definitions.grants import GrantKind
from airflow_remote_provider.definitions.grants.top_level import of_source


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ('Variable.get("a")', {GrantKind.VARIABLES: {"a"}}),
        ('airflow.models.Variable.get(key="a", default=None)', {GrantKind.VARIABLES: {"a"}}),
        (
            'from airflow.sdk import Variable as V\nSETTINGS = V.get("a", deserialize_json=True)["x"]',
            {GrantKind.VARIABLES: {"a"}},
        ),
        ('NAME = "a"\nVariable.get(NAME)', {GrantKind.VARIABLES: {"a"}}),
        ('NAME: str = "a"\nVariable.get(NAME)', {GrantKind.VARIABLES: {"a"}}),
        ('Connection.get("c")', {GrantKind.CONNECTIONS: {"c"}}),
        ('BaseHook.get_connection("c").host', {GrantKind.CONNECTIONS: {"c"}}),
        ('SomeHook(x=1).get_connection(conn_id="c")', {GrantKind.CONNECTIONS: {"c"}}),
        ('if x:\n  for x in y:\n    with z:\n      try:\n        Variable.get("a")\n      except E:\n        Variable.get("b")',
         {GrantKind.VARIABLES: {"a", "b"}}),
        ('class A:\n  x = Variable.get("a")', {GrantKind.VARIABLES: {"a"}}),
        ('def make():\n  return Variable.get("a")\nmake()', {GrantKind.VARIABLES: {"a"}}),
        ('def outer():\n  inner()\ndef inner():\n  outer()\n  Variable.get("a")\nouter()', {GrantKind.VARIABLES: {"a"}}),
        (
            '@dag(schedule=None)\ndef d():\n  @task_group\n  def g():\n    Variable.get("a")\n  g()\nd()',
            {GrantKind.VARIABLES: {"a"}},
        ),
        ('@dag\ndef d():\n  Variable.get("a")\n  @task\n  def t(x=Variable.get("b")):\n    Variable.get("c")\n  t()\nd()',
         {GrantKind.VARIABLES: {"a", "b"}}),
        ('[Variable.get("a") for x in y]', {GrantKind.VARIABLES: {"a"}}),
        ('DAG("d", default_args={"x": Variable.get("a")})', {GrantKind.VARIABLES: {"a"}}),
    ],
)  # fmt: skip
def test_reads_at_import_are_inferred(source: str, names: dict[GrantKind, set[str]]) -> None:
    assert of_source(source) == names


@pytest.mark.parametrize(
    "source",
    [
        'def t():\n  Variable.get("a")',
        '@task\ndef t():\n  Variable.get("a")\nt()',
        '@task.virtualenv(requirements=[])\ndef t():\n  Variable.get("a")\nt()',
        'PythonOperator(python_callable=lambda: Variable.get("a"))',
        'Variable.get(f"{site}_a")',
        'NAME = "a"\nNAME = "b"\nVariable.get(NAME)',
        'for NAME in ["a"]:\n  Variable.get(NAME)',
        'settings.get("a")',
        "Variable.get()",
        'Variable.set("a", 1)',
        "Variable.get('a'",
        "\0",
        "(" * 5000,
    ],
)
def test_reads_in_tasks_or_with_computed_names_are_not_inferred(source: str) -> None:
    assert of_source(source) == {}
