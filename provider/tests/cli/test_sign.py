"""Keys and signatures by the command line, checked as a worker checks them."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine

from testkit.ledger import empty_tables  # isort: skip

from airflow_remote_protocol.statements import Kind, open_envelope, parse_keys
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import releases, runtimes, statements
from airflow_remote_provider.ledger.runtimes import Built, Recipe
from airflow_remote_provider.ledger.trees import RELEASE
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

from testkit import code
from testkit.runtimes import LINUX, stored_tree

Run = Callable[..., str]

pytestmark = pytest.mark.parametrize("run", ["in_process"], indirect=True)


@pytest.fixture
def key(run: Run, tmp_path: Path) -> Path:
    run("sign", "keygen", "--out", str(tmp_path / "a.key"))
    return tmp_path / "a.key"


def envelopes(digest: str) -> list[str]:
    return compat.in_transaction(lambda session: statements.for_worker(session, digest))


def is_signed(envelope: str, key: Path) -> bool:
    (public,) = parse_keys(key.with_name("a.key.pub").read_text())
    verifier = SSlibKey(public.id, "ed25519", "ed25519", {"public": public.raw.hex()})
    return list(Envelope.from_dict(json.loads(envelope)).verify([verifier], 1)) == [public.id]


def test_a_private_key_is_for_its_owner_and_is_never_overwritten(run: Run, key: Path) -> None:
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    with pytest.raises(SystemExit, match="choose another name"):
        run("sign", "keygen", "--out", str(key))
    with pytest.raises(SystemExit, match="choose another name"):
        run("sign", "keygen", "--out", str(key.with_name("b.key")), "--out", str(key))


def test_the_newest_tree_of_a_bundle_is_signed(run: Run, database: Engine, key: Path) -> None:
    tree = compat.in_transaction(lambda session: code.publish(session, "etl", {"dag.py": b"1"})).digest
    printed = run("sign", "tree", "--bundle", "etl", "--key", str(key), "--expires", "90d")
    assert f"bundle etl (tree {tree})" in printed
    (envelope,) = envelopes(tree)
    said = open_envelope(envelope)[1].predicate
    assert (said.kind, said.name, said.expires) == (Kind.BUNDLE, "etl", said.at + 90 * 86400)
    assert is_signed(envelope, key)
    assert "bundle etl: key" in run("sign", "show", tree)
    shown = run("bundles", "show", "etl")
    (public,) = parse_keys(key.with_name("a.key.pub").read_text())
    assert f"{tree[:12]}  etl   " in shown.partition("signed:")[2]
    assert public.id[:16] in shown
    run("sign", "tree", tree, "--key", str(key))
    assert open_envelope(envelopes(tree)[0])[1].predicate.expires is None
    about = json.loads(run("bundles", "show", "etl", "-o", "json"))["statements"]
    assert [(one["key_ids"], one["expires_at"], one["has_expired"]) for one in about] == [([public.id], None, False)]


def test_each_platform_of_a_runtime_is_signed_with_its_serial(run: Run, database: Engine, key: Path) -> None:
    tree = stored_tree("signed")
    with compat.transaction() as session:
        runtimes.add(session, "gpu", Recipe(), [Built(LINUX, tree)], built_with={}, by="ann")
    run("sign", "tree", "--runtime", "gpu", "--key", str(key))
    said = open_envelope(envelopes(tree)[0])[1].predicate
    assert (said.kind, said.name, said.serial) == (Kind.RUNTIME, "gpu", 1)
    assert "signed:" in run("runtimes", "show", "gpu")
    empty_tables(database)


def test_releases_of_the_worker_are_signed_with_the_serial_that_central_has(run: Run, database: Engine, key: Path) -> None:
    with pytest.raises(SystemExit, match="airflow remote releases add"):
        run("sign", "tree", "--release", "--key", str(key))
    with pytest.raises(SystemExit, match="central has no tree 0000"):
        run("sign", "tree", "0" * 64, "--key", str(key))
    old, new = (stored_tree(text, kind=RELEASE) for text in ("old", "new"))
    with compat.transaction() as session:
        for number, tree in enumerate((old, new)):
            releases.add(session, f"0.{number}", [Built(LINUX, tree)], by="ann")
    run("sign", "tree", "--release", "--key", str(key))
    run("sign", "tree", old, "--key", str(key))
    assert run("releases", "show").partition("signed:")[2].count("worker") == 2
    for tree, serial in ((new, 2), (old, 1)):
        said = open_envelope(envelopes(tree)[0])[1].predicate
        assert (said.kind, said.name, said.version, said.serial) == (Kind.RELEASE, "worker", LINUX, serial)
    empty_tables(database)


def test_a_list_of_new_keys_is_signed_by_the_old_one(run: Run, database: Engine, key: Path) -> None:
    run("sign", "keygen", "--out", str(key.with_name("new.key")))
    run("sign", "keys", str(key.with_name("new.key.pub")), "--serial", "1", "--key", str(key))
    (envelope,) = envelopes("0" * 64)
    assert is_signed(envelope, key)
    assert open_envelope(envelope)[1].predicate.keys == [parse_keys(key.with_name("new.key.pub").read_text())[0].line]
    with pytest.raises(SystemExit, match="it is a private key"):
        run("sign", "keys", str(key), "--serial", "2", "--key", str(key))
    empty_tables(database)
