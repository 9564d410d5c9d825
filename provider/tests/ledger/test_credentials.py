"""Enrolment tokens and credentials: their uses, bounds and expiry; secrets are never stored."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from airflow_remote_protocol.messages import Enrolled, Enrolment, Facts
from airflow_remote_protocol.tokens import TokenKind, check_token, hash_token
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import credentials, lost_jobs, sessions, workers
from airflow_remote_provider.ledger.credentials import NewToken, TokenRow
from airflow_remote_provider.ledger.errors import LedgerError, NameTaken, NotFound, Superseded, TokenRefused
from airflow_remote_provider.ledger.views.workers import list_workers
from airflow_remote_provider.models import Base, EnrolmentToken, Worker
from sqlalchemy import Engine, func, select, text, update

from testkit.ledger import (
    ago,
    audit_entries,
    change_job,
    change_worker,
    enlist,
    job_row,
    offered,
    running,
    session_request,
    set_last_seen,
    worker_row,
)  # isort: skip

pytestmark = pytest.mark.usefixtures("database")


def _token(**changes: object) -> tuple[str, TokenRow]:
    with compat.transaction() as session:
        return credentials.create_token(session, NewToken(**{"queues": ["q"], **changes}))  # type: ignore[arg-type]


def _enrol(token: str, name: str = "worker") -> Enrolled:
    with compat.transaction() as session:
        return credentials.enrol(session, token, Enrolment(name, Facts(hostname="h")))


def _uses_left(token_id: str) -> int:
    with compat.transaction() as session:
        row = session.get(EnrolmentToken, token_id)
        assert row is not None
        return row.uses_left


def _everything_stored(engine: Engine) -> str:
    """Return every cell of all our tables, as text."""
    with engine.connect() as connection:
        rows = [row for table in Base.metadata.sorted_tables for row in connection.execute(text(f"SELECT * FROM {table.name}"))]
    return "\n".join(map(str, rows))


def test_a_worker_gets_what_its_token_allows() -> None:
    token, _ = _token(queues=["a", "b"], team="blue")
    enrolled = _enrol(token, "edge-1")
    assert (enrolled.name, enrolled.queues) == ("edge-1", ["a", "b"])
    check_token(TokenKind.WORKER, enrolled.credential)
    row = worker_row(enrolled.worker_id)
    assert (row.queues, row.team, row.facts["hostname"]) == (["a", "b"], "blue", "h")


def test_no_secret_is_ever_stored(database: Engine) -> None:
    token, row = _token()
    enrolled = _enrol(token)
    stored = _everything_stored(database)
    assert hash_token(token) in stored and hash_token(enrolled.credential) in stored
    for secret in (token, enrolled.credential):
        assert secret not in stored and secret.split("_", 1)[1].rsplit("_", 1)[0] not in stored
    assert token not in repr(row)


def test_tokens_are_listed_without_their_secrets() -> None:
    token, _ = _token(created_by="ann", uses=3)
    with compat.transaction() as session:
        (row,) = credentials.list_tokens(session)
    assert (row.created_by, row.uses_left, row.queues) == ("ann", 3, ["q"])
    assert hash_token(token) not in repr(row)


def test_a_token_is_valid_for_its_number_of_uses() -> None:
    token, _ = _token(uses=2)
    _enrol(token, "one")
    _enrol(token, "two")
    with pytest.raises(TokenRefused, match="no uses left"):
        _enrol(token, "three")


def test_names_that_differ_only_by_case_count_as_the_same() -> None:
    token, row = _token(uses=2)
    _enrol(token, "edge")
    with pytest.raises(NameTaken, match="differ only by case"):
        _enrol(token, "Edge")
    assert _uses_left(row.id) == 1


def test_a_revoked_worker_frees_its_name_in_any_case() -> None:
    token, _ = _token(uses=2)
    _enrol(token, "edge")
    with compat.transaction() as session:
        workers.revoke_worker(session, "edge")
    assert _enrol(token, "EDGE").name == "EDGE"


def test_workers_without_a_name_key_keep_their_names_taken() -> None:
    token, _ = _token(uses=3)
    old = _enrol(token, "edge")
    with compat.transaction() as session:
        session.execute(update(Worker).where(Worker.id == old.worker_id).values(name_key=None))
    with pytest.raises(NameTaken):
        _enrol(token, "EDGE")
    with compat.transaction() as session:
        assert workers.find_worker(session, "edge").id == old.worker_id


def test_a_refused_enrolment_does_not_count_as_a_use() -> None:
    token, row = _token(name_pattern="edge-*")
    with pytest.raises(TokenRefused, match="edge-"):
        _enrol(token, "office-1")
    _enrol(_token()[0], "edge-1")
    with pytest.raises(NameTaken):
        _enrol(token, "edge-1")
    assert _uses_left(row.id) == 1


def test_an_expired_token_is_refused() -> None:
    token, row = _token()
    with compat.transaction() as session:
        session.execute(update(EnrolmentToken).where(EnrolmentToken.id == row.id).values(expires_at=ago(seconds=1)))
    with pytest.raises(TokenRefused, match="expired"):
        _enrol(token)


def test_a_token_expires_after_its_lifetime() -> None:
    _, row = _token(lifetime=timedelta(minutes=7))
    assert row.expires_at - row.created_at == timedelta(minutes=7)


def test_a_revoked_token_is_refused() -> None:
    token, row = _token()
    with compat.transaction() as session:
        credentials.revoke_token(session, row.id)
    with pytest.raises(TokenRefused, match="revoked"):
        _enrol(token)


def test_the_first_revocation_of_a_token_counts() -> None:
    _, row = _token()
    times = []
    for _ in range(2):
        with compat.transaction() as session:
            credentials.revoke_token(session, row.id)
            session.flush()
            times.append(credentials.list_tokens(session)[0].revoked_at)
    assert times[0] == times[1] is not None


def test_revoking_an_unknown_token_is_refused() -> None:
    with pytest.raises(NotFound, match="no enrolment token"), compat.transaction() as session:
        credentials.revoke_token(session, "nothing")


def test_case_matters_in_a_name_pattern() -> None:
    token, _ = _token(name_pattern="Edge-?")
    with pytest.raises(TokenRefused):
        _enrol(token, "edge-1")
    assert _enrol(token, "Edge-1").name == "Edge-1"


# Names


def test_a_name_is_taken_until_its_worker_is_revoked() -> None:
    _enrol(_token()[0])
    with pytest.raises(NameTaken, match="workers remove worker"):
        _enrol(_token()[0])


@pytest.mark.parametrize("verb", [workers.revoke_worker, workers.remove_worker])
def test_the_name_of_a_revoked_worker_is_free(verb: object) -> None:
    first = _enrol(_token()[0])
    with compat.transaction() as session:
        verb(session, "worker")  # type: ignore[operator]
    second = _enrol(_token()[0])
    assert second.worker_id != first.worker_id
    with compat.transaction() as session:
        rows = list_workers(session, silent_after=timedelta(seconds=90)).rows
    assert [row.id for row in rows] == [second.worker_id]


def test_every_process_still_learns_that_a_replaced_worker_was_revoked() -> None:
    """The row must outlive the name: a process that missed the revocation would accept the old credential without end."""
    first = _enrol(_token()[0])
    with compat.transaction() as session:
        workers.revoke_worker(session, "worker")
    _enrol(_token()[0])
    with compat.transaction() as session:
        known = {record.id: record.revoked for record in workers.changed_since(session, None)}
    assert known.get(first.worker_id) is True


def test_jobs_of_a_replaced_worker_are_lost_only_after_its_silence() -> None:
    worker = enlist()
    lease = running(worker, lost_after_s=3600)
    change_job(lease.job_id, accepted_at=ago(hours=5))
    with compat.transaction() as session:
        workers.revoke_worker(session, worker.name)
    _enrol(_token()[0])
    with compat.transaction() as session:
        assert lost_jobs.lose_silent(session) == 0, "its last contact was a moment ago"


def test_only_one_of_two_concurrent_joins_gets_the_last_use() -> None:
    token, row = _token()
    results: list[object] = []
    start = threading.Barrier(2)

    def join(name: str) -> None:
        start.wait(10)
        try:
            results.append(_enrol(token, name).name)
        except TokenRefused as refused:
            results.append(refused)

    threads = [threading.Thread(target=join, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(isinstance(result, TokenRefused) for result in results) == [False, True]
    assert _uses_left(row.id) == 0


def test_only_one_of_two_concurrent_joins_gets_the_name() -> None:
    tokens = [_token()[0] for _ in range(2)]
    results: list[object] = []
    start = threading.Barrier(2)

    def join(token: str) -> None:
        start.wait(10)
        try:
            results.append(_enrol(token).name)
        except NameTaken as taken:
            results.append(taken)

    threads = [threading.Thread(target=join, args=(token,)) for token in tokens]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(isinstance(result, NameTaken) for result in results) == [False, True]
    with compat.transaction() as session:
        assert session.scalar(select(func.count()).select_from(Worker)) == 1


# Leaving


def test_a_worker_that_holds_jobs_cannot_leave() -> None:
    worker = enlist()
    lease = running(worker)
    with pytest.raises(Superseded, match="holds 1 job"), compat.transaction() as session:
        credentials.leave(session, worker.id)
    change_job(lease.job_id, state="succeeded")
    with compat.transaction() as session:
        credentials.leave(session, worker.id)
    row = worker_row(worker.id)
    assert row.revoked_at is not None and row.session_id is None


def test_a_worker_that_leaves_returns_its_offers() -> None:
    worker = enlist()
    lease = offered(worker)
    with compat.transaction() as session:
        credentials.leave(session, worker.id)
    job = job_row(lease.job_id)
    assert (job.state, job.offers, job.not_before) == ("queued", 0, None)


def test_an_ephemeral_worker_that_leaves_is_removed_and_its_name_is_free() -> None:
    token = _token(uses=2)[0]
    worker = enlist("runner", ephemeral=True)
    with pytest.raises(NameTaken):
        _enrol(token, "runner")
    with compat.transaction() as session:
        credentials.leave(session, worker.id)
    assert worker_row(worker.id).removed_at is not None
    assert [entry.worker for entry in audit_entries("left")] == ["runner"]
    assert _enrol(token, "runner").worker_id != worker.id
    with compat.transaction() as session:
        assert [row.name for row in list_workers(session, silent_after=timedelta(seconds=90)).rows] == ["runner"]


def test_a_worker_that_is_not_ephemeral_stays_listed_after_it_has_left() -> None:
    worker = enlist()
    with compat.transaction() as session:
        credentials.leave(session, worker.id)
    assert worker_row(worker.id).removed_at is None
    assert not audit_entries("left")


def test_after_a_removal_the_rebuilt_machine_can_join_again() -> None:
    worker = enlist("edge-1")
    with compat.transaction() as session:
        workers.remove_worker(session, "edge-1")
    again = _enrol(_token()[0], "edge-1")
    with compat.transaction() as session:
        record = sessions.open_session(session, again.worker_id, session_request(instance_id="another disk"))
    assert record.session_id and record.id != worker.id


@pytest.mark.parametrize(
    ("source", "is_in"),
    [("10.1.2.3", True), ("::ffff:10.1.2.3", True), ("2001:db8::1", True), ("10.2.0.1", False), ("", False), ("proxy", False)],
)
def test_a_token_bound_to_networks_only_works_from_there(source: str, is_in: bool) -> None:
    token, row = _token(networks=["10.1.0.0/16", "2001:db8::/32"])
    with compat.transaction() as session:
        if is_in:
            assert credentials.enrol(session, token, Enrolment("worker"), source=source).name == "worker"
        else:
            with pytest.raises(TokenRefused, match="not valid for the address"):
                credentials.enrol(session, token, Enrolment("worker"), source=source)
    assert _uses_left(row.id) == (0 if is_in else 1)


@pytest.mark.parametrize("network", ["10.1.0.1/16", "ten", "", "10.0.0.0/99"])
def test_a_bad_network_is_refused_when_the_token_is_made(network: str) -> None:
    with pytest.raises(LedgerError, match="not a network"):
        _token(networks=[network])


def test_a_worker_gets_the_labels_of_its_token_and_a_credential_that_expires() -> None:
    token, _ = _token(labels={"site": "kiel"})
    with compat.transaction() as session:
        enrolled = credentials.enrol(session, token, Enrolment("worker"), life=timedelta(days=30))
    row = worker_row(enrolled.worker_id)
    assert row.labels == {"site": "kiel"}
    assert row.credential_expires_at is not None and row.credential_at is not None
    assert row.credential_expires_at - row.credential_at == timedelta(days=30)


def test_enrolments_are_audited_and_refusals_are_merged_by_source_and_day() -> None:
    token, row = _token(created_by="ann")
    _enrol(token)
    for number in range(3):
        with compat.transaction() as session:
            credentials.record_refusal(session, source="10.0.0.7", name=f"w{number}", why="unknown token")
    entries = {entry.kind: entry for entry in audit_entries()}
    assert (entries["action"].actor, row.id in entries["action"].detail) == ("ann", True)
    assert (entries["enrolled"].worker, "ann" in entries["enrolled"].detail) == ("worker", True)
    refused = entries["enrolment-refused"]
    assert (refused.times, refused.actor, "w2" in refused.detail) == (3, "10.0.0.7", True)


def test_a_user_enrols_a_worker_for_the_queues_in_its_request() -> None:
    with compat.transaction() as session:
        enrolled = credentials.enrol_by_user(
            session, Enrolment("edge-1", queues=["a", "b", "a"]), by="ann", life=timedelta(days=1)
        )
        assert enrolled.queues == ["a", "b"]
    entries = {entry.kind: entry for entry in audit_entries()}
    assert entries["action"].actor == "ann" and "edge-1" in entries["action"].detail
    assert "the login of ann" in entries["enrolled"].detail


def test_an_enrolment_by_a_user_without_a_queue_is_refused() -> None:
    with compat.transaction() as session, pytest.raises(LedgerError, match="--queues"):
        credentials.enrol_by_user(session, Enrolment("edge-1"), by="ann")


def test_the_queues_of_a_token_override_those_of_the_request() -> None:
    token, _ = _token(queues=["a"])
    with compat.transaction() as session:
        assert credentials.enrol(session, token, Enrolment("edge-1", queues=["secret"])).queues == ["a"]


# Replacement of a worker


def _replacing(name: str, **changes: object) -> tuple[str, TokenRow]:
    return _token(**{"queues": [], "replaces": name, **changes})


def test_a_rebuilt_machine_replaces_its_old_worker_in_one_step() -> None:
    old = enlist("plant-7-a", queues=["a", "b"])
    change_worker(old.id, team="blue", labels={"site": "kiel"}, bundles=["plant-*"], slots_limit=2)
    set_last_seen(old.id, ago(minutes=5))
    token, row = _replacing("plant-7-a")
    assert (row.name_pattern, row.uses_left, row.replaces) == ("plant-7-a", 1, old.id)
    assert worker_row(old.id).revoked_at is None, "the old credential is valid until the token is used"
    new = worker_row(_enrol(token, "plant-7-a").worker_id)
    assert (new.queues, new.team, new.labels) == (["a", "b"], "blue", {"site": "kiel"})
    assert (new.bundles, new.slots_limit) == (["plant-*"], 2)
    before = worker_row(old.id)
    assert before.revoked_at is not None and before.removed_at is not None and before.session_id is None
    with compat.transaction() as session:
        assert [shown.id for shown in list_workers(session, silent_after=timedelta(seconds=90)).rows] == [new.id]
    details = [entry.detail for entry in audit_entries()]
    assert any(f"in place of worker {old.id}, whose credential has ended" in detail for detail in details)
    assert any("created the enrolment token" in detail and f"in place of worker {old.id}" in detail for detail in details)


def test_a_replacing_token_is_valid_once_and_only_for_that_name() -> None:
    set_last_seen(enlist("one").id, ago(minutes=5))
    token, _ = _replacing("one", uses=5, name_pattern="*")
    with pytest.raises(TokenRefused, match="for names like 'one'"):
        _enrol(token, "two")
    first = _enrol(token, "one")
    with pytest.raises(TokenRefused):
        _enrol(token, "one")
    assert worker_row(first.worker_id).revoked_at is None


def test_an_online_worker_is_not_replaced_and_the_token_stays_valid() -> None:
    old = enlist("one")
    token, row = _replacing("one")
    with pytest.raises(NameTaken, match=r"is online .*workers revoke one"):
        _enrol(token, "one")
    assert worker_row(old.id).revoked_at is None
    assert _uses_left(row.id) == 1
    with compat.transaction() as session:
        sessions.end_session(session, old.id, old.session_id or "")
    assert _enrol(token, "one").worker_id != old.id


def test_of_two_tokens_that_replace_one_worker_only_the_first_is_valid() -> None:
    set_last_seen(enlist("one").id, ago(minutes=5))
    tokens = [_replacing("one")[0] for _ in range(2)]
    first = _enrol(tokens[0], "one")
    set_last_seen(first.worker_id, ago(minutes=5))
    with pytest.raises(TokenRefused, match="was already removed or replaced"):
        _enrol(tokens[1], "one")
    assert worker_row(first.worker_id).revoked_at is None


def test_a_worker_that_does_not_exist_is_not_replaced() -> None:
    with pytest.raises(NotFound, match="no worker named 'nobody' to replace"):
        _replacing("nobody")


def test_a_token_without_a_queue_is_refused() -> None:
    with pytest.raises(LedgerError, match="at least one queue"):
        _token(queues=[])
