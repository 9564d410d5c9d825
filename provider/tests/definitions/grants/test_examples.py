"""Names inferred for the tasks of all example Dags of the installed packages, compared with the reviewed files in `examples/`.

The docker provider's wheel has no example Dags; its operator is in `test_policies.py`. After an intended change, run
`WRITE_EXAMPLES=1 pytest provider/tests/definitions/grants/test_examples.py` and review the difference.
"""

from __future__ import annotations

import importlib
import os
from importlib.metadata import version
from pathlib import Path

import pytest

from testkit.ledger import TaskInstance  # isort: skip  # noqa: F401  (points Airflow elsewhere)

from airflow.dag_processing.dagbag import DagBag
from airflow_remote_provider import compat
from airflow_remote_provider.definitions.grants.declared import NOTED

WRITTEN = Path(__file__).parent / "examples"
PACKAGES = {
    "apache-airflow-providers-standard": "airflow.providers.standard.example_dags",
    "apache-airflow-core": "airflow.example_dags",
}


def _inferred(package: str) -> list[str]:
    """Return a line for each task: its Dag, its id, and its noted names; `-` if it is granted nothing."""
    folder = Path(str(importlib.import_module(package).__file__)).parent
    bag = DagBag(dag_folder=str(folder), load_op_links=False)
    assert not bag.import_errors
    return [
        f"{dag.dag_id} {task.task_id}: {_spelled((task.executor_config or {}).get(NOTED, {}))}"
        for dag in sorted(bag.dags.values(), key=lambda dag: str(dag.dag_id))
        for task in sorted(dag.tasks, key=lambda task: str(task.task_id))
    ]


def _spelled(noted: dict[str, list[str]]) -> str:
    return "; ".join(f"{kind} {', '.join(names)}" for kind, names in sorted(noted.items())) or "-"


@pytest.mark.parametrize("distribution", PACKAGES)
@pytest.mark.filterwarnings("ignore")
def test_inferred_names_of_the_examples_match_the_reviewed_files(distribution: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "names_of_subclasses", lambda path: {None})  # as where ours is the default
    file = WRITTEN / f"{distribution}.txt"
    title = f"# {distribution} {version(distribution)}"
    if "WRITE_EXAMPLES" in os.environ:
        file.write_text("\n".join([title, *_inferred(PACKAGES[distribution])]) + "\n")
    written = file.read_text().splitlines()
    if written[0] != title:
        pytest.skip(f"{file.name} is about {written[0].removeprefix('# ')}; this is another version")
    assert _inferred(PACKAGES[distribution]) == written[1:]
