"""Which code a job runs: the newest tree with the Dag file that central parsed, else a newer scan, else it waits."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Any

import pytest
from airflow_remote_protocol.messages import HeldJob, JobPhase, TreeRef
from airflow_remote_protocol.packs import Encoding
from airflow_remote_protocol.states import JobState
from airflow_remote_protocol.trees import Entry, Tree
from airflow_remote_protocol.version import Capability
from airflow_remote_provider import compat
from airflow_remote_provider.compat import ParsedSource
from airflow_remote_provider.ledger import bundles, code, leases, publishing, trees
from airflow_remote_provider.ledger.bundles import PublishedBundle
from airflow_remote_provider.ledger.code import IMPATIENT, Choice, CodeNeed
from airflow_remote_provider.ledger.jobs import NewJob
from airflow_remote_provider.ledger.trees import BUNDLE, NewBlob
from airflow_remote_provider.ledger.views.waiting import why_waiting
from airflow_remote_provider.models import BundleRow
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from testkit.ledger import ago, change_job, claim, enlist, job_row, jobs, new_job, record_statements, substitute

pytestmark = pytest.mark.usefixtures("database")

PATIENCE = timedelta(minutes=1)
DAG_FILE = "team/dag.py"


def in_ledger(verb: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with compat.transaction() as session:
        return verb(session, *args, **kwargs)


def hash_of(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def publish(text: str, *, version: str | None = None, scanned_at: datetime | None = None, helper: str = "") -> str:
    """Publish the bundle `dags`, whose Dag file has *text*; return the digest of its tree."""
    blobs = {}
    for path, content in ((DAG_FILE, text), ("helper.py", helper)):
        data = content.encode()
        sha256 = hashlib.sha256(data).hexdigest()
        blobs[path] = NewBlob(sha256, len(data), Encoding.RAW, len(data), f"place-{sha256}", hash_of(content))
    tree = Tree.of(Entry(path, blob.sha256, blob.size) for path, blob in blobs.items())

    def run(session: Session) -> None:
        trees.begin_tree(session, tree, BUNDLE, "a publisher")
        missing = trees.missing_blobs(session, tree.sizes)
        new = {blob.sha256: blob for blob in blobs.values() if blob.sha256 in missing}
        trees.add_blobs(session, list(new.values()))
        at = scanned_at or compat.database_now(session)
        bundles.publish(session, PublishedBundle("dags", version, tree, at, "host-1"))

    in_ledger(run)
    return tree.digest


class Parsed:
    """What Airflow says that it parsed."""

    def __init__(self) -> None:
        self.sources: dict[uuid.UUID, ParsedSource] = {}

    def parse(self, text: str, *, version: uuid.UUID | None = None, at: datetime | None = None) -> uuid.UUID:
        version = version or uuid.uuid4()
        self.sources[version] = ParsedSource(hash_of(text), at or ago())
        return version


@pytest.fixture
def parsed(database: Engine, monkeypatch: pytest.MonkeyPatch) -> Parsed:
    parsed = Parsed()

    def read(session: Session, versions: Collection[uuid.UUID]) -> dict[uuid.UUID, ParsedSource]:
        return {version: parsed.sources[version] for version in versions if version in parsed.sources}

    substitute(monkeypatch, "parsed_sources", read)
    return parsed


def queued(dag_version: uuid.UUID | None, *, version: str | None = None, is_awaited: bool = False) -> NewJob:
    job = new_job(bundle="dags", bundle_version=version, dag_version=dag_version, dag_file=DAG_FILE)

    def run(session: Session) -> None:
        jobs.enqueue(session, code.set_code(session, [job], patience=PATIENCE, is_awaited=is_awaited))

    in_ledger(run)
    return job


def modern(**more: Any) -> Any:
    return enlist(capabilities=["task", Capability.BUNDLES.value], **more)


def offered_tree(worker: Any) -> str | None:
    """Return the digest that the worker is offered. Fails if it is offered no job."""
    (job,) = claim(worker.claimant(), patience=PATIENCE)
    return job.tree.digest if job.tree else None


def test_the_tree_with_the_file_that_central_parsed(parsed: Parsed) -> None:
    old = publish("v1", scanned_at=ago(minutes=5))
    publish("v2", scanned_at=ago(minutes=4))
    queued(parsed.parse("v1"))
    assert offered_tree(modern()) == old


def test_of_several_the_newest(parsed: Parsed) -> None:
    publish("v1", helper="old", scanned_at=ago(minutes=5))
    new = publish("v1", helper="new", scanned_at=ago(minutes=4))
    queued(parsed.parse("v1"))
    assert offered_tree(modern()) == new


def test_a_file_that_was_lost_and_is_stored_again_is_known(parsed: Parsed) -> None:
    source = f"x = '{uuid.uuid4()}'"  # this process remembers the hashes of other databases
    version = parsed.parse(source)
    tree = publish(source, scanned_at=ago(hours=1))
    need = CodeNeed("dags", dag_version=version, dag_file=DAG_FILE)
    sha256 = hashlib.sha256(source.encode()).hexdigest()
    in_ledger(bundles.lose_tree, tree, blob=(sha256, f"place-{sha256}"))
    assert in_ledger(code.choose, [need])[0].waits_for
    publish(source, scanned_at=ago(minutes=50))
    assert in_ledger(code.choose, [need]) == [Choice(tree)]


def test_a_file_whose_hash_is_not_known_as_published_runs_from_a_newer_scan(parsed: Parsed) -> None:
    newest = publish("v1 with other line ends", scanned_at=ago(minutes=1))
    queued(parsed.parse("v1", at=ago(minutes=2)))
    assert offered_tree(modern()) == newest


def test_a_job_waits_until_its_code_is_published(parsed: Parsed) -> None:
    publish("v1", scanned_at=ago(minutes=1))
    job = queued(parsed.parse("v2", at=ago(seconds=1)))
    worker = modern()
    assert claim(worker.claimant()) == []
    assert job_row(job.job_id).code_waits
    text = in_ledger(why_waiting, job.job_id, silent_after=PATIENCE)
    assert text.startswith("It waits until the newest state of the Dag bundle 'dags' is published, for ")
    assert "host-1 published it last 6" in text
    assert text.endswith("airflow remote publish dags")
    assert in_ledger(lambda session: session.get(BundleRow, "dags").wanted_at) is not None
    new = publish("v2")
    assert offered_tree(worker) == new
    row = job_row(job.job_id)
    assert (row.tree, row.code_waits) == (new, False)


def test_a_scan_without_changes_ends_the_wait_too(parsed: Parsed) -> None:
    only = publish("v1", scanned_at=ago(minutes=1))
    queued(parsed.parse("v1, read by another encoding", at=ago(seconds=1)))
    worker = modern()
    assert claim(worker.claimant()) == []
    in_ledger(bundles.note_scan, "dags", ago(seconds=-1))
    assert offered_tree(worker) == only


def test_a_scan_that_began_before_the_file_was_parsed_does_not_end_the_wait(parsed: Parsed) -> None:
    publish("v1", scanned_at=ago(minutes=2))
    job = queued(parsed.parse("v2", at=ago(seconds=1)))
    until = job_row(job.job_id).code_patience_at
    in_ledger(bundles.note_scan, "dags", ago(minutes=1))
    assert claim(modern().claimant(), patience=PATIENCE) == []
    row = job_row(job.job_id)
    assert row.code_waits
    assert row.code_patience_at == until  # its patience did not begin again


def test_patience_ends_with_the_newest_tree_and_a_line_in_the_log(parsed: Parsed) -> None:
    newest = publish("v1", scanned_at=ago(minutes=3))
    job = queued(parsed.parse("v2", at=ago(seconds=1)))
    worker = modern()
    assert claim(worker.claimant()) == []
    change_job(job.job_id, code_patience_at=ago(seconds=1))
    (claimed,) = claim(worker.claimant())
    assert claimed.tree == TreeRef(newest, 2, 2, IMPATIENT)


def test_a_source_that_changes_while_the_job_is_queued(parsed: Parsed) -> None:
    publish("v1", scanned_at=ago(minutes=3))
    version = parsed.parse("v1", at=ago(minutes=2))
    job = queued(version)
    assert not job_row(job.job_id).code_waits
    parsed.parse("v2", version=version, at=ago(seconds=1))
    worker = modern()
    assert claim(worker.claimant(), patience=PATIENCE) == []
    row = job_row(job.job_id)
    assert row.code_waits
    assert timedelta(seconds=50) < row.code_patience_at - ago() <= PATIENCE
    new = publish("v2")
    assert offered_tree(worker) == new


def test_a_tree_is_kept_by_later_offers(parsed: Parsed) -> None:
    first = publish("v1", scanned_at=ago(minutes=3))
    job = queued(parsed.parse("v1"))
    worker = modern()
    (claimed,) = claim(worker.claimant())
    in_ledger(leases.decline, worker.lease(claimed), "full", delay=timedelta())
    publish("v1", helper="changed")
    assert offered_tree(worker) == first
    assert job_row(job.job_id).epoch == 2


def test_a_worker_that_does_not_fetch_code_gets_the_job_without_a_tree(parsed: Parsed) -> None:
    publish("v1")
    job = queued(parsed.parse("v1"))
    assert offered_tree(enlist()) is None
    assert job_row(job.job_id).tree is None


def test_a_bundle_that_nobody_publishes_is_the_site_s_affair(parsed: Parsed) -> None:
    queued(parsed.parse("v1"))
    assert offered_tree(modern()) is None


def test_at_the_first_start_a_job_waits_for_the_first_publication(parsed: Parsed) -> None:
    job = queued(parsed.parse("v1"), is_awaited=True)
    worker = modern()
    assert claim(worker.claimant()) == []
    assert "It was never published" in in_ledger(why_waiting, job.job_id, silent_after=PATIENCE)
    published = publish("v1")
    assert offered_tree(worker) == published


def test_but_not_for_one_that_can_not_be_published(parsed: Parsed) -> None:
    in_ledger(bundles.note_trouble, "dags", "no such directory")
    queued(parsed.parse("v1"), is_awaited=True)
    assert offered_tree(modern()) is None


def test_and_not_for_ever(parsed: Parsed) -> None:
    job = queued(parsed.parse("v1"), is_awaited=True)
    change_job(job.job_id, code_patience_at=ago(seconds=1))
    assert offered_tree(modern()) is None


def test_exactly_the_version_of_the_run(parsed: Parsed) -> None:
    old = publish("v1", version="abc", scanned_at=ago(minutes=3))
    publish("v2", version="def", scanned_at=ago(minutes=2))
    queued(parsed.parse("v2"), version="abc")
    assert offered_tree(modern()) == old


def test_a_version_that_is_not_published_is_wanted_and_waited_for_without_end(parsed: Parsed) -> None:
    publish("v2", version="def", scanned_at=ago(minutes=2))
    job = queued(parsed.parse("v1"), version="abc")
    worker = modern()
    assert claim(worker.claimant()) == []
    assert in_ledger(publishing.assign, ["dags"], "holder", lasts=PATIENCE).versions == {"dags": ["abc"]}
    assert job_row(job.job_id).code_patience_at is None
    assert "It waits until version abc of the Dag bundle 'dags' is published. " in in_ledger(
        why_waiting, job.job_id, silent_after=PATIENCE
    )
    in_ledger(bundles.note_scan, "dags", ago())
    assert claim(worker.claimant()) == []
    old = publish("v1", version="abc")
    assert offered_tree(worker) == old


def test_a_version_that_is_gone_fails_its_jobs_with_the_publisher_s_words(parsed: Parsed) -> None:
    publish("v2", version="def", scanned_at=ago(minutes=2))
    job = queued(parsed.parse("v1"), version="abc")
    in_ledger(bundles.note_trouble, "dags", "git has no commit abc", "abc")
    row = job_row(job.job_id)
    assert row.state == JobState.FAILED.value
    assert row.reason == "version abc of the Dag bundle 'dags' can't be published: git has no commit abc"


def test_jobs_that_wait_do_not_keep_others_from_the_workers(parsed: Parsed) -> None:
    publish("v1", scanned_at=ago(minutes=1))
    for _ in range(5):
        change_job(queued(parsed.parse("v2", at=ago(seconds=1))).job_id, code_waits=False, priority=9)
    good = queued(parsed.parse("v1"))
    worker = modern(slots=1)
    while not (claimed := claim(worker.claimant())):
        pass
    assert [job.job_id for job in claimed] == [good.job_id]


def test_a_claim_of_many_jobs_costs_as_many_statements_as_one(database: Engine, parsed: Parsed) -> None:
    publish("v1")
    queued(parsed.parse("v1"))
    worker = modern(slots=20)
    claim(worker.claimant())  # what is remembered is read once
    queued(parsed.parse("v1"))
    with record_statements(database) as one:
        assert len(claim(worker.claimant())) == 1
    for _ in range(10):
        queued(parsed.parse("v1"))
    with record_statements(database) as many:
        assert len(claim(worker.claimant())) == 10
    assert len(many) == len(one)


def test_the_note_of_a_worker_that_prepares_a_job(parsed: Parsed) -> None:
    publish("v1")
    job = queued(parsed.parse("v1"))
    worker = modern()
    (claimed,) = claim(worker.claimant())
    held = [HeldJob(claimed.job_id, claimed.epoch, JobPhase.PREPARING, "code 43 %")]
    assert in_ledger(leases.renew, worker.id, held, deadline=PATIENCE, prepare=timedelta(hours=1)) == []
    assert in_ledger(why_waiting, job.job_id, silent_after=PATIENCE).endswith("the worker prepares it (code 43 %).")
    until = job_row(job.job_id).deadline_at
    change_job(job.job_id, offered_at=ago(hours=2))
    in_ledger(leases.renew, worker.id, held, deadline=2 * PATIENCE, prepare=timedelta(hours=1))
    assert job_row(job.job_id).deadline_at == until  # prepared for too long: it is offered to another worker soon
