"""Which runtime each worker is to have, and in which it runs a job."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
from airflow_remote_protocol.messages import TreeRef
from airflow_remote_provider.definitions.needs import encode_labels
from airflow_remote_provider.ledger.assignments import Host, Plan, Rollout, assign, bucket, choose, needed_serials, usable
from hypothesis import given
from hypothesis import strategies as st

LINUX, MUSL = "cp311-linux-gnu-x86_64", "cp311-linux-musl-x86_64"


def _tree(number: int) -> TreeRef:
    return TreeRef(f"{number:064x}", 1, 10)


def _plan(rollout: Rollout | None, serials: Mapping[int, tuple[str, ...]], *, queues: Mapping[str, str] | None = None) -> Plan:
    """Return a plan of one runtime; the digest of serial N is N for Linux and 1000 + N for musl."""
    trees = {s: {p: _tree(s if p == LINUX else 1000 + s) for p in platforms} for s, platforms in serials.items()}
    return Plan({} if rollout is None else {"default": rollout}, {"default": trees}, queues or {})


def _host(*ready: int, platform: str = LINUX, labels: Mapping[str, str] | None = None, worker_id: str = "w") -> Host:
    return Host(worker_id, ("q",), platform, labels or {}, frozenset(f"{one:064x}" for one in ready))


BOTH = {1: (LINUX,), 2: (LINUX,)}
LOW = next(f"w{n}" for n in range(1000) if bucket(f"w{n}", "default") < 10)
HIGH = next(f"w{n}" for n in range(1000) if bucket(f"w{n}", "default") >= 90)


def _serial(plan: Plan, host: Host) -> int | None:
    ref = choose(plan, host, "default")
    return None if ref is None else ref.serial


def test_the_share_of_a_rollout_decides_which_workers_have_the_new_serial() -> None:
    plan = _plan(Rollout(2, 1, percent=10), BOTH)
    assert (_serial(plan, _host(worker_id=LOW)), _serial(plan, _host(worker_id=HIGH))) == (2, 1)


def test_without_an_earlier_serial_all_workers_have_the_rolled_one() -> None:
    assert _serial(_plan(Rollout(1, 0, percent=10), BOTH), _host(worker_id=HIGH)) == 1


def test_labels_limit_a_rollout() -> None:
    plan = _plan(Rollout(2, 1, labels=encode_labels({"site": "lab"})), BOTH)
    assert _serial(plan, _host(labels={"site": "lab", "gpu": "1"})) == 2
    assert _serial(plan, _host(labels={"site": "plant"})) == 1


def test_a_halted_rollout_stays_only_where_it_is_ready() -> None:
    plan = _plan(Rollout(2, 1, halted="worker x: no"), BOTH)
    assert _serial(plan, _host(1)) == 1
    assert _serial(plan, _host(1, 2)) == 2


def test_a_platform_that_a_serial_lacks_has_the_newest_older_one() -> None:
    serials = {1: (LINUX, MUSL), 2: (LINUX,), 3: (LINUX,)}
    assert _serial(_plan(Rollout(3, 2), serials), _host(platform=MUSL)) == 1


def test_a_platform_whose_first_serial_is_being_rolled_out_has_it_whatever_the_share() -> None:
    serials = {1: (LINUX,), 2: (LINUX, MUSL)}
    assert _serial(_plan(Rollout(2, 1, percent=0), serials), _host(platform=MUSL)) == 2
    assert _serial(_plan(Rollout(2, 1, percent=0, halted="no"), serials), _host(platform=MUSL)) is None


def test_the_previous_serial_is_kept_for_a_rollback() -> None:
    found = assign(_plan(Rollout(2, 1), BOTH), _host(1, 2))
    assert [ref.serial for ref in found.wanted] == [2]
    assert found.kept == (_tree(1).digest,)


def test_what_is_ready_is_kept_until_the_wanted_one_is_ready() -> None:
    plan = _plan(Rollout(3, 1), {1: (LINUX,), 2: (LINUX,), 3: (LINUX,)})
    assert assign(plan, _host(2)).kept == (_tree(1).digest, _tree(2).digest)
    assert assign(plan, _host(2, 3)).kept == (_tree(1).digest,)


def test_a_rollback_to_the_same_tree_keeps_nothing_twice() -> None:
    same = Plan({"default": Rollout(2, 1)}, {"default": {1: {LINUX: _tree(7)}, 2: {LINUX: _tree(7)}}})
    found = assign(same, _host(7))
    assert (found.kept, [ref.serial for ref in found.wanted]) == ((), [2])


@pytest.mark.parametrize(
    ("plan", "host", "text"),
    [
        (
            _plan(None, {}),
            _host(),
            "not built the runtime 'default' yet; build it: airflow remote runtimes build default --platform",
        ),
        (
            _plan(Rollout(1, built=1), {1: (MUSL,)}),
            _host(),
            f"has no edition for {LINUX}; build it: airflow remote runtimes",
        ),
        (_plan(Rollout(1, built=2), {1: (MUSL,), 2: (LINUX,)}), _host(), "roll it out: airflow remote runtimes roll default"),
        (_plan(Rollout(2, 1, halted="x: no", built=2), {1: (MUSL,), 2: (LINUX,)}), _host(), r"halted \(x: no\).*--resume"),
        (_plan(Rollout(1, built=1), {1: (LINUX,)}), _host(platform=""), "has not reported its platform"),
    ],
)
def test_what_is_missing_is_explained_with_the_command_that_helps(plan: Plan, host: Host, text: str) -> None:
    found = assign(plan, host)
    assert found.wanted == ()
    assert re.search(text, found.missing["default"])


def test_each_name_of_its_queues_is_wanted_once() -> None:
    trees = {1: {LINUX: _tree(1)}}
    plan = Plan({"default": Rollout(1), "gpu": Rollout(1)}, {"default": trees, "gpu": {1: {LINUX: _tree(5)}}}, {"g": "gpu"})
    found = assign(plan, Host("w", ("q", "g", "other"), LINUX))
    assert [(ref.name, ref.tree.digest) for ref in found.wanted] == [("default", _tree(1).digest), ("gpu", _tree(5).digest)]


def test_a_job_runs_in_the_wanted_runtime_or_in_the_one_that_is_ready() -> None:
    plan = _plan(Rollout(3, 1), {1: (LINUX,), 2: (LINUX,), 3: (LINUX,)})
    serials = [
        None if (ref := usable(plan, _host(*ready), "q")) is None else ref.serial for ready in [(), (1, 2), (2,), (1, 2, 3)]
    ]
    assert serials == [None, 1, 2, 3]


def test_a_ready_runtime_of_another_platform_or_name_runs_no_job() -> None:
    plan = _plan(Rollout(1), {1: (LINUX, MUSL)}, queues={"g": "gpu"})
    assert usable(plan, _host(1001), "q") is None
    assert usable(plan, _host(1), "g") is None


serials = st.dictionaries(st.integers(1, 6), st.sets(st.sampled_from([LINUX, MUSL]), min_size=1).map(tuple), max_size=6)
rollouts = st.builds(
    Rollout,
    serial=st.integers(0, 6),
    previous=st.integers(0, 6),
    percent=st.integers(0, 100),
    labels=st.sampled_from([None, encode_labels({"a": "b"})]),
    halted=st.sampled_from(["", "halted"]),
    built=st.integers(0, 6),
)
hosts = st.builds(
    Host,
    worker_id=st.text(min_size=1, max_size=5),
    queues=st.just(("q",)),
    platform=st.sampled_from([LINUX, MUSL, ""]),
    labels=st.sampled_from([{}, {"a": "b"}]),
    ready=st.frozensets(st.integers(1, 6).map(lambda n: f"{n:064x}"), max_size=3),
)


@given(rollouts, serials, hosts)
def test_whatever_is_wanted_exists_for_the_platform_and_is_no_newer_than_what_is_rolled(
    rollout: Rollout, some: dict[int, tuple[str, ...]], host: Host
) -> None:
    plan = _plan(rollout, some)
    found = assign(plan, host)
    assert len(found.wanted) + len(found.missing) == 1
    for ref in found.wanted:
        assert plan.editions["default"][ref.serial][host.platform] == ref.tree
        assert ref.serial <= max(rollout.serial, rollout.previous)
        assert (ref.serial, host.platform) in needed_serials(rollout, plan.editions["default"])
        assert ref.tree.digest not in found.kept
    assert all(text for text in found.missing.values())


@given(rollouts, serials, hosts)
def test_a_job_runs_only_in_what_is_ready(rollout: Rollout, some: dict[int, tuple[str, ...]], host: Host) -> None:
    ref = usable(_plan(rollout, some), host, "q")
    if ref is not None:
        assert ref.tree.digest in host.ready
    elif (wanted := choose(_plan(rollout, some), host, "default")) is not None:
        assert wanted.tree.digest not in host.ready


@given(st.text(max_size=20), st.integers(0, 100), st.integers(0, 100))
def test_a_larger_share_takes_the_new_serial_from_nobody(worker_id: str, one: int, other: int) -> None:
    low, high = sorted((one, other))
    host = _host(worker_id=worker_id)
    if _serial(_plan(Rollout(2, 1, percent=low), BOTH), host) == 2:
        assert _serial(_plan(Rollout(2, 1, percent=high), BOTH), host) == 2


def test_a_share_has_about_as_many_workers_as_it_says() -> None:
    counted = sum(bucket(f"worker-{n}", "default") < 20 for n in range(5000))
    assert 900 < counted < 1100
    assert sum(bucket(f"worker-{n}", "default") < 20 and bucket(f"worker-{n}", "gpu") < 20 for n in range(5000)) < 300
