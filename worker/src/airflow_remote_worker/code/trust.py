"""Checks that trees from central are signed by keys that this site trusts: Dag code, runtimes, releases of the worker.

Keys in the settings (`[trust]`) go before those that `join --trust` has pinned. Pinned keys can be replaced by a statement that
enough of them have signed. What was once found signed is stored, so that a warm start asks central for nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from airflow_remote_protocol.messages import MAX_STATEMENTS, Statements
from airflow_remote_protocol.statements import BadKey, Kind, PublicKey, parse_keys

from airflow_remote_worker.clock import Clock
from airflow_remote_worker.code.signatures import Trusted, Verdict, floor_name, judge, newest_keys
from airflow_remote_worker.config import Config, ConfigError
from airflow_remote_worker.errors import Damaged
from airflow_remote_worker.state import files
from airflow_remote_worker.state.trusted_keys import TrustedKeys, TrustFile

log = logging.getLogger(__name__)

MOST_STORED = 200
"""Stored statements, each about one tree and at most 160 KB, usually 1 KB."""


class Trust:
    """What this site requires of each kind of trees.

    Args:
        root: the directory for statements.
        fetch: returns central's envelopes about a tree.
    """

    def __init__(
        self, config: Config, file: TrustFile, root: Path, fetch: Callable[[str], Awaitable[list[str]]], clock: Clock
    ) -> None:
        self._config = config
        self._file = file
        self._root = root
        self._fetch = fetch
        self._clock = clock
        self._own = keys_in_settings(config)
        self._pinned = file.load()

    def requires(self, kind: Kind) -> bool:
        """Return whether trees of this kind must be signed."""
        if kind is Kind.BUNDLE:
            return bool(self._own[kind] or self._pinned.keys)
        if self._config.update.accept:
            return self._config.update.accept == "signed"
        return self._config.needs_signed_updates or bool(self.keys(kind))

    def keys(self, kind: Kind) -> list[PublicKey]:
        """Return the keys that may sign trees of this kind."""
        return self._own[kind] or self._own[Kind.BUNDLE] or [key for line in self._pinned.keys for key in parse_keys(line)]

    async def check(self, tree: str, kind: str, name: str) -> str:
        """Return why this site does not accept a runtime or a release; empty: it does. See :data:`.acceptance.Check`."""
        return await self._check(tree, Kind(kind), name)

    async def check_code(self, tree: str, bundle: str) -> str:
        """Return why this site does not accept *tree* as the code of *bundle*; empty: it does. Raises as :meth:`check`."""
        return await self._check(tree, Kind.BUNDLE, bundle)

    async def _check(self, tree: str, wanted: Kind, name: str) -> str:
        if not self.requires(wanted):
            return ""
        verdict = self._judge(self._load(tree), tree, wanted, name)
        if verdict.refused:
            envelopes = (await self._fetch(tree))[:MAX_STATEMENTS]
            self._rotate(envelopes)
            verdict = self._judge(envelopes, tree, wanted, name)
            if not verdict.refused:
                self._store(tree, envelopes)
        return verdict.refused

    def note_proven(self, tree: str, kind: str, name: str) -> None:
        """Note that an accepted runtime or release works: none with a lower serial is accepted from now on."""
        if not self.requires(Kind(kind)):
            return
        said = self._judge(self._load(tree), tree, Kind(kind), name).said
        if said is not None and said.serial > self._pinned.floors.get(floor_name(said), 0):
            floors = {**self._pinned.floors, floor_name(said): said.serial}
            self._replace(msgspec.structs.replace(self._pinned, floors=floors))

    def _judge(self, envelopes: list[str], tree: str, kind: Kind, name: str) -> Verdict:
        trusted = Trusted(self.keys(kind), self._config.trust.threshold, self._pinned.floors)
        return judge(envelopes, tree, kind, trusted, now=self._clock.wall(), name=name)

    def _rotate(self, envelopes: list[str]) -> None:
        before = self._pinned
        if not before.keys:
            return
        threshold, now = self._config.trust.threshold, self._clock.wall()
        keys, serial = newest_keys(envelopes, before.keys, before.serial, threshold, now=now)
        if serial != before.serial:
            log.warning(
                "the keys that this worker trusts were replaced by %d others, which they have signed (serial %d)",
                len(keys),
                serial,
            )
            self._replace(msgspec.structs.replace(before, keys=keys, serial=serial))

    def _replace(self, trusted: TrustedKeys) -> None:
        self._pinned = trusted
        try:
            self._file.store(trusted)
        except OSError as error:
            log.error("%s can't be stored: %s; after a restart the earlier one counts", self._file.path, error)

    def _load(self, tree: str) -> list[str]:
        try:
            return files.read(Statements, self._root / f"{tree}.json").envelopes
        except (FileNotFoundError, Damaged):
            return []

    def _store(self, tree: str, envelopes: list[str]) -> None:
        try:
            self._root.mkdir(mode=0o700, exist_ok=True)
            stored = sorted(self._root.glob("*.json"), key=lambda path: path.stat().st_mtime)
            for path in stored[: max(0, len(stored) - MOST_STORED + 1)]:
                path.unlink(missing_ok=True)
            files.store(self._root / f"{tree}.json", Statements(envelopes))
        except OSError as error:  # it is asked for again
            log.debug("statements about %s can't be stored: %s", tree[:12], error)


def keys_in_settings(config: Config) -> dict[Kind, list[PublicKey]]:
    """Return the keys in `[trust]`.

    Raises:
        ConfigError: a file can't be read, or has no key; or there are fewer keys than `trust.threshold`.
    """
    trust = config.trust
    lists = {Kind.BUNDLE: trust.bundles, Kind.RUNTIME: trust.runtimes, Kind.RELEASE: trust.releases}
    found = {kind: [key for text in texts for key in _keys(f"trust.{kind.value}s", text)] for kind, texts in lists.items()}
    for kind, keys in found.items():
        if keys and len({key.id for key in keys}) < trust.threshold:
            raise ConfigError(
                f"trust.threshold: it is {trust.threshold}, and trust.{kind.value}s has {len(keys)} keys; add keys or lower it"
            )
    return found


def read_keys(path: Path) -> list[PublicKey]:
    """Return the public keys in a file.

    Raises:
        ConfigError: it can't be read, or has no key.
    """
    return _keys("--trust", str(path))


def _keys(setting: str, text: str) -> list[PublicKey]:
    try:
        return parse_keys(text)
    except BadKey:
        pass
    try:
        return parse_keys(Path(text).expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{setting}: the file {text} can't be read ({error}); name the file of a public key") from None
    except BadKey as error:
        raise ConfigError(f"{setting}: {text} can't be used: {error}") from None
