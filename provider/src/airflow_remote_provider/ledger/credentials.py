"""Enrolment tokens and worker credentials. Hashes only; the secrets themselves pass through and are shown once."""

from __future__ import annotations

import secrets
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

import msgspec
from airflow_remote_protocol.messages import Enrolled, Enrolment, Facts, IntentMode
from airflow_remote_protocol.states import JobState
from airflow_remote_protocol.tokens import TOKEN_BYTES, TokenKind, hash_token, make_token
from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.ledger.changes import stamp
from airflow_remote_provider.ledger.errors import NameTaken, Superseded, TokenRefused, Unknown
from airflow_remote_provider.ledger.presentable import presentable
from airflow_remote_provider.ledger.wakeup import Topic, wake
from airflow_remote_provider.models import EnrolmentToken, Job, Presence, Worker


@dataclass(frozen=True)
class NewToken:
    """What an admin wants of an enrolment token."""

    queues: list[str]
    name_pattern: str = "*"
    team: str | None = None
    uses: int = 1
    lifetime: timedelta = timedelta(hours=1)
    created_by: str = ""


@dataclass(frozen=True)
class TokenRow:
    """One enrolment token as people see it."""

    id: str
    name_pattern: str
    queues: list[str]
    team: str | None
    uses_left: int
    created_at: datetime
    created_by: str
    expires_at: datetime
    revoked_at: datetime | None


def create_token(session: Session, new: NewToken) -> tuple[str, TokenRow]:
    """Return the token in clear, this once, and its row."""
    token = make_token(TokenKind.ENROLMENT, secrets.token_bytes(TOKEN_BYTES))
    now = database_now(session)
    row = EnrolmentToken(
        id=str(uuid.uuid4()),
        token_hash=hash_token(token),
        name_pattern=new.name_pattern,
        queues=new.queues,
        team=new.team,
        uses_left=new.uses,
        created_at=now,
        created_by=new.created_by,
        expires_at=now + new.lifetime,
    )
    session.add(row)
    return token, _row(row)


def list_tokens(session: Session) -> list[TokenRow]:
    return [_row(row) for row in session.scalars(select(EnrolmentToken).order_by(EnrolmentToken.created_at.desc()))]


def revoke_token(session: Session, token_id: str) -> None:
    row = session.get(EnrolmentToken, token_id)
    if row is None:
        raise Unknown(f"there is no enrolment token {token_id}; `airflow remote enrol list` shows those there are")
    row.revoked_at = row.revoked_at or database_now(session)


def enrol(session: Session, token: str, request: Enrolment) -> Enrolled:
    """Exchange an enrolment token for a worker's own credential.

    Raises:
        TokenRefused: unknown, spent, expired, revoked, or not for this name.
        NameTaken: a worker of this name exists; only a revoked one may be replaced.
    """
    row = session.scalar(select(EnrolmentToken).where(EnrolmentToken.token_hash == hash_token(token)).with_for_update())
    now = database_now(session)
    if row is None or row.revoked_at is not None:
        raise TokenRefused("central does not know this enrolment token, or it was revoked; ask an admin for a new one")
    if row.expires_at <= now:
        raise TokenRefused(f"this enrolment token expired at {row.expires_at:%Y-%m-%d %H:%M} UTC; ask an admin for a new one")
    if not fnmatchcase(request.name, row.name_pattern):
        raise TokenRefused(f"this enrolment token is for names like {row.name_pattern!r}; {request.name!r} is none; use --name")
    spent = session.execute(
        update(EnrolmentToken)
        .where(EnrolmentToken.id == row.id, EnrolmentToken.uses_left > 0)
        .values(uses_left=EnrolmentToken.uses_left - 1)
    )
    if spent.rowcount != 1:  # type: ignore[attr-defined]
        raise TokenRefused("this enrolment token was used as often as it may be; ask an admin for a new one")
    _make_room(session, request.name)
    credential = make_token(TokenKind.WORKER, secrets.token_bytes(TOKEN_BYTES))
    worker = Worker(
        id=str(uuid.uuid4()),
        name=request.name,
        credential_hash=hash_token(credential),
        alarm="",
        queues=row.queues,
        team=row.team,
        intent=IntentMode.SERVE.value,
        intent_revision=1,
        intent_reason="",
        intent_by="",
        slots=0,
        facts=shown_facts(request.facts),
        created_at=now,
        changed_at=stamp(session),
    )
    session.add(worker)
    session.add(Presence(worker_id=worker.id))
    try:
        session.flush()
    except IntegrityError:
        raise _name_taken(request.name) from None
    return Enrolled(worker.id, worker.name, credential, list(row.queues))


def shown_facts(facts: Facts) -> dict[str, str]:
    """Return a worker's facts as they are stored: people are shown them."""
    return {name: presentable(str(value), longest=255) for name, value in msgspec.to_builtins(facts).items()}


def leave(session: Session, worker_id: str) -> None:
    """Revoke a worker's credential at its own wish.

    Raises:
        Superseded: it still holds jobs; they would be lost.
    """
    worker = session.scalar(select(Worker).where(Worker.id == worker_id).with_for_update())
    leased = [state.value for state in JobState if state.is_leased]
    held = session.scalar(select(func.count()).select_from(Job).where(Job.worker_id == worker_id, Job.state.in_(leased)))
    if held:
        raise Superseded(f"the worker still holds {held} job(s); drain it first, then leave")
    if worker is not None:
        revoke(session, worker)


def revoke(session: Session, worker: Worker) -> None:
    """End a worker's right to speak; its open polls end within a moment."""
    worker.revoked_at = database_now(session)
    worker.session_id = None
    worker.changed_at = stamp(session)
    wake(session, Topic.WORKER)


def _make_room(session: Session, name: str) -> None:
    """Free the name of a revoked worker. Its row stays, as a removed one's does (:func:`..workers.remove_worker`): an API process
    that has not heard of the revocation yet would take the old credential for good."""
    existing = session.scalar(select(Worker).where(Worker.name == name))
    if existing is None:
        return
    if existing.revoked_at is None:
        raise _name_taken(name)
    existing.name = f"{name[:60]}/{existing.id}"  # no name that a worker can have
    existing.removed_at = existing.removed_at or database_now(session)
    existing.changed_at = stamp(session)
    session.flush()


def _name_taken(name: str) -> NameTaken:
    return NameTaken(f"a worker named {name!r} exists; choose another --name, or remove it: airflow remote workers remove {name}")


def _row(row: EnrolmentToken) -> TokenRow:
    return TokenRow(
        id=row.id,
        name_pattern=row.name_pattern,
        queues=list(row.queues),
        team=row.team,
        uses_left=row.uses_left,
        created_at=row.created_at,
        created_by=row.created_by,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )
