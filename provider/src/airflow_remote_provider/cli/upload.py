"""`airflow remote publish --server`: publishes a Dag bundle from a computer without access to Airflow's database, such as CI."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_remote_provider.cli.central import central
from airflow_remote_provider.cli.signing import PrivateKey, times

if TYPE_CHECKING:
    import argparse

    from airflow_remote_provider.compat import Checkout


def upload(args: argparse.Namespace) -> None:
    """Publish one bundle. A signature is added before the tree is published, so that no job meets an unsigned one."""
    from airflow_remote_protocol.statements import Kind, Predicate

    from airflow_remote_provider.packing.scan import Limits, Moved, Unpublishable, scan
    from airflow_remote_provider.packing.storing import Packing
    from airflow_remote_provider.packing.uploads import write_upload
    from airflow_remote_provider.settings import settings

    if args.watch or len(args.names) != 1:
        raise SystemExit("with a server, name one Dag bundle, and omit --watch: airflow remote publish NAME --path DIR")
    (name,), options, found = args.names, settings(), central(args)
    key = None if args.sign is None else PrivateKey(args.sign)
    at, expires = times(args.expires)
    began = time.monotonic()
    with _files(args) as checkout:
        try:
            tree, state = scan(checkout.path, limits=Limits(options.tree_files, options.tree_bytes, options.blob_bytes))
            if not tree.files:
                raise SystemExit(f"{checkout.path} has no files; name the directory of the bundle with --path")
            missing = set(found.begin_tree(name, tree.manifest))
            size = 0
            for batch in Packing().pack(tree, missing, state):
                found.add_blobs(name, tree.digest, write_upload(batch))
                size += sum(len(blob.packed) for blob in batch)
        except (Unpublishable, Moved) as error:
            raise SystemExit(f"{name}: not published: {error}") from None
    if key is not None:
        said = Predicate(Kind.BUNDLE, at, name, checkout.version or "", 0, expires)
        found.add_statement(tree.digest, key.sign(tree.digest, said))
    about = found.publish_tree(name, tree.digest, checkout.version, scanned_s_ago=time.monotonic() - began)
    sizes = f"files: {tree.files}, bytes: {tree.bytes}; new files: {len(missing)}, packed bytes: {size}"
    print(f"{name}: tree {tree.digest[:12]} ({sizes})", flush=True)
    if about.tree != tree.digest:
        raise SystemExit(f"{name}: central has published newer files meanwhile (tree {(about.tree or 'none')[:12]})")
    if about.is_publishing:
        print(
            f"{name}: a process on central publishes this bundle, too. If it has files of the bundle, they replace this tree: "
            "set [remote] publish = off, or stop `airflow remote publish` there",
            file=sys.stderr,
        )


@contextlib.contextmanager
def _files(args: argparse.Namespace) -> Iterator[Checkout]:
    """Yield the directory that `--path` names, or the bundle of Airflow's configuration here."""
    from airflow_remote_provider import compat

    name = args.names[0]
    if args.path is not None:
        if not args.path.is_dir():
            raise SystemExit(f"--path: {args.path} is no directory; name the root of the bundle")
        yield compat.Checkout(Path(args.path), args.version)
        return
    if args.version is not None:
        raise SystemExit("--version needs --path: a bundle of Airflow's configuration has its own version")
    try:
        source = compat.bundle_sources().get(name)
        if source is None:
            raise SystemExit(f"Airflow's configuration here has no Dag bundle {name!r}; name its directory with --path")
        with source.newest() as checkout:
            yield checkout
    except compat.BundleUnavailable as error:
        raise SystemExit(f"{name}: not published: {error}") from None
