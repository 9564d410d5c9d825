"""Tests bench/figures.py: the arithmetic, and the JSON that other programs read."""

from __future__ import annotations

import json

import pytest

from bench.figures import HEADLINES, Figure, headline, percentile


def _figure(name: str = "chain_total", **samples: list[float]) -> Figure:
    return Figure.of(name, "s", "text", samples)


def test_a_figure_is_the_median_of_its_samples() -> None:
    assert _figure(remote=[3.0, 1.0, 2.0]).values == {"remote": 2.0}


def test_a_ratio_is_our_value_divided_by_the_peers_value() -> None:
    figure = _figure(remote=[3.0], local=[2.0])
    assert figure.ratio("local") == 1.5
    assert figure.peers == ["local"]


@pytest.mark.parametrize("samples", [{"remote": [1.0]}, {"local": [1.0]}, {"remote": [1.0], "local": [0.0]}])
def test_a_ratio_needs_both_values(samples: dict[str, list[float]]) -> None:
    assert _figure(**samples).ratio("local") is None


def test_the_json_holds_our_value_the_peers_and_the_ratios() -> None:
    result = json.loads(json.dumps(_figure(remote=[2.0, 4.0], local=[6.0], celery=[0.0]).as_json()))
    assert result["ours"] == 3.0
    assert result["peers"] == {"local": 6.0, "celery": 0.0}
    assert result["ratios"] == {"local": 0.5}
    assert result["samples"]["remote"] == [2.0, 4.0]


@pytest.mark.parametrize(
    ("count", "percent", "expected"), [(1, 95, 1), (8, 95, 8), (16, 95, 16), (20, 95, 19), (100, 95, 95), (4, 50, 2), (5, 0, 1)]
)
def test_a_percentile_is_one_of_the_values(count: int, percent: float, expected: float) -> None:
    values = [float(value) for value in range(count, 0, -1)]
    assert percentile(values, percent) == expected


def test_a_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 95)


def test_the_headline_has_ratios_and_own_values_and_omits_figures_that_were_not_measured() -> None:
    figures = [
        _figure("chain_total", remote=[10.0], local=[8.0], celery=[5.0]),
        _figure("chain_started_p50", remote=[0.1], local=[0.02]),
        Figure("kill_p95", "s", "text", {"remote": 0.91239}),
    ]
    assert headline(figures) == {"chain_started_p50_ratio_local": 5.0, "chain_total_ratio_local": 1.25, "kill_p95_s": 0.912}


def test_the_budgets_names_are_among_the_headlines() -> None:
    wanted = {
        "chain_started_p50_ratio_celery",
        "chain_total_ratio_local",
        "fifty_tasks_ratio_celery",
        "idle_1000_cpu_percent",
        "idle_1000_statements_per_s",
        "kill_p95_s",
    }
    assert wanted <= set(HEADLINES)
