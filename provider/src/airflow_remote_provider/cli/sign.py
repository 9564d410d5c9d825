"""`airflow remote sign …`: makes keys, and signs what workers are to use. Private keys never leave this computer."""

from __future__ import annotations

import contextlib
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_remote_provider.cli.central import central
from airflow_remote_provider.cli.signing import PrivateKey, public_of, times
from airflow_remote_provider.cli.words import action, group, local_action, option

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from airflow_remote_protocol.statements import Predicate

RELEASE = "worker"
"""What all releases of the worker are called: their serials count together."""


def commands() -> Any:
    key = option("--key", required=True, type=Path, metavar="FILE", help="file with the private key")
    expires = option("--expires", default=None, metavar="SPAN", help="how long the signature counts, e.g. 90d; default: for ever")
    return group(
        "sign",
        "keys, and signed statements about what workers are to use",
        local_action(
            "keygen",
            "make a key: FILE, which is secret, and FILE.pub, which workers are to trust",
            keygen,
            option("--out", required=True, type=Path, metavar="FILE", help="file for the private key, which must not exist"),
        ),
        action(
            "tree",
            "sign a tree, show it, and upload the statement",
            sign_tree,
            option("digest", nargs="?", help="the tree: 64 hexadecimal digits; or use --bundle, --runtime or --release"),
            option("--bundle", help="sign the newest tree of this Dag bundle"),
            option("--runtime", help="sign the trees of the newest serial of this runtime"),
            option("--release", action="store_true", help="sign the trees of the newest serial of the worker's releases"),
            key,
            expires,
        ),
        action(
            "keys",
            "sign the keys that replace those that workers have pinned",
            sign_keys,
            option("files", nargs="+", type=Path, metavar="FILE", help="files with the new public keys"),
            option("--serial", required=True, type=int, help="number of this list; higher than that of the last one"),
            key,
            expires,
        ),
        action("show", "list what was signed about a tree", show, option("digest", help="the tree: 64 hexadecimal digits")),
    )


def keygen(args: argparse.Namespace) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = public_of(private)
    place = args.out.with_name(args.out.name + ".pub")
    try:
        if place.exists():
            raise SystemExit(f"{place} exists; choose another name with --out")
        with os.fdopen(os.open(args.out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)
        place.write_text(public.pem, encoding="ascii")
    except OSError as error:
        raise SystemExit(f"{args.out} can't be written: {error.strerror or error}; choose another name with --out") from None
    print(f"key {public.id}\nprivate: {args.out} (keep it secret)\npublic: {place} (airflow-remote-worker join --trust {place})")


def sign_tree(args: argparse.Namespace) -> None:
    if sum(bool(one) for one in (args.digest, args.bundle, args.runtime, args.release)) != 1:
        raise SystemExit("name one thing to sign: a tree's digest, --bundle NAME, --runtime NAME or --release")
    for digest, said in _wanted(args):
        _sign(args, digest, said)


def _wanted(args: argparse.Namespace) -> list[tuple[str, Predicate]]:
    """Return the trees to sign, and what to say about each."""
    from airflow_remote_protocol.statements import Kind, Predicate

    found = central(args)

    def said(kind: Kind, name: str, version: str, serial: int = 0) -> Predicate:
        return Predicate(kind, at, name, version, serial, expires)

    at, expires = times(args.expires)
    if args.release:
        return _newest(found.list_releases(), partial(said, Kind.RELEASE, RELEASE))
    if args.runtime:
        newest = _newest(found.show_runtime(args.runtime).editions, partial(said, Kind.RUNTIME, args.runtime))
        if not newest:
            raise SystemExit(f"the runtime {args.runtime} was not built yet; build it first: airflow remote runtimes build")
        return newest
    if args.bundle:
        about = found.show_bundle(args.bundle).about
        if not about.tree:
            raise SystemExit(f"the Dag bundle {args.bundle} was not published yet; publish it first: airflow remote publish")
        return [(about.tree, said(Kind.BUNDLE, args.bundle, about.version))]
    for bundle in found.list_bundles():
        for state in found.show_bundle(bundle.name).editions:
            if state.tree == args.digest:
                return [(args.digest, said(Kind.BUNDLE, bundle.name, state.version))]
    for runtime in found.list_runtimes():
        for edition in found.show_runtime(runtime.name).editions:
            if edition.tree == args.digest:
                return [(args.digest, said(Kind.RUNTIME, runtime.name, edition.platform, edition.serial))]
    with contextlib.suppress(SystemExit):  # no release was ever added
        for release in found.list_releases():
            if release.tree == args.digest:
                return [(args.digest, said(Kind.RELEASE, RELEASE, release.platform, release.serial))]
    raise SystemExit(f"central has no tree {args.digest[:64]} of a bundle, a runtime or a release")


def _newest(editions: Sequence[Any], said: Callable[[str, int], Predicate]) -> list[tuple[str, Predicate]]:
    """Return the trees of the newest serial, with what to say about each from its platform and serial."""
    newest = max((edition.serial for edition in editions), default=0)
    return [(edition.tree, said(edition.platform, newest)) for edition in editions if edition.serial == newest]


def sign_keys(args: argparse.Namespace) -> None:
    from airflow_remote_protocol.statements import BadKey, Kind, Predicate, digest_of_keys, parse_keys

    keys: list[str] = []
    for path in args.files:
        try:
            keys += [key.line for key in parse_keys(path.read_text(encoding="utf-8"))]
        except (OSError, UnicodeDecodeError, BadKey) as error:
            raise SystemExit(f"{path} can't be used: {error}") from None
    if args.serial < 1:
        raise SystemExit("--serial must be 1 or more")
    at, expires = times(args.expires)
    _sign(args, digest_of_keys(keys), Predicate(Kind.KEYS, at, "", "", args.serial, expires, keys))


def _sign(args: argparse.Namespace, digest: str, said: Predicate) -> None:
    central(args).add_statement(digest, PrivateKey(args.key).sign(digest, said))


def show(args: argparse.Namespace) -> None:
    for one in central(args).list_statements(args.digest):
        until = f", expires {one.expires_at:%Y-%m-%d %H:%M}" if one.expires_at else ""
        serial = f" serial {one.serial}" if one.serial else ""
        print(f"{one.kind} {one.name}{serial}: key {' '.join(one.key_ids)}, signed {one.signed_at:%Y-%m-%d %H:%M}{until}")
