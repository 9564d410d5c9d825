"""`[remote]`: defaults, bounds, and the errors for invalid values."""

from __future__ import annotations

import pytest
from airflow_remote_provider.settings import OPTIONS, BadSetting, parse


def test_an_option_that_is_not_set_has_its_default() -> None:
    settings = parse({})
    assert {name: getattr(settings, name) for name in OPTIONS} == {name: option.default for name, option in OPTIONS.items()}


@pytest.mark.parametrize("name", OPTIONS)
def test_the_bounds_themselves_are_allowed(name: str) -> None:
    option = OPTIONS[name]
    for bound in (option.least, option.most):
        assert getattr(parse({name: str(bound)}), name) == bound


@pytest.mark.parametrize("name", OPTIONS)
def test_a_value_out_of_range_is_refused_with_name_value_and_range(name: str) -> None:
    option = OPTIONS[name]
    for text in (str(option.least - 1), str(option.most + 1), "nan", "inf"):
        with pytest.raises(BadSetting, match="out of range") as refused:
            parse({name: text})
        for part in (f"[remote] {name}", text, f"{option.least:g}", f"{option.most:g}"):
            assert part in str(refused.value)


def test_a_text_in_place_of_a_number_is_refused() -> None:
    with pytest.raises(BadSetting, match=r"\[remote\] poll_seconds = 'soon' is not a number"):
        parse({"poll_seconds": "soon"})


def test_blank_means_not_set() -> None:
    assert parse({"poll_seconds": "  "}).poll_seconds == OPTIONS["poll_seconds"].default


def test_counts_are_whole_numbers() -> None:
    settings = parse({})
    for name in ("offer_attempts", "ledger_threads", "gateway_concurrency", "gateway_body_bytes", "tree_files", "blob_bytes"):
        assert type(getattr(settings, name)) is int


def test_every_option_is_described() -> None:
    for name, option in OPTIONS.items():
        assert option.text.endswith("."), name
        assert option.least <= option.default <= option.most, name


@pytest.mark.parametrize(("text", "is_on"), [("", False), ("True", True), ("yes", True), ("0", False), (" off ", False)])
def test_a_switch_is_on_or_off(text: str, is_on: bool) -> None:
    assert parse({"suspend_on_replay": text}).suspend_on_replay is is_on


def test_a_switch_that_is_neither_is_named() -> None:
    with pytest.raises(BadSetting, match="suspend_on_replay = 'perhaps'"):
        parse({"suspend_on_replay": "perhaps"})


@pytest.mark.parametrize("text", ["auto", "off", " auto ", ""])
def test_one_of_the_choices_is_taken(text: str) -> None:
    assert parse({"publish": text}).publish == (text.strip() or "auto")


def test_a_value_that_is_no_choice_is_refused_with_the_choices() -> None:
    with pytest.raises(BadSetting, match=r"\[remote\] publish = 'on' is unknown; set auto or off"):
        parse({"publish": "on"})
