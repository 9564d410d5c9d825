"""The migrations create exactly the tables of the models, and remove them again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from airflow.utils.db_manager import RunDBManager
from airflow_remote_provider import __version__, db
from airflow_remote_provider.db import RemoteDBManager
from airflow_remote_provider.migrations import versions
from airflow_remote_provider.models import Base
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, inspect, text
from sqlalchemy.orm import Session

from testkit.fixtures import KINDS
from testkit.ledger import substitute

OURS = {*Base.metadata.tables, RemoteDBManager.version_table_name}


@pytest.fixture(params=KINDS)
def empty(
    request: pytest.FixtureRequest, new_database: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Engine]:
    """A database that contains only a table of Airflow's, which must not change."""
    engine = create_engine(new_database(request.param))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE dag (id INTEGER PRIMARY KEY)"))
    substitute(monkeypatch, "engine", lambda: engine)
    yield engine
    engine.dispose()


def _manage(engine: Engine, act: Callable[[RemoteDBManager], object]) -> object:
    with Session(engine) as session:
        return act(RemoteDBManager(session))


def _migrate(engine: Engine) -> None:
    _manage(engine, lambda manager: manager.upgradedb(use_migration_files=True))


def _tables(engine: Engine) -> set[str]:
    return set(inspect(engine).get_table_names()) - {"dag"}


def _difference(engine: Engine) -> list[object]:
    """Return the differences from the models, including types, nullability, indexes and unique constraints."""
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "compare_type": True,
                "include_object": lambda _, name, kind, *__: kind != "table" or name not in ("dag", "alembic_version_remote"),
            },
        )
        return list(compare_metadata(context, Base.metadata))


def test_the_migrations_create_exactly_the_tables_of_the_models(empty: Engine) -> None:
    _migrate(empty)
    assert _tables(empty) == OURS
    assert _difference(empty) == []


def test_airflows_short_cut_for_an_empty_database_creates_the_same_tables(empty: Engine) -> None:
    _manage(empty, lambda manager: manager.initdb())
    assert _tables(empty) == OURS
    assert _manage(empty, lambda manager: manager.get_current_revision()) == RemoteDBManager.revision_heads_map[__version__]
    assert _manage(empty, lambda manager: manager.check_migration()) is True


def test_a_downgrade_to_base_removes_our_tables_and_keeps_airflows(empty: Engine) -> None:
    _migrate(empty)
    _manage(empty, lambda manager: manager.downgrade("base"))
    assert _tables(empty) <= {RemoteDBManager.version_table_name}
    assert "dag" in inspect(empty).get_table_names()
    assert _manage(empty, lambda manager: manager.check_migration()) is False


def test_after_a_downgrade_the_upgrade_works_again(empty: Engine) -> None:
    _migrate(empty)
    _manage(empty, lambda manager: manager.downgrade("base"))
    _migrate(empty)
    assert _difference(empty) == []


def test_an_upgrade_of_an_up_to_date_database_changes_nothing(empty: Engine) -> None:
    _migrate(empty)
    with empty.begin() as connection:
        connection.execute(text("INSERT INTO remote_duty (name, holder, until) VALUES ('d', 'h', '2026-01-01 00:00:00')"))
    _migrate(empty)
    with empty.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM remote_duty")) == 1


def test_workers_whose_names_differ_only_by_case_survive_the_migration(empty: Engine) -> None:
    _migrate(empty)
    _manage(empty, lambda manager: manager.downgrade("0012"))
    intent = {"intent": "serve", "intent_revision": 1, "intent_reason": "", "intent_by": ""}
    values = {**intent, "alarm": "", "queues": "[]", "slots": 0, "facts": "{}"}
    at = {"created_at": "2026-01-01 00:00:00", "changed_at": "2026-01-01 00:00:00"}
    with empty.begin() as connection:
        for number, name in enumerate(["edge", "Edge", "other"]):
            row = {**values, **at, "id": f"w{number}", "name": name, "credential_hash": f"hash {number}"}
            columns = ", ".join(row)
            connection.execute(text(f"INSERT INTO remote_worker ({columns}) VALUES (:{', :'.join(row)})"), row)
    _migrate(empty)
    with empty.connect() as connection:
        keys = {row.name: row.name_key for row in connection.execute(text("SELECT name, name_key FROM remote_worker"))}
    assert keys == {"edge": "edge", "Edge": None, "other": "other"}


def test_dropping_removes_all_our_tables(empty: Engine) -> None:
    _migrate(empty)
    with Session(empty) as session, empty.begin() as connection:
        RemoteDBManager(session).drop_tables(connection)
        session.rollback()
    assert _tables(empty) == set()
    assert "dag" in inspect(empty).get_table_names()


def test_the_sql_can_be_printed_without_running_it(empty: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    _manage(empty, lambda manager: manager.upgradedb(show_sql_only=True))
    printed = capsys.readouterr().out
    assert "CREATE TABLE remote_job" in printed and "alembic_version_remote" in printed
    assert _tables(empty) == set()


def test_airflow_accepts_our_manager() -> None:
    RunDBManager._validate(RemoteDBManager)


def test_there_is_one_head_and_every_release_names_its_revision() -> None:
    script = ScriptDirectory(str(db.PACKAGE / "migrations"))
    assert script.get_heads() == [RemoteDBManager.revision_heads_map["0.1.0"]]
    assert {revision.revision for revision in script.walk_revisions()} >= set(RemoteDBManager.revision_heads_map.values())
    assert versions.__file__ is not None
