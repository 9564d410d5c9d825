"""Classes of triggers in zip archives. test_program.py tests those in modules and Dag files."""

from __future__ import annotations

import sys
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow_remote_worker.shim.triggers.loading import CannotLoad, Loader, archive_of

TRIGGER = """
class Wait:
    WHERE = {where!r}

    async def run(self):
        yield None
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[Path]:
    for name in ("one", "two"):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            archive.writestr("dag.py", TRIGGER.format(where=name))
            archive.writestr("waits_of_zip/__init__.py", "")
            archive.writestr("waits_of_zip/triggers.py", TRIGGER.format(where=f"{name} package"))
    (tmp_path / "waits_beside.py").write_text(TRIGGER.format(where="beside"))
    before = set(sys.modules), list(sys.path)
    yield tmp_path
    for name in set(sys.modules) - before[0]:
        del sys.modules[name]
    sys.path[:] = before[1]


def _where(loader: Loader, classpath: str, dag_rel_path: str) -> str:
    return str(loader.find_class(classpath, dag_rel_path=dag_rel_path).WHERE)  # type: ignore[attr-defined]


def test_each_archive_has_its_own_modules_of_a_name(bundle: Path) -> None:
    loader = Loader(bundle_path=str(bundle), bundle_name="b")
    loader.prepare()
    assert [_where(loader, "dag.Wait", f"{name}.zip/dag.py") for name in ("one", "two", "one")] == ["one", "two", "one"]
    for name in ("one", "two"):
        assert _where(loader, "waits_of_zip.triggers.Wait", f"{name}.zip/dag.py") == f"{name} package"
    assert str(bundle / "one.zip") not in sys.path


def test_a_module_beside_the_archive_is_found_too(bundle: Path) -> None:
    loader = Loader(bundle_path=str(bundle), bundle_name="b")
    loader.prepare()
    assert _where(loader, "waits_beside.Wait", "one.zip/dag.py") == "beside"


def test_a_class_that_an_archive_lacks_names_the_archive(bundle: Path) -> None:
    with pytest.raises(CannotLoad, match=r"one.zip, module dag, has no 'Gone'"):
        Loader(bundle_path=str(bundle), bundle_name="b").find_class("dag.Gone", dag_rel_path="one.zip/dag.py")


def test_only_a_file_in_an_archive_has_an_archive(bundle: Path) -> None:
    assert archive_of(bundle, "one.zip/dag.py") == str(bundle / "one.zip")
    assert archive_of(bundle, "waits_beside.py") is None
    assert archive_of(bundle, "no.zip/dag.py") is None


def test_where_code_must_be_signed_only_a_trigger_of_airflow_is_used(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = type("BaseTrigger", (), {})
    for name in ("airflow", "airflow.triggers", "airflow.triggers.base"):
        monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(BaseTrigger=base))
    loader = Loader(bundle_path=str(bundle), bundle_name="b", needs_trigger=True)
    loader.prepare()
    (bundle / "waits_for_airflow.py").write_text(
        "from airflow.triggers.base import BaseTrigger\nclass Wait(BaseTrigger):\n    run = 1"
    )
    for classpath in ("waits_beside.Wait", "threading.Thread", "subprocess.Popen"):
        with pytest.raises(CannotLoad, match="only signed code"):
            loader.find_class(classpath, dag_rel_path="dag.py")
    with pytest.raises(CannotLoad, match="no method"):
        loader.find_class("waits_for_airflow.Wait", dag_rel_path="dag.py")
