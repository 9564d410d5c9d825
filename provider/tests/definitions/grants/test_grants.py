"""Requests that a grant allows."""

from __future__ import annotations

import pytest
from airflow_remote_provider.definitions.grants import Ask, Grant, GrantKind, named


def _grant(*globs: str) -> Grant:
    return Grant({GrantKind.VARIABLES: frozenset(globs)})


@pytest.mark.parametrize(
    ("glob", "name", "allowed"),
    [
        ("plant", "plant", True),
        ("plant", "Plant", False),
        ("plant", "plant2", False),
        ("plant_*", "plant_7", True),
        ("plant_*", "plant_a/b", True),
        ("plant_*", "plant", False),
        ("plant_?", "plant_77", False),
        ("plant_[12]", "plant_2", True),
        ("*", "anything", True),
        ("*", "", True),
    ],
)
def test_globs_match_whole_names(glob: str, name: str, allowed: bool) -> None:
    assert _grant(glob).allows(Ask(GrantKind.VARIABLES, (name,))) is allowed


def test_kinds_are_separate() -> None:
    assert not _grant("*").allows(Ask(GrantKind.WRITES, ("a",)))
    assert not Grant().allows(Ask(GrantKind.VARIABLES, ("",)))


def test_one_of_several_names_is_enough() -> None:
    assert _grant("b").allows(Ask(GrantKind.VARIABLES, ("a", "b")))
    assert not _grant("c").allows(Ask(GrantKind.VARIABLES, ("a", "b")))


@pytest.mark.parametrize(
    ("glob", "prefix", "allowed"),
    [
        ("plant_*", "plant_", True),
        ("plant_*", "plant_7", True),
        ("plant_*", "plant", False),
        ("plant_*", "", False),
        ("plant_7", "plant_7", False),
        ("plant_?", "plant_", False),
        ("p?ant_*", "plant_", False),
        ("*_key", "", False),
        ("*", "", True),
    ],
)
def test_a_listing_needs_one_glob_that_covers_it(glob: str, prefix: str, allowed: bool) -> None:
    assert _grant(glob).allows(Ask(GrantKind.VARIABLES, (prefix,), listing=True)) is allowed


def test_grants_are_combined() -> None:
    both = _grant("a") | Grant({GrantKind.DAGS: frozenset({"d"}), GrantKind.VARIABLES: frozenset({"b"})})
    assert both.globs == {GrantKind.VARIABLES: {"a", "b"}, GrantKind.DAGS: {"d"}}
    assert both and not Grant({GrantKind.DAGS: frozenset()})


def test_a_name_is_not_a_glob() -> None:
    grant = named({GrantKind.CONNECTIONS: ["a*"]})
    assert grant.allows(Ask(GrantKind.CONNECTIONS, ("a*",)))
    assert not grant.allows(Ask(GrantKind.CONNECTIONS, ("ab",)))
