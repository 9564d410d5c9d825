"""Topic suite: a worker with an empty directory runs the right code of any bundle, and changes of it."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from urllib.parse import quote

import pytest

from testkit.network.fault_proxy import FaultProxy
from testkit.processes import wait_until

from .conftest import PACK, NewEmptyWorker, Pushing, dag_source, wait_until_published

EVERYTHING = """
import json
from pathlib import Path

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import BaseOperator, dag, task
from library.deep.triggers import Soon
from library.helpers import factor

REMOTE = {"executor": "RemoteExecutor", "queue": "everything"}
HERE = Path(__file__).parent


class Wait(BaseOperator):
    def execute(self, context):
        self.defer(trigger=Soon("a trigger of the bundle"), method_name="resume")

    def resume(self, context, event=None):
        return event


@dag(schedule=None)
def everything():
    @task(**REMOTE)
    def read(number):
        from library.late import late

        data = json.loads((HERE / "data" / "table.json").read_text())
        linked = (HERE / "data" / "linked.json").read_text()
        umlaut = (HERE / "data" / "Prüfung 試験.txt").read_text()
        empty = (HERE / "data" / "empty").read_bytes()
        return [number * factor(), data["rows"], json.loads(linked)["rows"], umlaut, len(empty), late()]

    run = BashOperator(task_id="run", bash_command=f"{HERE}/bin/tool.sh argument", cwd="/", **REMOTE)
    read.expand(number=[1, 2, 3, 4]) >> run >> Wait(task_id="wait", **REMOTE)


everything()
"""
TRIGGERS = """
import asyncio

from airflow.triggers.base import BaseTrigger, TriggerEvent

from ..words import of


class Soon(BaseTrigger):
    def __init__(self, text):
        super().__init__()
        self.text = text

    def serialize(self):
        return "library.deep.triggers.Soon", {"text": self.text}

    async def run(self):
        await asyncio.sleep(0.1)
        yield TriggerEvent(of(self.text))
"""


def test_everything_that_a_bundle_can_contain(pushing: Pushing, proxy: FaultProxy, new_empty_worker: NewEmptyWorker) -> None:
    pushing.write(".airflowignore", "library\n")  # excludes it from parsing only
    pushing.write(".remoteignore", "*.secret\n")
    pushing.write("never.secret", "stays on central")
    pushing.write("library/__init__.py", "")
    pushing.write("library/deep/__init__.py", "")
    pushing.write("library/helpers.py", "def factor():\n    return 10\n")
    pushing.write("library/late.py", "def late():\n    return 'late'\n")
    pushing.write("library/words.py", "def of(text):\n    return f'{text}, by a relative import'\n")
    pushing.write("library/deep/triggers.py", TRIGGERS)
    pushing.write("data/table.json", json.dumps({"rows": 3}))
    pushing.write("data/Prüfung 試験.txt", "ok")
    pushing.write("data/empty", b"")
    (pushing.dags / "data/linked.json").symlink_to("table.json")
    pushing.write("bin/tool.sh", '#!/bin/sh\necho "$0" "$1"\n', executable=True)
    with zipfile.ZipFile(pushing.dags / "zipped.zip", "w") as archive:
        archive.writestr("zipped_dag.py", dag_source("zipped", "everything", "return word", head="from packed import word"))
        archive.writestr("packed/__init__.py", "word = 'from an archive'")
    pushing.write("everything.py", EVERYTHING)
    pushing.parse("everything")
    worker = new_empty_worker("everything")

    run, state = pushing.run("everything")
    assert state == "success", pushing.airflow.task_log("everything", run, "read", map_index=0)
    path = f"dags/everything/dagRuns/{quote(run)}/taskInstances"
    for index in range(4):
        value = pushing.airflow.api("GET", f"{path}/read/xcomEntries/return_value?map_index={index}")["value"]
        assert (json.loads(value) if isinstance(value, str) else value) == [10 * (index + 1), 3, 3, "ok", 0, "late"]
    assert "bin/tool.sh argument" in pushing.airflow.task_log("everything", run, "run")
    assert pushing.airflow.xcom("everything", run, "wait") == "a trigger of the bundle, by a relative import"
    assert proxy.count("GET", PACK) == 1  # for four tasks at once, and three more jobs

    run_zip, state = pushing.run("zipped")
    assert state == "success"
    assert pushing.airflow.xcom("zipped", run_zip, "main") == "from an archive"
    assert proxy.count("GET", PACK) == 1

    tree = pushing.tree(run)
    first = pushing.airflow.task_log("everything", run, "read", map_index=0).splitlines()
    assert any("dags-folder" in line and tree[:12] in line for line in first[:5]), first[:5]
    files = worker.state / "code/trees" / tree / "files"
    assert not list(files.rglob("*.secret"))
    assert os.access(files / "bin/tool.sh", os.X_OK)
    assert (files / "library/helpers.py").stat().st_mode & 0o222 == 0
    (row,) = [row for row in pushing.airflow.remote_cli("bundles", "list") if row["name"] == "dags-folder"]
    assert row["tree"].startswith(tree[:12])
    assert not row["trouble"]


def test_a_change_of_one_file_is_all_that_travels(pushing: Pushing, proxy: FaultProxy, new_empty_worker: NewEmptyWorker) -> None:
    pushing.write("one/helper_one.py", "WORD = 'first'\n")
    pushing.write("one/__init__.py", "")
    pushing.write("first_dag.py", dag_source("one", "one", "return WORD", head="from one.helper_one import WORD"))
    pushing.write("ballast.bin", os.urandom(400_000))
    pushing.parse("one")
    new_empty_worker("one")
    run, state = pushing.run("one")
    assert state == "success"
    assert pushing.airflow.xcom("one", run, "main") == "first"
    packs = proxy.count("GET", PACK)

    first = pushing.tree(run)
    pushing.write("one/helper_one.py", "WORD = 'second'\n")
    wait_until(
        lambda: wait_until_published(pushing, "dags-folder")["tree"] != first, timeout_s=30, what="the change is published"
    )
    again, state = pushing.run("one")
    assert state == "success"
    assert pushing.airflow.xcom("one", again, "main") == "second"
    assert proxy.count("GET", PACK) == packs + 1
    assert proxy.count("GET", rf"{PACK}\?.*base={first}") == 1


def test_a_task_runs_the_code_that_central_parsed(pushing: Pushing, new_empty_worker: NewEmptyWorker) -> None:
    """Also when it is triggered at once after the edit: a new task of the Dag exists, so its code must be there."""
    new_empty_worker("fresh")
    pushing.write("fresh.py", dag_source("fresh", "fresh", "return 0"))
    pushing.parse("fresh")
    for number in range(1, 4):
        pushing.write("fresh.py", dag_source("fresh", "fresh", f"return {number}"))
        pushing.airflow.cli("dags", "reserialize", "--bundle-name", "dags-folder")
        run, state = pushing.run("fresh")
        assert state == "success"
        assert pushing.airflow.xcom("fresh", run, "main") == number
        assert "publish_patience_seconds" not in pushing.airflow.task_log("fresh", run, "main")


def test_a_run_keeps_the_version_of_its_bundle(pushing: Pushing, new_empty_worker: NewEmptyWorker) -> None:
    source = dag_source("pinned", "pinned", "return VERSION", head="from version_of_bundle import VERSION")
    for version in ("v1", "v2"):
        (pushing.versions / version).mkdir(exist_ok=True)
        (pushing.versions / version / "pinned.py").write_text(source)
        (pushing.versions / version / "version_of_bundle.py").write_text(f"VERSION = '{version}'\n")
    pushing.parse("pinned", bundle="versioned")
    new_empty_worker("pinned")
    # Nobody publishes this bundle until the command below runs: the API server publishes directories only.
    pushing.airflow.cli("remote", "publish", "versioned")
    old, state = pushing.run("pinned")
    assert (state, pushing.airflow.xcom("pinned", old, "main")) == ("success", "v1")

    (pushing.versions / "now").write_text("v2")
    pushing.parse("pinned", bundle="versioned")
    new = pushing.airflow.trigger("pinned")
    wait_until(
        lambda: pushing.airflow.query("SELECT 1 FROM remote_edition WHERE name = 'versioned' AND version = 'v2'"),
        timeout_s=30,
        what="the version of the new run is wanted",
    )
    (job,) = pushing.airflow.jobs(new)
    assert job["state"] == "queued"
    why = pushing.airflow.client().get(f"/remote/ui/v1/jobs/{job['id']}/waiting").json()
    assert "It waits until version v2 of the Dag bundle 'versioned' is published" in json.dumps(why)
    pushing.airflow.cli("remote", "publish", "versioned")
    assert pushing.airflow.wait_for_run("pinned", new) == "success"
    assert pushing.airflow.xcom("pinned", new, "main") == "v2"
    pushing.airflow.clear_task("pinned", old, "main")
    assert pushing.airflow.wait_for_run("pinned", old) == "success"
    assert pushing.airflow.xcom("pinned", old, "main") == "v1"


def test_a_directory_of_the_site_still_wins(
    pushing: Pushing, proxy: FaultProxy, new_empty_worker: NewEmptyWorker, home: Path
) -> None:
    ours = home / "site-wins-dags"
    ours.mkdir()
    source = dag_source("site_wins", "site-wins", "from pathlib import Path\nreturn str(Path(__file__).parent)")
    (ours / "site_wins.py").write_text(source)
    pushing.write("site_wins.py", source)
    pushing.parse("site_wins")
    packs = proxy.count("GET", PACK)
    new_empty_worker("site-wins", settings=f'[bundles.dags-folder]\npath = "{ours}"')
    run, state = pushing.run("site_wins")
    assert (state, pushing.airflow.xcom("site_wins", run, "main")) == ("success", str(ours))
    assert str(ours) in pushing.airflow.task_log("site_wins", run, "main")
    assert proxy.count("GET", PACK) == packs


def test_a_site_accepts_only_what_it_names(pushing: Pushing, new_empty_worker: NewEmptyWorker) -> None:
    pushing.write("refused.py", dag_source("refused", "refused", "return 1"))
    pushing.parse("refused")
    new_empty_worker("refused", settings='[accept]\nbundles = ["plant-*"]')
    run, state = pushing.run("refused")
    assert state == "failed"
    log = pushing.airflow.task_log("refused", run, "main")
    assert "accept" in log
    assert "dags-folder" in log


def test_a_link_out_of_the_bundle_is_refused_by_name_and_the_last_good_state_stays(
    pushing: Pushing, new_empty_worker: NewEmptyWorker
) -> None:
    pushing.write("stays.py", dag_source("stays", "stays", "return 1"))
    pushing.parse("stays")
    new_empty_worker("stays")
    run, state = pushing.run("stays")
    assert state == "success"
    link = pushing.dags / "secrets"
    link.symlink_to("/etc/passwd")
    try:
        wait_until(
            lambda: "secrets" in str(wait_until_published(pushing, "dags-folder")["trouble"]),
            timeout_s=30,
            what="there is trouble",
        )
        again, state = pushing.run("stays")
        assert state == "success"
        assert pushing.tree(again) == pushing.tree(run)
    finally:
        link.unlink()
    wait_until(lambda: not wait_until_published(pushing, "dags-folder")["trouble"], timeout_s=30, what="the trouble is over")


@pytest.mark.parametrize("damage", ["changed", "deleted"])
def test_what_a_task_damages_is_repaired(
    pushing: Pushing, proxy: FaultProxy, new_empty_worker: NewEmptyWorker, damage: str
) -> None:
    dag_id = f"damage_{damage}"
    pushing.write(f"victim_{damage}.py", "WORD = 'good'\n")
    act = "file.write_text(\"WORD = 'evil'\\n\")" if damage == "changed" else "file.unlink()"
    body = f"""import os
from pathlib import Path
from victim_{damage} import WORD
file = Path(__file__).parent / 'victim_{damage}.py'
os.chmod(file, 0o644)
{act}
return WORD"""
    pushing.write(f"{dag_id}.py", dag_source(dag_id, dag_id, body))
    pushing.parse(dag_id)
    worker = new_empty_worker(dag_id)
    run, state = pushing.run(dag_id)
    assert (state, pushing.airflow.xcom(dag_id, run, "main")) == ("success", "good")
    file = worker.state / "code/trees" / pushing.tree(run) / f"files/victim_{damage}.py"
    assert not file.exists() or "evil" in file.read_text()
    worker.stop()
    worker.start()  # a running daemon looks at the files of a tree once a minute
    again, state = pushing.run(dag_id)
    assert (state, pushing.airflow.xcom(dag_id, again, "main")) == ("success", "good")
    assert pushing.tree(again) == pushing.tree(run)
    assert proxy.count("POST", r"/trees/[0-9a-f]{64}/blobs") >= 1
