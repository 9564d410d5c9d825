from __future__ import annotations

import json
import re

import pytest
from airflow_remote_protocol.task_settings import MAX_LIST_LENGTH, MAX_VALUE_LENGTH, OPTIONS, compute_revision, filter_usable


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
def test_an_allowed_value_is_passed_on_unchanged(name: str, value: str) -> None:
    assert filter_usable({name: value}) == {name: value}


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
        ("core.sensitive_var_conn_names", "x" * (MAX_LIST_LENGTH + 1)),
        ("operators.default_owner", "x" * (MAX_VALUE_LENGTH + 1)),
    ],
)
def test_an_unlisted_option_or_a_value_with_another_meaning_at_the_site_is_left_out(name: str, value: str) -> None:
    assert (
        filter_usable({name: value, "core.default_timezone" if name != "core.default_timezone" else "x.y": "utc"}).get(name)
        is None
    )


def test_no_listed_option_may_contain_a_secret_or_name_code_or_a_user() -> None:
    suspicious = re.compile(
        r"secret(?!$)|password|_key$|conn_id$|_conn$|token|backend|callable|_class|adapter|impersonation|folder|_file"
    )
    assert [name for name in OPTIONS if suspicious.search(name)] == []
    assert all(option.why.endswith(".") for option in OPTIONS.values())


def test_all_values_at_their_longest_fit_into_one_environment_variable() -> None:
    longest = {name: "\U0001f512" * option.longest for name, option in OPTIONS.items()}
    assert len(json.dumps(filter_usable(longest))) < 128 * 1024 - 100, "MAX_ARG_STRLEN of Linux"


def test_the_revision_depends_on_the_values_and_not_on_their_order() -> None:
    assert compute_revision({"a": "1", "b": "2"}) == compute_revision({"b": "2", "a": "1"})
    assert compute_revision({"a": "1"}) != compute_revision({"a": "2"}) != compute_revision({})
