"""`airflow remote publish --server`: a bundle from a computer without the database, signed before jobs can have it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testkit.bundles import LOCAL, configure_bundles  # isort: skip
from testkit.ledger import empty_tables, substitute  # isort: skip  # noqa: F401  (points Airflow elsewhere)

from airflow_remote_protocol.statements import open_envelope
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import bundles, statements, trees
from airflow_remote_provider.models import BundleRow, TreeRow
from sqlalchemy import Engine, func, select

Run = Callable[..., str]

pytestmark = pytest.mark.parametrize("run", ["server"], indirect=True)


@pytest.fixture(autouse=True)
def _known_bundle(tmp_path: Path, database: Engine) -> Iterator[None]:
    """`etl`, which nobody has published yet."""
    trees.forget_loaded()
    empty_tables(database)
    compat.in_transaction(lambda session: bundles.note_trouble(session, "etl", "no directory"))
    with configure_bundles(tmp_path / "storage", main=(LOCAL, {"path": f"{tmp_path}/none"})):
        yield


@pytest.fixture
def dags(tmp_path: Path) -> Path:
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "etl.py").write_text("x = 1\n")
    (dags / "large.bin").write_bytes(bytes(range(256)) * 1000)
    return dags


def published() -> str | None:
    with compat.transaction() as session:
        row = session.get(BundleRow, "etl")
        return None if row is None else row.tree


def test_a_directory_is_published_and_only_what_changed_is_sent_again(run: Run, dags: Path) -> None:
    printed = run("publish", "etl", "--path", str(dags))
    first = published()
    assert first is not None
    assert f"etl: tree {first[:12]} (files: 2, bytes: 256006; new files: 2" in printed
    (dags / "etl.py").write_text("x = 2\n")
    assert "files: 2, bytes: 256006; new files: 1, packed bytes: 6)" in run("publish", "etl", "--path", str(dags))
    assert published() not in (None, first)


def test_it_is_signed_in_the_same_command_and_the_key_stays_here(run: Run, dags: Path, tmp_path: Path) -> None:
    key = tmp_path / "a.key"
    run("sign", "keygen", "--out", str(key))
    run("publish", "etl", "--path", str(dags), "--version", "c0ffee", "--sign", str(key), "--expires", "90d")
    tree = published()
    assert tree is not None
    (envelope,) = compat.in_transaction(lambda session: statements.for_worker(session, tree))
    said = open_envelope(envelope)[1].predicate
    assert (said.name, said.version) == ("etl", "c0ffee")
    assert said.expires == said.at + 90 * 86400
    assert key.read_text().splitlines()[1] not in envelope


def test_a_key_that_can_not_be_used_ends_it_before_anything_is_sent(run: Run, dags: Path) -> None:
    with pytest.raises(SystemExit, match="can't be used as a private key"):
        run("publish", "etl", "--path", str(dags), "--sign", str(dags / "etl.py"))
    with compat.transaction() as session:
        assert session.scalar(select(func.count()).select_from(TreeRow)) == 0


@pytest.mark.parametrize(
    ("words", "text"),
    [
        pytest.param(["etl", "--path", "/no/such/directory"], "is no directory; name the root of the bundle", id="no directory"),
        pytest.param(["unknown", "--path", "."], "there is no Dag bundle 'unknown'", id="unknown bundle"),
        pytest.param(["etl", "--watch", "--path", "."], "omit --watch", id="watch"),
        pytest.param(["etl", "--version", "v"], "--version needs --path", id="version"),
        pytest.param(["etl"], "name its directory with --path", id="not configured here"),
        pytest.param(["main"], "main: not published: the directory", id="no files here"),
        pytest.param(["etl", "--path", ".", "--expires", "1d"], "--expires needs --sign", id="expires"),
    ],
)
def test_what_it_refuses(run: Run, dags: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], text: str) -> None:
    monkeypatch.chdir(dags)
    with pytest.raises(SystemExit, match=text):
        run("publish", *words)
    assert published() is None


def test_an_empty_directory_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match="has no files"):
        run("publish", "etl", "--path", str(tmp_path / "empty"))


def test_a_user_who_may_not_manage_publishes_nothing(run: Run, dags: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_REMOTE_TOKEN", "vic")
    with pytest.raises(SystemExit, match="may not manage workers"):
        run("publish", "etl", "--path", str(dags))
    assert published() is None
