"""What a job requires of a worker besides its queue."""

from __future__ import annotations

import pytest
from airflow_remote_provider.definitions.needs import encode_labels, pairs_of, suits

KIEL = {"site": "kiel", "gpu": "yes"}


def test_equal_labels_have_the_same_encoding() -> None:
    assert encode_labels(KIEL) == encode_labels(dict(reversed(KIEL.items()))) == '{"gpu":"yes","site":"kiel"}'
    assert encode_labels({}) is None
    assert pairs_of(encode_labels(KIEL) or "") == KIEL.items()


@pytest.mark.parametrize(
    ("needed", "bundle", "bundles", "is_so"),
    [
        (None, None, None, True),
        ({"site": "kiel"}, None, None, True),
        (KIEL, None, None, True),
        ({"site": "ulm"}, None, None, False),
        ({"site": "Kiel"}, None, None, False),
        ({**KIEL, "more": "1"}, None, None, False),
        (None, "plant-a", ["plant-*"], True),
        (None, "plant-a", ["office", "plant-a"], True),
        (None, "plant-a", ["office"], False),
        (None, None, ["office"], True),
        ({"site": "kiel"}, "plant-a", ["office"], False),
    ],
)
def test_a_worker_suits_if_it_has_all_labels_and_the_right_to_the_bundle(
    needed: dict[str, str] | None, bundle: str | None, bundles: list[str] | None, is_so: bool
) -> None:
    assert suits(KIEL, bundles, needed=encode_labels(needed or {}), bundle=bundle) is is_so
