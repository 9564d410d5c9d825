"""Enrolment tokens and worker credentials. Only hashes are stored; a secret is returned once, when it is made."""

from __future__ import annotations

import ipaddress
import secrets
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

import msgspec
from airflow_remote_protocol.messages import Enrolled, Enrolment, Facts, IntentMode
from airflow_remote_protocol.states import JobEvent, JobState, advance
from airflow_remote_protocol.tokens import TOKEN_BYTES, TokenKind, hash_token, make_token
from sqlalchemy import and_, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.ledger.audit import AuditKind, Event, record, record_action
from airflow_remote_provider.ledger.changes import stamp
from airflow_remote_provider.ledger.errors import LedgerError, NameTaken, NotFound, Superseded, TokenRefused
from airflow_remote_provider.ledger.presentable import presentable
from airflow_remote_provider.ledger.wakeup import Topic, wake
from airflow_remote_provider.models import EnrolmentToken, Job, Worker, WorkerContact

LONGEST_LIFE = timedelta(days=366)
"""Of an enrolment token."""
LIVE_WITHIN = timedelta(seconds=90)
"""A worker counts as alive for this long after its last contact."""


@dataclass(frozen=True)
class NewToken:
    """The properties of an enrolment token that an administrator creates."""

    queues: list[str]
    name_pattern: str = "*"
    team: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    bundles: Sequence[str] | None = None
    """Globs of the Dag bundles whose jobs its workers may run; None: any."""
    networks: Sequence[str] = ()
    """Networks (CIDR) from which it may be used; empty: any."""
    uses: int = 1
    lifetime: timedelta = timedelta(hours=1)
    created_by: str = ""
    replaces: str | None = None
    """Name of the worker to replace. The token is then for that name and one use. The worker that joins with it gets the team,
    labels and bundles of the replaced one, and its queues unless *queues* names some."""


@dataclass(frozen=True)
class TokenRow:
    """One enrolment token as the API and the CLI show it."""

    id: str
    name_pattern: str
    queues: list[str]
    labels: dict[str, str]
    bundles: list[str] | None
    networks: list[str]
    team: str | None
    uses_left: int
    created_at: datetime
    created_by: str
    expires_at: datetime
    revoked_at: datetime | None
    replaces: str | None = None
    """Id of the worker that the joining worker replaces."""


def create_token(session: Session, new: NewToken) -> tuple[str, TokenRow]:
    """Return the token in clear text (only now) and its row.

    Raises:
        LedgerError: a network or a glob of a bundle is not valid, or no queue is named.
        NotFound: the worker to replace does not exist.
    """
    replaced = None
    if new.replaces is not None:
        replaced, new = _resolve_replaced(session, new)
    if not new.queues:
        raise LedgerError("name at least one queue for the worker to serve")
    networks = [_network(text) for text in new.networks]
    token = make_token(TokenKind.ENROLMENT, secrets.token_bytes(TOKEN_BYTES))
    now = database_now(session)
    row = EnrolmentToken(
        id=str(uuid.uuid4()),
        token_hash=hash_token(token),
        name_pattern=new.name_pattern,
        queues=new.queues,
        labels=dict(new.labels),
        bundles=check_bundles(new.bundles),
        networks=[str(network) for network in networks] or None,
        team=new.team,
        uses_left=new.uses,
        created_at=now,
        created_by=new.created_by,
        expires_at=now + new.lifetime,
        replaces=None if replaced is None else replaced.id,
    )
    session.add(row)
    queues = ", ".join(new.queues)
    what = f"created the enrolment token {row.id} for the queues {queues}, names {new.name_pattern}, {new.uses} use(s)"
    if replaced is not None:
        what += f", in place of worker {replaced.id}"
    record_action(session, new.created_by or "unknown", what, worker=replaced)
    return token, _row(row)


def no_worker_to_replace(name: str) -> NotFound:
    return NotFound(f"there is no worker named {name!r} to replace; `airflow remote workers list` shows all workers")


def _resolve_replaced(session: Session, new: NewToken) -> tuple[Worker, NewToken]:
    """Return the worker to replace, and *new* completed with the properties of that worker.

    Raises:
        NotFound: there is no worker of that name.
    """
    worker = session.scalar(select(Worker).where(Worker.name == new.replaces, Worker.removed_at.is_(None)))
    if worker is None:
        raise no_worker_to_replace(str(new.replaces))
    wanted = replace(
        new,
        queues=new.queues or list(worker.queues),
        name_pattern=worker.name,
        team=worker.team,
        labels=dict(worker.labels or {}),
        bundles=worker.bundles,
        uses=1,
    )
    return worker, wanted


def list_tokens(session: Session) -> list[TokenRow]:
    return [_row(row) for row in session.scalars(select(EnrolmentToken).order_by(EnrolmentToken.created_at.desc()))]


def revoke_token(session: Session, token_id: str, *, by: str = "unknown") -> None:
    row = session.get(EnrolmentToken, token_id)
    if row is None:
        raise no_such_token(token_id)
    row.revoked_at = row.revoked_at or database_now(session)
    record_action(session, by, f"revoked the enrolment token {token_id}")


def no_such_token(token_id: str) -> NotFound:
    return NotFound(f"there is no enrolment token {token_id[:36]!r}; `airflow remote enrol list` shows all tokens")


def enrol(
    session: Session,
    token: str,
    request: Enrolment,
    *,
    source: str = "",
    life: timedelta | None = None,
    certificate: str | None = None,
) -> Enrolled:
    """Exchange an enrolment token for a worker's own credential, valid for *life* (None: without limit).

    *source* is the address of the call. The worker is bound to the client *certificate* of the call (None: central requests
    none).

    Raises:
        TokenRefused: the token is unknown, used up, expired, revoked, or not for this name or network.
        NameTaken: a worker of this name exists. Only a revoked one can be replaced, or the one that the token is for unless it
            is online.
    """
    row = _find_usable(session, token, source=source, lock=True)
    if not fnmatchcase(request.name, row.name_pattern):
        raise TokenRefused(
            f"this enrolment token is for names like {row.name_pattern!r}, not for {request.name!r}; choose another with --name"
        )
    spent = session.execute(
        update(EnrolmentToken)
        .where(EnrolmentToken.id == row.id, EnrolmentToken.uses_left > 0)
        .values(uses_left=EnrolmentToken.uses_left - 1)
    )
    if spent.rowcount != 1:  # type: ignore[attr-defined]
        raise _token_spent()
    whose = f"the token {row.id} of {row.created_by or 'unknown'}"
    terms = _Terms(row.queues, row.labels, row.bundles, row.team, whose, certificate)
    if row.replaces is not None:
        terms = _replace_worker(session, row.replaces, terms)
    return _join(session, request, terms, life=life)


def _replace_worker(session: Session, worker_id: str, terms: _Terms) -> _Terms:
    """Revoke the credential of the replaced worker, and return the terms with the settings made for that worker.

    A worker that is online is not replaced, so that anyone who finds such a token can't shut out a machine. The jobs of the
    replaced worker are lost after its silence, as those of any revoked worker: its machine may still run them.

    Raises:
        TokenRefused: the worker was removed or replaced meanwhile.
        NameTaken: the worker is online.
    """
    worker = session.scalar(select(Worker).where(Worker.id == worker_id).with_for_update())
    if worker is None or worker.removed_at is not None:
        raise TokenRefused(
            "the worker that this token replaces was already removed or replaced; ask an administrator for a new token"
        )
    seen_at = session.scalar(select(WorkerContact.last_seen_at).where(WorkerContact.worker_id == worker.id))
    is_out = worker.revoked_at is not None or worker.suspended_at is not None or worker.boot_id is None
    if not is_out and seen_at is not None and database_now(session) - seen_at <= LIVE_WITHIN:
        raise NameTaken(
            f"worker {worker.name!r}, which this token replaces, is online (last contact {seen_at:%H:%M:%S} UTC): stop it and "
            f"join again {LIVE_WITHIN.total_seconds():.0f} s later, or revoke it (airflow remote workers revoke {worker.name}) "
            "and join again now; the token remains valid"
        )
    if worker.revoked_at is None:
        revoke(session, worker)
    authorized_by = f"{terms.authorized_by}, in place of worker {worker.id}, whose credential has ended"
    return replace(terms, authorized_by=authorized_by, slots_limit=worker.slots_limit)


def check_token(session: Session, token: str, *, source: str = "") -> None:
    """Check that a worker can join with this enrolment token from *source*, whatever name it gives. Changes nothing.

    Raises:
        TokenRefused: the token is unknown, used up, expired, revoked, or not for this network.
    """
    if _find_usable(session, token, source=source, lock=False).uses_left <= 0:
        raise _token_spent()


def _find_usable(session: Session, token: str, *, source: str, lock: bool) -> EnrolmentToken:
    """Return the row of a token that can be used from *source*. The caller checks that a use is left.

    Raises:
        TokenRefused: the token is unknown, expired, revoked, or not for this network.
    """
    query = select(EnrolmentToken).where(EnrolmentToken.token_hash == hash_token(token))
    row = session.scalar(query.with_for_update() if lock else query)
    if row is None or row.revoked_at is not None:
        raise TokenRefused("central does not know this enrolment token, or it was revoked; ask an administrator for a new one")
    if row.expires_at <= database_now(session):
        raise TokenRefused(
            f"this enrolment token expired at {row.expires_at:%Y-%m-%d %H:%M} UTC; ask an administrator for a new one"
        )
    if row.networks and not is_within(source, row.networks):
        raise TokenRefused(
            f"this enrolment token is not valid for the address from which central receives this call ({source or 'unknown'}); "
            "join from another network, or ask an administrator for another token"
        )
    return row


def _token_spent() -> TokenRefused:
    return TokenRefused("this enrolment token has no uses left; ask an administrator for a new one")


def enrol_by_user(
    session: Session, request: Enrolment, *, by: str, life: timedelta | None = None, certificate: str | None = None
) -> Enrolled:
    """Let a worker join on behalf of the user *by*, who has the right to manage workers, for the queues that the request names.

    Raises:
        LedgerError: the request names no queue.
        NameTaken: a worker of this name exists; only a revoked one can be replaced.
    """
    if not request.queues:
        raise LedgerError("name at least one queue for the worker to serve: --queues a,b")
    queues = list(dict.fromkeys(request.queues))
    record_action(session, by, f"enrolled the worker {request.name} for the queues {', '.join(queues)}")
    return _join(session, request, _Terms(queues, None, None, None, f"the login of {by}", certificate), life=life)


@dataclass(frozen=True)
class _Terms:
    """The rights of a joining worker, and who granted them."""

    queues: list[str]
    labels: dict[str, str] | None
    bundles: list[str] | None
    team: str | None
    authorized_by: str
    certificate: str | None = None
    slots_limit: int | None = None


def _join(session: Session, request: Enrolment, terms: _Terms, *, life: timedelta | None) -> Enrolled:
    now = database_now(session)
    _free_name(session, request.name)
    credential = make_token(TokenKind.WORKER, secrets.token_bytes(TOKEN_BYTES))
    worker = Worker(
        id=str(uuid.uuid4()),
        name=request.name,
        name_key=name_key(request.name),
        credential_hash=hash_token(credential),
        credential_at=now,
        credential_expires_at=None if life is None else now + life,
        alarm="",
        queues=terms.queues,
        labels=terms.labels,
        bundles=terms.bundles,
        certificate=terms.certificate,
        team=terms.team,
        intent=IntentMode.SERVE.value,
        intent_revision=1,
        intent_reason="",
        intent_by="",
        slots=0,
        slots_limit=terms.slots_limit,
        ephemeral=request.ephemeral,
        facts=shown_facts(request.facts),
        created_at=now,
        changed_at=stamp(session),
    )
    session.add(worker)
    session.add(WorkerContact(worker_id=worker.id))
    try:
        session.flush()
    except IntegrityError:
        raise _name_taken(request.name, existing=request.name) from None
    ephemeral = " as an ephemeral worker" if request.ephemeral else ""
    detail = f"joined{ephemeral} with {terms.authorized_by}, for the queues {', '.join(terms.queues)}"
    record(session, Event(AuditKind.ENROLLED, worker.id, detail, actor="worker", worker_id=worker.id, worker_name=worker.name))
    return Enrolled(worker.id, worker.name, credential, list(terms.queues))


LONGEST_GLOB = 250


def check_bundles(globs: Sequence[str] | None) -> list[str] | None:
    """Return these globs as they are stored: None for any bundle.

    Raises:
        LedgerError: the list is empty, or a glob is not valid.
    """
    if globs is None or "*" in globs:
        return None
    if not globs:
        raise LedgerError("name at least one bundle, or '*' for any; to give a worker no jobs, pause it")
    for glob in globs:
        if not glob.strip() or len(glob) > LONGEST_GLOB:
            raise LedgerError(
                f"{glob[:50]!r} is not a valid glob: write 1 to {LONGEST_GLOB} characters, a bundle's name or a part of it with *"
            )
    return list(dict.fromkeys(globs))


def is_within(source: str, networks: Sequence[str]) -> bool:
    """Return whether *source* is an address in one of the networks."""
    try:
        address = ipaddress.ip_address(source)
    except ValueError:
        return False
    seen = getattr(address, "ipv4_mapped", None) or address
    return any(seen in _network(network) for network in networks)


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text.strip())
    except ValueError as error:
        raise LedgerError(f"{text[:50]!r} is not a network: {error}; write it as 10.1.0.0/16 or 2001:db8::/32") from None


def record_refusal(session: Session, *, source: str, name: str, why: str) -> None:
    """Record a refused attempt to join; one entry per day and source."""
    where = source or "unknown"
    detail = f"from {where}, as {name}: {why}"
    cause = f"{where} {database_now(session):%Y-%m-%d}"
    record(session, Event(AuditKind.ENROLMENT_REFUSED, cause, detail, actor=where))


def shown_facts(facts: Facts) -> dict[str, str]:
    """Return a worker's facts as they are stored, fit to be shown to users."""
    return {name: presentable(str(value), longest=255) for name, value in msgspec.to_builtins(facts).items()}


def leave(session: Session, worker_id: str) -> None:
    """Revoke a worker's credential at its own request. An ephemeral worker is removed.

    Offers that it has not accepted go back to the queue at once: it has not received them, or drops them.

    Raises:
        Superseded: it still runs jobs, which would be lost.
    """
    worker = session.scalar(select(Worker).where(Worker.id == worker_id).with_for_update())
    if worker is None:
        return
    leased = [state.value for state in JobState if state.is_leased]
    jobs = session.scalars(
        select(Job).where(Job.worker_id == worker_id, Job.state.in_(leased)).order_by(Job.id).with_for_update()
    ).all()
    held = sum(job.state == JobState.RUNNING.value for job in jobs)
    if held:
        raise Superseded(f"the worker still holds {held} job(s); drain it first, then leave")
    for job in jobs:
        job.state = advance(JobState.OFFERED, JobEvent.WITHDRAW).value
        job.offers -= 1
        job.deadline_at = None
        wake(session, Topic.QUEUED)
    revoke(session, worker)
    if worker.ephemeral:
        remove_ephemeral(session, worker, why="has left")


def remove_ephemeral(session: Session, worker: Worker, *, why: str) -> None:
    """Remove an ephemeral worker that is locked and revoked: it is not listed any more, and its name is free."""
    worker.removed_at = worker.revoked_at
    event = Event(
        AuditKind.LEFT, worker.id, f"{why}; removed, because it is ephemeral", worker_id=worker.id, worker_name=worker.name
    )
    record(session, event)


def revoke(session: Session, worker: Worker) -> None:
    """Revoke a worker's credential; its open polls end within a moment."""
    worker.revoked_at = database_now(session)
    worker.session_id = None
    worker.changed_at = stamp(session)
    wake(session, Topic.WORKER)


def name_key(name: str) -> str:
    """Return the key that no two workers share: users can't tell names apart that differ only in case."""
    return name.casefold()


def _free_name(session: Session, name: str) -> None:
    """Free the name of revoked workers.

    Their rows stay, as the row of a removed worker does (:func:`..workers.remove_worker`): an API process that does not know of
    the revocation yet would otherwise accept the old credential without end.
    """
    namesakes = _namesakes(session, name)
    for worker in namesakes:
        if worker.revoked_at is None:
            raise _name_taken(name, existing=worker.name)
    for worker in namesakes:
        worker.name, worker.name_key = f"{worker.name[:60]}/{worker.id}", None  # a worker's name has no slash
        worker.removed_at = worker.removed_at or database_now(session)
        worker.changed_at = stamp(session)
    if namesakes:
        session.flush()


def _namesakes(session: Session, name: str) -> list[Worker]:
    """Return the workers whose name equals *name* except for case.

    Few workers that are not removed have no key: those that joined before names were compared this way. Of ephemeral workers that
    are removed, there may be thousands.
    """
    has_no_key = and_(Worker.name_key.is_(None), Worker.removed_at.is_(None))
    is_namesake = or_(Worker.name_key == name_key(name), Worker.name == name, has_no_key)
    query = select(Worker).where(is_namesake).order_by(Worker.id)
    return [worker for worker in session.scalars(query) if name_key(worker.name) == name_key(name)]


def _name_taken(name: str, *, existing: str) -> NameTaken:
    text = (
        f"a worker named {name!r} exists; choose another --name, or remove it: airflow remote workers remove {existing}; "
        f"to join its rebuilt machine, ask an administrator for a token from: airflow remote enrol create --replaces {existing}"
    )
    return NameTaken(text if name == existing else f"{text} (names that differ only by case count as one name)")


def _row(row: EnrolmentToken) -> TokenRow:
    return TokenRow(
        id=row.id,
        name_pattern=row.name_pattern,
        queues=list(row.queues),
        labels=dict(row.labels or {}),
        bundles=row.bundles,
        networks=list(row.networks or ()),
        team=row.team,
        uses_left=row.uses_left,
        created_at=row.created_at,
        created_by=row.created_by,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        replaces=row.replaces,
    )
