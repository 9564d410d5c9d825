"""Signed statements: stored by form, bounded, and deleted with their tree."""

from __future__ import annotations

from typing import TypeVar

import pytest
from airflow_remote_protocol.statements import Kind, digest_of_keys
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import statements
from airflow_remote_provider.ledger.errors import Impossible, NotFound
from airflow_remote_provider.ledger.statements import MOST_OF_KEYS, MOST_OF_TREE, SignedStatement
from sqlalchemy.orm import Session

from testkit import code
from testkit.signing import SigningKey

pytestmark = pytest.mark.usefixtures("database")

T = TypeVar("T")


def publish() -> str:
    return compat.in_transaction(lambda session: code.publish(session, "etl", {"dag.py": b"1"})).digest


def add(digest: str, envelope: str) -> SignedStatement:
    return compat.in_transaction(lambda session: statements.add(session, digest, envelope, by="ann"))


def for_worker(digest: str) -> list[str]:
    return compat.in_transaction(lambda session: statements.for_worker(session, digest))


def test_a_statement_is_passed_on_as_it_was_added() -> None:
    tree, key = publish(), SigningKey()
    envelope = key.sign(tree, name="etl", expires=2e9)
    added = add(tree, envelope)
    assert (added.kind, added.name, added.key_ids, added.added_by) == ("bundle", "etl", [key.public.id], "ann")
    assert for_worker(tree) == [envelope]
    assert compat.in_transaction(lambda session: statements.of_tree(session, tree)) == [added]


def test_a_later_statement_of_the_same_key_replaces_the_earlier_one() -> None:
    tree, key = publish(), SigningKey()
    add(tree, key.sign(tree, name="etl"))
    second = key.sign(tree, name="etl", expires=2e9)
    add(tree, second)
    assert for_worker(tree) == [second]


def test_a_statement_must_be_about_a_tree_that_is_here() -> None:
    tree, key = publish(), SigningKey()
    with pytest.raises(NotFound, match="publish it first"):
        add("0" * 64, key.sign("0" * 64))
    with pytest.raises(Impossible, match="is about the tree 000000"):
        add(tree, key.sign("0" * 64))
    with pytest.raises(Impossible, match=r"says that the tree .* is a runtime; it is a bundle"):
        add(tree, key.sign(tree, Kind.RUNTIME, serial=1))
    with pytest.raises(Impossible, match="no in-toto statement"):
        add(tree, "{}")
    assert for_worker(tree) == []


def test_a_tree_has_a_limited_number_of_statements() -> None:
    tree = publish()
    for _ in range(MOST_OF_TREE):
        add(tree, SigningKey().sign(tree))
    with pytest.raises(Impossible, match="which is the most"):
        add(tree, SigningKey().sign(tree))


def test_the_newest_statements_about_keys_go_to_each_worker() -> None:
    tree, key = publish(), SigningKey()
    sent = [key.hand_over_to(SigningKey(), serial=serial) for serial in range(1, MOST_OF_KEYS + 3)]
    for envelope in sent:
        _, statement = statements.open_envelope(envelope)
        assert digest_of_keys(statement.predicate.keys) == statement.digest
        add(statement.digest, envelope)
    assert for_worker(tree) == sent[2:]


def test_statements_are_deleted_with_their_tree() -> None:
    tree = publish()
    add(tree, SigningKey().sign(tree))

    def forget(session: Session) -> None:
        statements.forget(session, [tree])

    compat.in_transaction(forget)
    assert for_worker(tree) == []
