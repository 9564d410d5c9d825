from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from airflow_remote_protocol.platforms import Platform
from airflow_remote_worker.code.interpreter import find
from airflow_remote_worker.config import Config, QueueConfig, RuntimeConfig, TrustConfig, UpdateConfig
from airflow_remote_worker.local.interpreter import describe

STATE = Path("state")


def with_runtime(**settings: Path) -> Config:
    return Config(state=STATE, runtime=RuntimeConfig(**settings))


def test_the_base_of_the_worker_s_own_interpreter_is_used() -> None:
    found = find(with_runtime())
    assert found.trouble == ""
    assert Platform.parse(found.platform).python == found.minor == f"3.{sys.version_info[1]}"
    assert found.python.resolve() == Path(sys._base_executable).resolve()  # type: ignore[attr-defined]


def test_another_interpreter_is_asked_and_an_environment_is_traced_to_its_base() -> None:
    found = find(with_runtime(interpreter=Path(sys.executable)))
    assert found == find(with_runtime())


def test_with_a_runtime_of_the_site_no_interpreter_is_needed() -> None:
    found = find(with_runtime(python=Path("/own/bin/python")))
    assert (found.platform, found.trouble) == ("", "")


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({"machine": "AMD64", "bits": 32}, "cp312-linux-gnu-i686"),
        ({"machine": "arm64", "system": "Darwin", "libc": ""}, "cp312-macos-aarch64"),
        ({"libc": "musl", "version": "3.10.14"}, "cp310-linux-musl-x86_64"),
    ],
)
def test_each_kind_of_machine_has_a_platform(tmp_path: Path, other: dict[str, object], expected: str) -> None:
    assert find(with_runtime(interpreter=_that_says(tmp_path, other))).platform == expected


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"implementation": "pypy"}, "it is pypy"),
        ({"free_threaded": True}, "without a global lock"),
        ({"version": "3.9.1"}, "tasks need 3.10 or newer"),
        ({"system": "Plan9", "libc": ""}, "central has no builds for Plan9"),
    ],
)
def test_an_unusable_interpreter_is_named_with_the_remedy(tmp_path: Path, other: dict[str, object], reason: str) -> None:
    python = _that_says(tmp_path, other)
    found = find(with_runtime(interpreter=python))
    assert found.platform == ""
    assert reason in found.trouble
    assert "set runtime.interpreter to a CPython of 3.10 or newer" in found.trouble


def test_a_missing_interpreter_is_named() -> None:
    assert "/nowhere can't be used" in find(with_runtime(interpreter=Path("/nowhere"))).trouble


def _that_says(tmp_path: Path, other: dict[str, object]) -> Path:
    """Return a program that answers as an interpreter would."""
    usual = {"implementation": "cpython", "version": "3.12.1", "system": "Linux", "libc": "gnu", "machine": "x86_64", "bits": 64}
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\necho '{json.dumps({**describe(), **usual, **other})}'\n")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (Config(state=STATE, update=UpdateConfig(accept="off")), "update.accept is off"),
        (Config(state=STATE, run_as_user="nobody"), "set update.accept = 'central'"),
        (Config(state=STATE, update=UpdateConfig(accept="signed")), "this worker trusts no key"),
        (Config(state=STATE, queues={"gpu": QueueConfig(run_as_user="nobody")}), "set update.accept = 'central'"),
        (Config(state=STATE, run_as_user="nobody", update=UpdateConfig(accept="off")), "update.accept is off"),
    ],
)
def test_a_site_refuses_runtimes_and_says_by_which_setting(config: Config, reason: str) -> None:
    found = find(config)
    assert found.platform == ""
    assert reason in found.trouble
    assert "runtime.python" in found.trouble


def test_tasks_of_another_user_run_in_central_s_runtime_if_keys_must_have_signed_it() -> None:
    config = Config(state=STATE, run_as_user="nobody", trust=TrustConfig(runtimes=("/a.pub",)))
    assert config.needs_signed_updates
    assert find(config).trouble == ""
    assert config.refuses_releases, "there is no key for releases"


def test_tasks_of_another_user_run_in_central_s_runtime_if_the_site_allows_it() -> None:
    assert find(Config(state=STATE, run_as_user="nobody", update=UpdateConfig(accept="central"))).trouble == ""
