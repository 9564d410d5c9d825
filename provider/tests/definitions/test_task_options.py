"""Options of a task, and the errors for invalid ones."""

from __future__ import annotations

import pytest
from airflow_remote_provider.definitions.task_options import BadTaskOption, TaskOptions, parse


@pytest.mark.parametrize("config", [None, {}, {"KubernetesExecutor": {"image": "x"}}, {"remote": None}, {"remote": {}}, "text"])
def test_a_task_without_options_gets_the_defaults(config: object) -> None:
    assert parse(config) == TaskOptions()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(7200, 7200), (90.5, 90.5), ("7200", 7200), ("90s", 90), ("30m", 1800), ("2h", 7200), ("1.5d", 129_600), (" 2 h ", 7200)],
)
def test_lost_after_is_seconds_or_a_text(value: object, seconds: float) -> None:
    assert parse({"remote": {"lost_after": value}}).lost_after_s == seconds


@pytest.mark.parametrize("value", ["soon", "2 hours", "-1", "", True, [], {}, "1h30m", "nan"])
def test_a_bad_duration_is_refused_with_an_example(value: object) -> None:
    with pytest.raises(BadTaskOption, match=r"lost_after.*not a duration.*'2h'"):
        parse({"remote": {"lost_after": value}})


@pytest.mark.parametrize("value", [0, 5, -60, "8d", float("inf"), float("nan")])
def test_a_value_out_of_range_is_refused_with_the_range(value: object) -> None:
    with pytest.raises(BadTaskOption, match=r"lost_after.*write 30 seconds to 7 days"):
        parse({"remote": {"lost_after": value}})


def test_a_misspelled_option_gets_a_suggestion() -> None:
    with pytest.raises(BadTaskOption, match=r"'lost_aftr'.*did you mean 'lost_after'"):
        parse({"remote": {"lost_aftr": "2h"}})


def test_options_that_are_not_a_dict_are_refused_with_an_example() -> None:
    with pytest.raises(BadTaskOption, match=r"is a str .*must be a dict"):
        parse({"remote": "2h"})


def test_labels_are_a_dict_of_strings() -> None:
    assert parse({"remote": {"labels": {"site": "kiel", "gpu": "yes"}}}).labels == {"site": "kiel", "gpu": "yes"}


@pytest.mark.parametrize("value", ["gpu", ["gpu"], {"gpu": True}, {"": "x"}, {"gpu": ""}, {1: "x"}])
def test_bad_labels_are_refused_with_an_example(value: object) -> None:
    with pytest.raises(BadTaskOption, match=r"labels.*not a dict of strings.*\"gpu\": \"yes\""):
        parse({"remote": {"labels": value}})


def test_too_long_labels_are_refused() -> None:
    with pytest.raises(BadTaskOption, match="name fewer labels"):
        parse({"remote": {"labels": {f"label-{number}": "x" * 50 for number in range(20)}}})
