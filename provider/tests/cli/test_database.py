"""Commands that go by the database: what they can't do ends with one sentence that names the remedy."""

from __future__ import annotations

from argparse import Namespace

import pytest
from sqlalchemy import Engine, text

from testkit.ledger import Base  # isort: skip

from airflow_remote_provider.cli import database as by_database
from airflow_remote_provider.cli.words import CentralUnavailable, action
from airflow_remote_provider.settings import BadSetting


def test_without_our_tables_a_command_names_the_remedy(database: Engine) -> None:
    with database.begin() as connection:
        connection.execute(text("DROP TABLE remote_enrolment"))
    try:
        with pytest.raises(CentralUnavailable, match="airflow db migrate") as ended:
            by_database.Database().list_tokens()
    finally:
        Base.metadata.create_all(database)
    assert "\n" not in str(ended.value) and "SELECT" not in str(ended.value)


def test_a_bad_option_ends_a_command_with_its_name() -> None:
    def command(args: Namespace) -> None:
        raise BadSetting("[remote] poll_seconds = 'x' is not a number; set one from 1 to 300")

    with pytest.raises(SystemExit, match=r"\[remote\] poll_seconds .* Correct it in Airflow's configuration"):
        action("list", "List them.", command).func(Namespace())
