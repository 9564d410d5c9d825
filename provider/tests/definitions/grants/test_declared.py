"""Declarations of grants in `executor_config`, and the errors for invalid ones."""

from __future__ import annotations

import pytest
from airflow_remote_provider.definitions.grants import DECLARED, GrantKind
from airflow_remote_provider.definitions.grants.declared import BadDeclaration, declared, noted, spell


def test_names_of_every_kind_are_accepted() -> None:
    section = {kind.value: ["a", "b_*"] for kind in DECLARED}
    assert declared({"remote": section}).globs == {kind: {"a", "b_*"} for kind in DECLARED}


def test_code_on_central_cannot_be_declared() -> None:
    with pytest.raises(BadDeclaration, match="code_on_central"):
        declared({"remote": {GrantKind.CODE_ON_CENTRAL.value: ["x.Trigger"]}})


@pytest.mark.parametrize("config", [None, {}, {"KubernetesExecutor": {}}, {"remote": None}, {"remote": {}}, "nonsense"])
def test_no_section_declares_nothing(config: object) -> None:
    assert not declared(config) and not noted(config)


def test_keys_that_are_not_about_grants_are_ignored() -> None:
    assert not declared({"remote": {"lost_after": 600}})


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("plant", "is a str"),
        ({"connections": "plant"}, r'\["connections"\] is a str .*must be a list'),
        ({"connections": ["a", 1]}, "is a list"),
        ({"variables": [""]}, "is a list"),
        ({"connection": ["a"]}, "did you mean 'connections'"),
        ({"colour": "red"}, "unknown key 'colour'. Known keys: asset_writes, assets, connections"),
        ({1: 2}, "unknown key 1"),
    ],
)
def test_an_invalid_declaration_is_named_with_the_remedy(section: object, message: str) -> None:
    with pytest.raises(BadDeclaration, match=message):
        declared({"remote": section})


def test_noted_names_are_literal() -> None:
    grant = noted({"remote_inferred": {"connections": ["a[1]*"]}})
    assert grant.globs[GrantKind.CONNECTIONS] == {"a[[]1][*]"}


def test_a_declaration_is_written_as_python() -> None:
    text = spell({GrantKind.VARIABLES: ["b", 'a"'], GrantKind.CONNECTIONS: [], GrantKind.DAGS: ["d"]})
    assert text == 'executor_config={"remote": {"variables": ["a\\"", "b"], "dags": ["d"]}}'
    assert eval(f"dict({text})") == {"executor_config": {"remote": {"variables": ['a"', "b"], "dags": ["d"]}}}
