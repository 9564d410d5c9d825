from __future__ import annotations

import json
import re

import pytest
from airflow_remote_protocol.task_settings import LONGEST_LIST, LONGEST_VALUE, OPTIONS, revision_of, usable


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("core.default_timezone", "America/Argentina/Buenos_Aires"),
        ("core.default_task_execution_timeout", ""),
        ("core.default_task_execution_timeout", "90"),
        ("core.sensitive_var_conn_names", "recipe, dose ,küche"),
        ("core.dagbag_import_timeout", "30.0"),
        ("operators.default_deferrable", "False"),
        ("api.base_url", "https://airflow.example.com:8443/a/b"),
        ("logging.namespace_levels", "sqlalchemy=INFO sqlalchemy.engine=DEBUG"),
    ],
)
def test_what_airflow_reads_is_passed_on_as_it_is(name: str, value: str) -> None:
    assert usable({name: value}) == {name: value}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("core.fernet_key", "a"),
        ("core.hostname_callable", "os.getcwd"),
        ("api.base_url", "https://admin:password@airflow.example.com"),
        ("api.base_url", "file:///etc/passwd"),
        ("api.base_url", "https://[::1"),
        ("email.from_email", "$HOME"),
        ("operators.default_owner", "~root"),
        ("operators.default_owner", "a\nb"),
        ("core.default_task_retries", "1; 2"),
        ("core.default_timezone", "../etc/passwd"),
        ("core.sensitive_var_conn_names", "x" * (LONGEST_LIST + 1)),
        ("operators.default_owner", "x" * (LONGEST_VALUE + 1)),
    ],
)
def test_what_is_not_on_the_list_or_would_mean_something_else_there_is_left_out(name: str, value: str) -> None:
    assert usable({name: value, "core.default_timezone" if name != "core.default_timezone" else "x.y": "utc"}).get(name) is None


def test_nothing_on_the_list_may_hold_a_secret_or_name_code_or_a_user() -> None:
    telling = re.compile(
        r"secret(?!$)|password|_key$|conn_id$|_conn$|token|backend|callable|_class|adapter|impersonation|folder|_file"
    )
    assert [name for name in OPTIONS if telling.search(name)] == []
    assert all(option.why.endswith(".") for option in OPTIONS.values())


def test_all_values_at_their_longest_fit_into_one_environment_variable() -> None:
    longest = {name: "\U0001f512" * option.longest for name, option in OPTIONS.items()}
    assert len(json.dumps(usable(longest))) < 128 * 1024 - 100, "MAX_ARG_STRLEN of Linux"


def test_the_revision_is_of_the_values_and_not_of_their_order() -> None:
    assert revision_of({"a": "1", "b": "2"}) == revision_of({"b": "2", "a": "1"})
    assert revision_of({"a": "1"}) != revision_of({"a": "2"}) != revision_of({})
