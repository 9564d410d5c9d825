"""How many downloads of code a process serves, and how many of them one worker has."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_provider.api.admission.downloads import OF_WORKER, Downloads
from airflow_remote_provider.api.problems import Refusal


def _refused(downloads: Downloads, worker: str) -> Refusal:
    with pytest.raises(Refusal) as refused, downloads.place(worker):
        pass
    assert refused.value.code is ProblemCode.BUSY
    assert refused.value.retry_after_s is not None and 1 <= refused.value.retry_after_s <= 4
    return refused.value


def test_the_process_serves_only_so_many_at_once() -> None:
    downloads = Downloads(3)
    with ExitStack() as places:
        for number in range(3):
            places.enter_context(downloads.place(f"w{number}"))
        assert "pack_concurrency" in str(_refused(downloads, "w4"))
    with downloads.place("w4"):
        pass


def test_one_worker_has_only_a_few() -> None:
    downloads = Downloads(64)
    with ExitStack() as places:
        for _ in range(OF_WORKER):
            places.enter_context(downloads.place("greedy"))
        assert "this worker has 4" in str(_refused(downloads, "greedy"))
        with downloads.place("other"):
            pass


def test_when_half_of_the_places_are_taken_a_worker_has_one() -> None:
    downloads = Downloads(8)
    with ExitStack() as places:
        for _ in range(4):
            places.enter_context(downloads.place("first"))
        places.enter_context(downloads.place("second"))
        _refused(downloads, "second")
        places.enter_context(downloads.place("third"))


def test_a_place_is_given_back_whatever_happens() -> None:
    downloads = Downloads(1)
    for _ in range(3):
        with pytest.raises(KeyError), downloads.place("w"):
            raise KeyError
    with downloads.place("w"):
        pass
    assert downloads._under_way == {} and downloads._all == 0
