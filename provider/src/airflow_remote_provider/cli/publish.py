"""`airflow remote publish`: publishes Dag bundles from this machine, once or for as long as it runs.

With a server, :mod:`.upload` does it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_remote_provider.cli.server import named_server
from airflow_remote_provider.cli.upload import upload
from airflow_remote_provider.cli.words import action, option

if TYPE_CHECKING:
    import argparse

    from airflow_remote_provider.compat import BundleSource
    from airflow_remote_provider.packing.publish import Outcome, Publisher
    from airflow_remote_provider.packing.watch import Changes, Rounds

LOOK_EVERY_S = 2.0
"""How often to ask for versions that jobs need, while bundles with versions are published."""
CLEANED_EVERY_S = 3600.0


def commands() -> Any:
    return action(
        "publish",
        "publish Dag bundles from this machine, which has their files: in Airflow's database, or on a server",
        publish,
        option("names", nargs="*", metavar="NAME", help="bundles of Airflow's configuration; default: all of them"),
        option("--watch", action="store_true", help="go on publishing changes, until Ctrl-C"),
        option("--every", type=float, metavar="SECONDS", default=None, help="with --watch: how often to scan; default: 10"),
        option("--path", type=Path, metavar="DIR", default=None, help="with --server: the directory of the bundle"),
        option("--version", metavar="TEXT", default=None, help="with --path: the bundle's version, such as a commit"),
        option("--sign", type=Path, metavar="FILE", default=None, help="with --server: sign the tree with this private key"),
        option("--expires", metavar="SPAN", default=None, help="with --sign: how long the signature counts, e.g. 90d"),
    )


def publish(args: argparse.Namespace) -> None:
    from airflow_remote_provider.packing.watch import EVERY_S

    if args.expires is not None and args.sign is None:
        raise SystemExit("--expires needs --sign")
    if named_server(args) is not None:
        upload(args)
        return
    for flag, value in (("--path", args.path), ("--version", args.version), ("--sign", args.sign)):
        if value is not None:
            raise SystemExit(f"{flag} needs --server; sign what is published here with `airflow remote sign tree --bundle NAME`")
    every_s = EVERY_S if args.every is None else args.every
    if args.every is not None and not args.watch:
        raise SystemExit("--every needs --watch")
    if not every_s >= 1:
        raise SystemExit("--every must be 1 or more")
    sources = _sources(args.names)
    if args.watch:
        with _stopped_by_signals() as stop:
            _watch(_publisher(sources, pause=partial(_end_if, stop)), every_s, stop)
    elif not _publish_once(_publisher(sources)):
        raise SystemExit(1)


def _sources(names: Sequence[str]) -> dict[str, BundleSource]:
    """Return the bundles to publish; end the command if a name is not that of a bundle."""
    from airflow_remote_provider import compat

    try:
        sources = compat.bundle_sources()
    except compat.BundleUnavailable as error:
        raise SystemExit(str(error)) from None
    if missing := [name for name in names if name not in sources]:
        raise SystemExit(
            f"Airflow's configuration here has no Dag bundle {missing[0]!r} ([dag_processor] dag_bundle_config_list); "
            f"it has: {', '.join(sources) or 'none'}"
        )
    return {name: sources[name] for name in dict.fromkeys(names)} if names else sources


def _publisher(sources: dict[str, BundleSource], pause: Callable[[], None] = lambda: None) -> Publisher:
    from airflow_remote_provider.packing.publish import Publisher
    from airflow_remote_provider.packing.scan import Limits
    from airflow_remote_provider.settings import settings
    from airflow_remote_provider.stores.blobs.opened import BlobStores

    options = settings()
    limits = Limits(options.tree_files, options.tree_bytes, options.blob_bytes)
    who = f"airflow remote publish on {socket.gethostname()} (process {os.getpid()})"
    return Publisher(sources, BlobStores(options.blob_store).newest, limits, who=who, pause=pause)


def _publish_once(publisher: Publisher) -> bool:
    """Publish each bundle; return whether all attempts succeeded."""
    from airflow_remote_provider.packing.publish import Result

    outcomes = []
    for name in publisher.sources:
        with _explained():
            outcomes.append(publisher.publish(name))
        _print(outcomes[-1])
    return all(outcome.what is not Result.FAILED for outcome in outcomes)


def _watch(publisher: Publisher, every_s: float, stop: threading.Event) -> None:
    from airflow_remote_provider import compat
    from airflow_remote_provider.packing.watch import Changes, Rounds

    rounds = Rounds(publisher, lambda: list(publisher.sources))
    local = [path for source in publisher.sources.values() if source.is_local and (path := source.path()) is not None]
    changes = Changes(local, stop)
    has_versions = any(source.is_versioned for source in publisher.sources.values())
    assigned: frozenset[str] | None = None
    cleaned_at = time.monotonic()
    try:
        while not stop.is_set():
            with contextlib.suppress(_Unavailable), _retried():
                for outcome in rounds.run():
                    _print(outcome, only_news=True)
                assigned = _tell(rounds, publisher, assigned)
            _wait(rounds, changes, stop, every_s, LOOK_EVERY_S if has_versions else every_s)
            if has_versions and time.monotonic() - cleaned_at > CLEANED_EVERY_S:
                cleaned_at = time.monotonic()
                compat.remove_old_versions()
    except _Stopped:
        pass
    finally:
        with contextlib.suppress(_Unavailable), _retried():
            rounds.leave()


def _wait(rounds: Rounds, changes: Changes, stop: threading.Event, every_s: float, look_every_s: float) -> None:
    """Wait for a change of a file, for news, or for the next turn."""
    until = time.monotonic() + every_s
    while (left := until - time.monotonic()) > 0 and not stop.is_set():
        if rounds.has_news or changes.wait(min(left, look_every_s)):
            return
        if look_every_s < every_s:
            with contextlib.suppress(_Unavailable), _retried():
                rounds.look()


def _tell(rounds: Rounds, publisher: Publisher, before: frozenset[str] | None) -> frozenset[str]:
    """Print the bundles that other processes publish, if they have changed."""
    if rounds.assigned != before:
        others = sorted(publisher.sources.keys() - rounds.assigned)
        if rounds.assigned:
            print(f"publishing {', '.join(sorted(rounds.assigned))}", flush=True)
        if others:
            print(f"another process publishes {', '.join(others)}; waiting for it to end", flush=True)
    return rounds.assigned


def _print(outcome: Outcome, *, only_news: bool = False) -> None:
    from airflow_remote_provider.packing.publish import Result

    version = f" at version {outcome.version}" if outcome.version else ""
    if outcome.what is Result.FAILED:
        print(f"{outcome.name}{version}: not published: {outcome.trouble}", file=sys.stderr, flush=True)
        return
    if outcome.tree is None or (only_news and outcome.what is Result.UNCHANGED):
        return
    size = f"files: {outcome.tree.files}, bytes: {outcome.tree.bytes}"
    stored = f"new files: {outcome.stored_files}, packed bytes: {outcome.stored_bytes}"
    print(f"{outcome.name}{version}: tree {outcome.tree.digest[:12]} ({size}; {stored})", flush=True)
    if outcome.trouble:
        print(f"{outcome.name}: {outcome.trouble}", file=sys.stderr, flush=True)


class _Unavailable(Exception):
    """The database does not answer, which was printed."""


@contextlib.contextmanager
def _retried() -> Iterator[None]:
    """Print why the database does not answer, and go on.

    Raises:
        _Unavailable: it does not answer.
    """
    from sqlalchemy.exc import SQLAlchemyError

    from airflow_remote_provider.faults import diagnose

    try:
        yield
    except SQLAlchemyError as error:
        print(f"{diagnose(error)}", file=sys.stderr, flush=True)
        raise _Unavailable from None


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """End the command with a sentence if the database does not answer."""
    try:
        with _retried():
            yield
    except _Unavailable:
        raise SystemExit(1) from None


class _Stopped(BaseException):
    """A signal asked to end, and this is a place to do so. Not an `Exception`: it is no failure of a bundle."""


def _end_if(stop: threading.Event) -> None:
    if stop.is_set():
        raise _Stopped


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C sets, and SIGTERM, with which a container ends. A second signal ends the process at once.

    An exception in the handler could come within a transaction, whose lock would then last longer than the process wants to.
    """
    stop = threading.Event()

    def end(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {one: signal.signal(one, end) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
