"""Signed statements about trees. Their form is checked; whether a signature is valid, and whose it is, the workers decide."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timezone

from airflow_remote_protocol.messages import MAX_STATEMENTS
from airflow_remote_protocol.statements import BadStatement, Kind, open_envelope
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.ledger.audit import record_action
from airflow_remote_provider.ledger.errors import Impossible, NotFound
from airflow_remote_provider.models import StatementRow, TreeRow

MOST_OF_TREE = MOST_OF_KEYS = MAX_STATEMENTS // 2
"""Together they fit one answer to a worker."""
MOST_SHOWN = 500
"""Statements in one view."""


@dataclass(frozen=True)
class SignedStatement:
    """A statement, by what it says itself."""

    tree: str
    kind: str
    name: str
    version: str
    serial: int
    key_ids: list[str]
    signed_at: datetime
    expires_at: datetime | None
    """None: it does not expire."""
    has_expired: bool
    """By central's clock; workers go by their own."""
    added_at: datetime
    added_by: str


def add(session: Session, digest: str, envelope: str, *, by: str) -> SignedStatement:
    """Store a statement about the tree *digest*. It replaces one of the same keys about the same tree and name.

    Raises:
        Impossible: it is no statement about this tree, or the tree has too many.
        NotFound: there is no such tree.
    """
    try:
        opened, statement = open_envelope(envelope)
    except BadStatement as error:
        raise Impossible(f"the statement is not stored: {error}") from None
    predicate = statement.predicate
    if statement.digest != digest:
        raise Impossible(f"the statement is about the tree {statement.digest[:12]}, not about {digest[:12]}")
    if predicate.kind is not Kind.KEYS:
        kind = session.scalar(select(TreeRow.kind).where(TreeRow.digest == digest).with_for_update())
        if kind is None:
            raise NotFound(f"there is no tree {digest[:12]}; publish it first")
        if kind != predicate.kind.value:
            raise Impossible(f"the statement says that the tree {digest[:12]} is a {predicate.kind.value}; it is a {kind}")
    key_ids = sorted(signature.keyid for signature in opened.signatures)
    now = database_now(session)
    row = StatementRow(
        tree=digest,
        kind=predicate.kind.value,
        key_ids=" ".join(key_ids),
        serial=predicate.serial,
        envelope=envelope,
        added_at=now,
        added_by=by[:250],
    )
    for other in session.scalars(select(StatementRow).where(StatementRow.tree == digest)).all():
        if other.key_ids == row.key_ids and open_envelope(other.envelope)[1].predicate.name == predicate.name:
            session.delete(other)
    session.flush()
    _require_room(session, row)
    session.add(row)
    session.flush()
    what = f"the {predicate.kind.value} {predicate.name}".strip()
    record_action(session, by, f"added a signed statement about {what} (tree {digest[:12]}, key {key_ids[0][:12]})")
    return _shown(row, now)


def _require_room(session: Session, row: StatementRow) -> None:
    if row.kind == Kind.KEYS.value:  # workers need the newest; one that was away for longer gets new keys by hand
        of_keys = select(StatementRow).where(StatementRow.kind == row.kind).order_by(StatementRow.serial.desc(), StatementRow.id)
        for old in session.scalars(of_keys).all()[MOST_OF_KEYS - 1 :]:
            session.delete(old)
    elif len(session.scalars(select(StatementRow.id).where(StatementRow.tree == row.tree)).all()) >= MOST_OF_TREE:
        raise Impossible(f"the tree {row.tree[:12]} has {MOST_OF_TREE} statements of other keys already, which is the most")


def of_tree(session: Session, digest: str) -> list[SignedStatement]:
    """Return the statements about a tree, the oldest first."""
    return of_trees(session, [digest])


def of_trees(session: Session, digests: Collection[str]) -> list[SignedStatement]:
    """Return the statements about these trees, the oldest first, at most :data:`MOST_SHOWN`. One statement, and the time."""
    query = select(StatementRow).where(StatementRow.tree.in_(list(digests))).order_by(StatementRow.id).limit(MOST_SHOWN)
    rows = session.scalars(query).all() if digests else ()
    now = database_now(session) if rows else None
    return [_shown(row, now) for row in rows]


def for_worker(session: Session, digest: str) -> list[str]:
    """Return the envelopes about keys, by serial, and those about the tree."""
    of_keys = select(StatementRow.envelope).where(StatementRow.kind == Kind.KEYS.value)
    of_this = select(StatementRow.envelope).where(StatementRow.tree == digest, StatementRow.kind != Kind.KEYS.value)
    newest = session.scalars(of_keys.order_by(StatementRow.serial.desc(), StatementRow.id).limit(MOST_OF_KEYS)).all()
    return [*reversed(newest), *session.scalars(of_this.order_by(StatementRow.id).limit(MOST_OF_TREE))]


def forget(session: Session, digests: list[str]) -> None:
    """Delete the statements about trees that are deleted."""
    session.execute(delete(StatementRow).where(StatementRow.tree.in_(digests)).execution_options(synchronize_session=False))


def _shown(row: StatementRow, now: datetime | None) -> SignedStatement:
    _, statement = open_envelope(row.envelope)
    said = statement.predicate
    expires_at = None if said.expires is None else _time(said.expires)
    return SignedStatement(
        tree=row.tree,
        kind=row.kind,
        name=said.name,
        version=said.version,
        serial=said.serial,
        key_ids=row.key_ids.split(),
        signed_at=_time(said.at),
        expires_at=expires_at,
        has_expired=expires_at is not None and now is not None and expires_at <= now,
        added_at=row.added_at,
        added_by=row.added_by,
    )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)
