"""What commands ask of central, by its REST API (docs/reference/rest.md): one method for each verb."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

from airflow_remote_protocol.messages import IntentMode

from airflow_remote_provider.cli.client import Client
from airflow_remote_provider.definitions.grants import GrantKind
from airflow_remote_provider.ledger.credentials import NewToken, TokenRow
from airflow_remote_provider.ledger.history import SeriesKind
from airflow_remote_provider.ledger.queue_policy import Mode, PolicyRow
from airflow_remote_provider.ledger.statements import SignedStatement
from airflow_remote_provider.ledger.views.accesses import AccessFilter, AccessRow
from airflow_remote_provider.ledger.views.audit import AuditFilter, AuditRow
from airflow_remote_provider.ledger.views.bundles import BundleDetails, BundleSummary
from airflow_remote_provider.ledger.views.history import MOST_POINTS, HistoryRow
from airflow_remote_provider.ledger.views.incidents import Incident
from airflow_remote_provider.ledger.views.jobs import JobFilter, JobRow
from airflow_remote_provider.ledger.views.page import Page, Slice, read_all
from airflow_remote_provider.ledger.views.queues import QueueRow
from airflow_remote_provider.ledger.views.releases import ReleaseEditionRow, ReleasesDetails, ReleasesSummary
from airflow_remote_provider.ledger.views.runtimes import RuntimeDetails, RuntimeSummary
from airflow_remote_provider.ledger.views.summary import Summary
from airflow_remote_provider.ledger.views.workers import WorkerFilter, WorkerRow
from airflow_remote_provider.stores.worker_log_lines import MOST_LINES, LogLines

Globs = Mapping[GrantKind, Sequence[str]]
T = TypeVar("T")


@dataclass(frozen=True)
class Listed(Generic[T]):
    """One page of a list."""

    items: list[T]
    next: str | None


@dataclass(frozen=True)
class CreatedToken:
    """A token in plain text, and its row."""

    token: str
    about: TokenRow


@dataclass(frozen=True)
class Why:
    why: str


@dataclass(frozen=True)
class BegunTree:
    """A tree that is to be uploaded."""

    tree: str
    missing: list[str]


class CentralClient:
    """Calls central as the user of *client*. A request that fails or is refused ends the command with a sentence."""

    def __init__(self, client: Client) -> None:
        self._client = client

    # Enrolment tokens

    def create_token(self, new: NewToken) -> tuple[str, TokenRow]:
        body = {name: value for name, value in asdict(new).items() if name not in ("lifetime", "created_by")}
        body["expires_s"] = new.lifetime.total_seconds()
        created = self._client.change(CreatedToken, "POST", "enrolment-tokens", body=body)
        return created.token, created.about

    def list_tokens(self) -> list[TokenRow]:
        return self._client.get(Listed[TokenRow], "enrolment-tokens").items

    def revoke_token(self, token_id: str) -> None:
        self._client.send("DELETE", "enrolment-tokens", token_id)

    # Workers

    def list_workers(self, only: WorkerFilter) -> list[WorkerRow]:
        label = None if only.label is None else "=".join(only.label)
        return self._all(Listed[WorkerRow], "workers", {**asdict(only), "label": label})

    def summarize(self) -> Summary:
        return self._client.get(Summary, "summary")

    def show_worker(self, name: str) -> WorkerRow:
        return self._client.get(WorkerRow, "workers", name)

    def set_intent(self, name: str, mode: IntentMode, *, reason: str, lasts: timedelta | None) -> None:
        lasts_s = None if lasts is None else lasts.total_seconds()
        self._set(name, "intent", {"mode": mode.value, "reason": reason, "lasts_s": lasts_s})

    def limit_slots(self, name: str, slots: int | None) -> None:
        self._set(name, "slots-limit", {"slots": slots})

    def set_queues(self, name: str, queues: Sequence[str]) -> None:
        self._set(name, "queues", {"queues": list(queues)})

    def set_labels(self, name: str, labels: Mapping[str, str]) -> None:
        self._set(name, "labels", {"labels": dict(labels)})

    def set_bundles(self, name: str, bundles: Sequence[str]) -> None:
        self._set(name, "bundles", {"bundles": list(bundles)})

    def read_log(self, name: str, *, most: int, after: int | None, contains: str, level: str) -> LogLines:
        query = {"most": min(most, MOST_LINES), "after": after, "contains": contains, "level": level}
        query = {key: value for key, value in query.items() if value is not None}
        return self._client.get(LogLines, "workers", name, "log", query=query)

    def restart(self, name: str, *, reason: str) -> None:
        self._client.change(WorkerRow, "POST", "workers", name, "restart", body={"reason": reason})

    def rotate(self, name: str) -> None:
        self._client.change(WorkerRow, "POST", "workers", name, "rotate")

    def rebind(self, name: str) -> None:
        self._client.change(WorkerRow, "POST", "workers", name, "rebind")

    def suspend(self, name: str, *, reason: str) -> None:
        self._client.change(WorkerRow, "POST", "workers", name, "suspend", body={"reason": reason})

    def unsuspend(self, name: str) -> None:
        self._client.change(WorkerRow, "POST", "workers", name, "unsuspend")

    def acknowledge(self, name: str) -> None:
        self._client.change(WorkerRow, "POST", "workers", name, "acknowledge")

    def revoke_worker(self, name: str) -> None:
        self._client.change(WorkerRow, "POST", "workers", name, "revoke")

    def remove_worker(self, name: str) -> None:
        self._client.send("DELETE", "workers", name)

    def list_history(self, kind: SeriesKind, names: Sequence[str], *, last: timedelta) -> list[HistoryRow]:
        query = {"name": list(names), "last_s": last.total_seconds(), "most_points": MOST_POINTS}
        return self._client.get(Listed[HistoryRow], "history", kind.value, query=query).items

    # Jobs

    def list_jobs(self, only: JobFilter, *, most: int) -> list[JobRow]:
        wanted = asdict(only)
        older_than = wanted.pop("older_than")
        wanted["older_than_s"] = None if older_than is None else older_than.total_seconds()
        return self._all(Listed[JobRow], "jobs", wanted, most=most)

    def show_job(self, job_id: str) -> JobRow:
        return self._client.get(JobRow, "jobs", job_id)

    def why_waiting(self, job_id: str) -> str:
        return self._client.get(Why, "jobs", job_id, "waiting").why

    def stop_job(self, job_id: str, *, reason: str) -> None:
        self._client.change(JobRow, "POST", "jobs", job_id, "stop", body={"reason": reason})

    # Queues and their policies

    def list_queues(self) -> list[QueueRow]:
        return self._client.get(Listed[QueueRow], "queues").items

    def set_queue(self, name: str, *, lost_after_s: float) -> None:
        self._client.send("PUT", "queues", name, "rules", body={"lost_after_s": lost_after_s})

    def set_queue_bundles(self, name: str, bundles: Sequence[str]) -> None:
        self._client.send("PUT", "queues", name, "bundles", body={"bundles": list(bundles)})

    def unset_queue(self, name: str) -> None:
        self._client.send("DELETE", "queues", name, "rules")

    def list_policies(self) -> list[PolicyRow]:
        return self._client.get(Listed[PolicyRow], "policies").items

    def allow(self, queue: str, globs: Globs) -> PolicyRow:
        return self._change_policy(queue, "allow", globs)

    def deny(self, queue: str, globs: Globs) -> PolicyRow:
        return self._change_policy(queue, "deny", globs)

    def set_mode(self, queue: str, mode: Mode) -> PolicyRow:
        return self._client.change(PolicyRow, "PUT", "policies", queue, "mode", body={"mode": mode.value})

    # Dag bundles

    def list_bundles(self) -> list[BundleSummary]:
        return self._client.get(Listed[BundleSummary], "bundles").items

    def show_bundle(self, name: str) -> BundleDetails:
        return self._client.get(BundleDetails, "bundles", name)

    def ask_to_publish(self, name: str) -> BundleSummary:
        return self._client.change(BundleSummary, "POST", "bundles", name, "publish")

    def begin_tree(self, name: str, manifest: bytes) -> list[str]:
        """Begin to publish a tree as the bundle *name*; return the SHA-256 of the files that central lacks."""
        return self._client.upload(BegunTree, "POST", "bundles", name, "trees", body=manifest).missing

    def add_blobs(self, name: str, digest: str, upload: bytes) -> None:
        self._client.upload_only("POST", "bundles", name, "trees", digest, "blobs", body=upload)

    def publish_tree(self, name: str, digest: str, version: str | None, *, scanned_s_ago: float) -> BundleSummary:
        body = {"version": version, "scanned_s_ago": scanned_s_ago}
        return self._client.change(BundleSummary, "PUT", "bundles", name, "trees", digest, body=body)

    # Runtimes from central

    def list_runtimes(self) -> list[RuntimeSummary]:
        return self._client.get(Listed[RuntimeSummary], "runtimes").items

    def show_runtime(self, name: str) -> RuntimeDetails:
        return self._client.get(RuntimeDetails, "runtimes", name)

    def roll_runtime(self, name: str, *, percent: int, labels: Mapping[str, str], to: int | None) -> RuntimeSummary:
        body = {"percent": percent, "labels": dict(labels), "to": to}
        return self._client.change(RuntimeSummary, "POST", "runtimes", name, "roll", body=body)

    def halt_runtime(self, name: str, *, reason: str) -> RuntimeSummary:
        return self._client.change(RuntimeSummary, "POST", "runtimes", name, "halt", body={"reason": reason})

    def resume_runtime(self, name: str) -> RuntimeSummary:
        return self._client.change(RuntimeSummary, "POST", "runtimes", name, "resume")

    def set_queue_runtime(self, queue: str, name: str | None) -> None:
        self._client.send("PUT", "queues", queue, "runtime", body={"runtime": name})

    # Signed statements about trees

    def list_statements(self, digest: str) -> list[SignedStatement]:
        return self._client.get(Listed[SignedStatement], "trees", digest, "statements").items

    def add_statement(self, digest: str, envelope: str) -> SignedStatement:
        return self._client.change(SignedStatement, "POST", "trees", digest, "statements", body={"envelope": envelope})

    # Releases of the worker

    def show_releases(self) -> ReleasesDetails:
        return self._client.get(ReleasesDetails, "releases")

    def list_releases(self) -> list[ReleaseEditionRow]:
        """Return all releases, the newest first; none if none was ever added."""
        return self._client.get(ReleasesDetails, "releases").editions

    def roll_release(self, *, percent: int, labels: Mapping[str, str], to: int | None) -> ReleasesSummary:
        body = {"percent": percent, "labels": dict(labels), "to": to}
        return self._client.change(ReleasesSummary, "POST", "releases", "roll", body=body)

    def halt_release(self, *, reason: str) -> ReleasesSummary:
        return self._client.change(ReleasesSummary, "POST", "releases", "halt", body={"reason": reason})

    def resume_release(self) -> ReleasesSummary:
        return self._client.change(ReleasesSummary, "POST", "releases", "resume")

    def update_worker(self, name: str) -> WorkerRow:
        return self._client.change(WorkerRow, "POST", "workers", name, "update")

    # Incidents

    def list_incidents(self, *, recovered: bool) -> list[Incident]:
        return self._client.get(Listed[Incident], "incidents", query={"recovered": recovered}).items

    def show_incident(self, incident_id: str) -> Incident:
        return self._client.get(Incident, "incidents", incident_id)

    def acknowledge_incident(self, incident_id: str) -> Incident:
        return self._client.change(Incident, "POST", "incidents", incident_id, "acknowledge")

    # Accesses and the audit

    def list_accesses(self, only: AccessFilter, *, most: int) -> list[AccessRow]:
        wanted = asdict(only)
        return self._all(Listed[AccessRow], "accesses", {"answer": wanted.pop("answers"), **wanted}, most=most)

    def suggest(self, dag_id: str) -> dict[str, dict[GrantKind, list[str]]]:
        return self._client.get(dict[str, dict[GrantKind, list[str]]], "dags", dag_id, "suggestion")

    def list_entries(self, only: AuditFilter, *, most: int) -> list[AuditRow]:
        return self._all(Listed[AuditRow], "audit", asdict(only), most=most)

    def _all(self, kind: type[Listed[T]], path: str, wanted: Mapping[str, Any], *, most: int | None = None) -> list[T]:
        """Return the rows of all pages of a list, or the first *most*; no further page is requested."""
        query = {name: value for name, value in wanted.items() if value not in (None, "", []) and value is not False}

        def read(page: Page) -> Slice[T]:
            found = self._client.get(kind, path, query={**query, "limit": page.limit, "after": page.after})
            return Slice(found.items, found.next)

        return read_all(read, most=most)

    def _set(self, name: str, what: str, body: Mapping[str, Any]) -> None:
        self._client.change(WorkerRow, "PUT", "workers", name, what, body=body)

    def _change_policy(self, queue: str, how: str, globs: Globs) -> PolicyRow:
        body = {kind.value: list(some) for kind, some in globs.items()}
        return self._client.change(PolicyRow, "POST", "policies", queue, how, body=body)
