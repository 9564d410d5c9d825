from __future__ import annotations

from airflow_remote_worker.lifecycle import EXIT_OK, EXIT_REFUSED, Lifecycle, Phase


def test_one_signal_drains_a_second_detaches() -> None:
    lifecycle = Lifecycle()
    lifecycle.on_signal("SIGTERM")
    assert lifecycle.phase is Phase.DRAINING
    assert not lifecycle.detaching.is_set()
    lifecycle.on_signal("SIGINT")
    assert lifecycle.phase is Phase.DETACHING
    assert lifecycle.exit_code == EXIT_OK


def test_the_first_reason_to_detach_is_kept() -> None:
    lifecycle = Lifecycle()
    lifecycle.detach("revoked", exit_code=EXIT_REFUSED)
    lifecycle.detach("drained")
    lifecycle.drain("late")
    assert (lifecycle.reason, lifecycle.exit_code, lifecycle.phase) == ("revoked", EXIT_REFUSED, Phase.DETACHING)


def test_a_restart_detaches_only_while_serving() -> None:
    serving, draining = Lifecycle(), Lifecycle()
    draining.drain("SIGTERM")
    for lifecycle in (serving, draining):
        lifecycle.restart("wanted")
    assert (serving.phase, serving.restarts) == (Phase.DETACHING, True)
    assert (draining.phase, draining.restarts) == (Phase.DRAINING, False)


def test_detaching_also_ends_the_wait_for_draining() -> None:
    lifecycle = Lifecycle()
    lifecycle.detach("now")
    assert lifecycle.draining.is_set()


def test_a_refusal_is_ignored_while_the_credential_is_given_back() -> None:
    lifecycle = Lifecycle()
    lifecycle.drain("leave")
    lifecycle.is_leaving = True
    lifecycle.detach("revoked", exit_code=EXIT_REFUSED)
    assert lifecycle.phase is Phase.DRAINING
    lifecycle.detach("left")
    assert (lifecycle.reason, lifecycle.exit_code) == ("left", EXIT_OK)
