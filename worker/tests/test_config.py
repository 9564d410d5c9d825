from __future__ import annotations

from pathlib import Path

import pytest
from airflow_remote_worker.config import AcceptConfig, Config, ConfigError, UpdateConfig, check_central, default_name, load


def test_flags_override_the_environment_which_overrides_the_file(tmp_path: Path) -> None:
    (tmp_path / "worker.toml").write_text(
        'slots = 1\nname = "file"\n[runtime]\npython = "/file/python"\n[runtime.env]\nA = "1"\n'
    )
    environ = {
        "AIRFLOW_REMOTE_WORKER_HOME": str(tmp_path),
        "AIRFLOW_REMOTE_WORKER_SLOTS": "2",
        "AIRFLOW_REMOTE_WORKER_RUNTIME__PYTHON": "/env/python",
        "AIRFLOW_REMOTE_WORKER_BUNDLES__Etl__PATH": "/dags",
    }
    config = load({"slots": 3, "name": None}, environ=environ)
    assert (config.slots, config.name) == (3, "file")
    assert config.runtime.python == Path("/env/python")
    assert config.runtime.env == {"A": "1"}
    assert config.bundles["Etl"].path == Path("/dags")
    assert config.state == tmp_path


def test_variables_for_tasks_keep_their_case() -> None:
    config = load({}, environ={"AIRFLOW_REMOTE_WORKER_RUNTIME__ENV__My__Var": "x"})
    assert config.runtime.env == {"My__Var": "x"}


@pytest.mark.parametrize(
    ("environ", "key"),
    [
        ({"AIRFLOW_REMOTE_WORKER_SLOT": "2"}, "slot:"),
        ({"AIRFLOW_REMOTE_WORKER_RUNTIME__PYTON": "2"}, "runtime.pyton:"),
        ({"AIRFLOW_REMOTE_WORKER_SLOTS": "many"}, "slots:"),
        ({"AIRFLOW_REMOTE_WORKER_SLOTS": "0"}, "slots:"),
        ({"AIRFLOW_REMOTE_WORKER_CENTRAL": "airflow.example.com"}, "central:"),
    ],
)
def test_a_bad_setting_is_named(environ: dict[str, str], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({}, environ=environ)
    assert str(caught.value).startswith(key)


@pytest.mark.parametrize("name", ["HOME", "TOKEN", "AIRFLOW_TOKEN", "LOG_LEVEL"])
def test_variables_with_their_own_meaning_are_not_settings(name: str) -> None:
    load({}, environ={f"AIRFLOW_REMOTE_WORKER_{name}": "DEBUG"})


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text("slots = = 2")
    with pytest.raises(ConfigError, match=r"x\.toml is not valid TOML"):
        load({}, environ={}, file=file)
    with pytest.raises(ConfigError, match="can't be read"):
        load({}, environ={}, file=tmp_path / "none.toml")


@pytest.mark.parametrize("url", ["http://localhost:8080", "http://127.0.0.1/airflow", "http://[::1]:80", "https://a.example.com"])
def test_https_and_addresses_of_this_machine_are_allowed(url: str) -> None:
    assert check_central(url + "/", insecure_http=False) == url


def test_plain_http_to_another_machine_must_be_allowed() -> None:
    with pytest.raises(ConfigError, match="unencrypted"):
        check_central("http://a.example.com", insecure_http=False)
    check_central("http://a.example.com", insecure_http=True)


def test_a_password_in_the_address_is_refused() -> None:
    with pytest.raises(ConfigError, match="no user"):
        check_central("https://me:pw@a.example.com", insecure_http=False)


def test_the_default_name_is_valid() -> None:
    assert default_name()[0].isalnum()


def test_a_queue_can_have_its_own_user(tmp_path: Path) -> None:
    (tmp_path / "worker.toml").write_text('run_as_user = "tasks"\n[queues."big GPU"]\nrun_as_user = "gpu"\n[queues.other]\n')
    config = load({"state": tmp_path}, environ={"AIRFLOW_REMOTE_WORKER_QUEUES__Fast__RUN_AS_USER": "fast"})
    users = {queue: config.user_of(queue) for queue in ("big GPU", "other", "Fast", "fast")}
    assert users == {"big GPU": "gpu", "other": "tasks", "Fast": "fast", "fast": "tasks"}


def test_what_a_site_accepts_is_a_list_in_the_file_and_in_a_variable(tmp_path: Path) -> None:
    assert load({"state": tmp_path}, environ={}).accept == AcceptConfig(bundles=("*",), dags=("*",), queues=("*",))
    (tmp_path / "worker.toml").write_text('[accept]\nbundles = ["etl-*", "x"]\n[code]\nmax_kbit_s = 64\n')
    config = load({"state": tmp_path}, environ={"AIRFLOW_REMOTE_WORKER_ACCEPT__DAGS": "a, b_*"})
    assert (config.accept.bundles, config.accept.dags) == (("etl-*", "x"), ("a", "b_*"))
    assert (config.code.max_kbit_s, config.code_path) == (64, tmp_path / "code")


@pytest.mark.parametrize(
    ("settings", "shares"),
    [
        ({}, False),
        ({"run_as_user": "x"}, True),
        ({"queues": {"q": {"run_as_user": "x"}}}, True),
        ({"run_as_user": "x", "code": {"path": "/srv/code"}}, False),
    ],
)
def test_the_state_directory_is_shared_only_if_other_users_need_code_in_it(
    tmp_path: Path, settings: dict[str, object], shares: bool
) -> None:
    assert load({"state": tmp_path, **settings}, environ={}).shares_state is shares


def test_releases_of_the_worker_are_taken_only_where_they_get_no_further_rights(tmp_path: Path) -> None:
    assert Config(state=tmp_path).refuses_releases == ""
    assert "run_as_user is set" in Config(state=tmp_path, run_as_user="nobody").refuses_releases
    assert Config(state=tmp_path, run_as_user="nobody", update=UpdateConfig(accept="central")).refuses_releases == ""
    assert Config(state=tmp_path, update=UpdateConfig(accept="off")).refuses_releases == "update.accept is off"
