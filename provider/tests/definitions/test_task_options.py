"""What a task may ask of the Remote Executor, and what it hears if that can't be given."""

from __future__ import annotations

import pytest
from airflow_remote_provider.definitions.task_options import BadTaskOption, TaskOptions, parse


@pytest.mark.parametrize("config", [None, {}, {"KubernetesExecutor": {"image": "x"}}, {"remote": None}, {"remote": {}}, "text"])
def test_who_asks_for_nothing_gets_the_defaults(config: object) -> None:
    assert parse(config) == TaskOptions()


@pytest.mark.parametrize(
    ("said", "seconds"),
    [(7200, 7200), (90.5, 90.5), ("7200", 7200), ("90s", 90), ("30m", 1800), ("2h", 7200), ("1.5d", 129_600), (" 2 h ", 7200)],
)
def test_lost_after_is_seconds_or_a_text(said: object, seconds: float) -> None:
    assert parse({"remote": {"lost_after": said}}).lost_after_s == seconds


@pytest.mark.parametrize("said", ["soon", "2 hours", "-1", "", True, [], {}, "1h30m", "nan"])
def test_what_is_no_duration_is_refused_with_an_example(said: object) -> None:
    with pytest.raises(BadTaskOption, match=r"lost_after.*no duration.*'2h'"):
        parse({"remote": {"lost_after": said}})


@pytest.mark.parametrize("said", [0, 5, -60, "8d", float("inf"), float("nan")])
def test_what_is_out_of_range_is_refused_with_the_range(said: object) -> None:
    with pytest.raises(BadTaskOption, match=r"lost_after.*from 30 seconds to 7 days"):
        parse({"remote": {"lost_after": said}})


def test_a_misspelled_option_is_named() -> None:
    with pytest.raises(BadTaskOption, match=r"'lost_aftr'.*did you mean 'lost_after'"):
        parse({"remote": {"lost_aftr": "2h"}})


def test_what_is_no_dict_is_refused_with_an_example() -> None:
    with pytest.raises(BadTaskOption, match=r"is a str .*must be a dict"):
        parse({"remote": "2h"})


def test_labels_are_a_dict_of_texts() -> None:
    assert parse({"remote": {"labels": {"site": "kiel", "gpu": "yes"}}}).labels == {"site": "kiel", "gpu": "yes"}


@pytest.mark.parametrize("said", ["gpu", ["gpu"], {"gpu": True}, {"": "x"}, {"gpu": ""}, {1: "x"}])
def test_what_are_no_labels_is_refused_with_an_example(said: object) -> None:
    with pytest.raises(BadTaskOption, match=r"labels.*no dict of texts.*\"gpu\": \"yes\""):
        parse({"remote": {"labels": said}})


def test_labels_that_no_row_can_hold_are_refused() -> None:
    with pytest.raises(BadTaskOption, match="name fewer labels"):
        parse({"remote": {"labels": {f"label-{number}": "x" * 50 for number in range(20)}}})
