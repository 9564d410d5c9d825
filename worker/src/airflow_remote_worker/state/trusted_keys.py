"""The keys that `join --trust` has pinned, and the highest serials that were used: `trust.json` in the state directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from airflow_remote_worker.config import TRUST_FILE
from airflow_remote_worker.errors import Damaged
from airflow_remote_worker.state import files


class TrustedKeys(msgspec.Struct, frozen=True):
    """`trust.json`, and its copy."""

    keys: list[str] = []
    """Pinned keys, each as the base64 line of its PEM form."""
    serial: int = 0
    """Of the statement that named them last; 0: an operator pinned them."""
    floors: dict[str, int] = {}
    """By kind and name (`runtime default`), the highest serial that was signed and has worked here. Lower ones are refused."""


class TrustFile:
    """Where :class:`TrustedKeys` are stored."""

    def __init__(self, root: Path, put_aside: Callable[[Path], object]) -> None:
        self.path = root / TRUST_FILE
        self._put_aside = put_aside

    def load(self) -> TrustedKeys:
        """Return what is stored; nothing if no key was ever pinned and no serial noted.

        Raises:
            Damaged: the file and its copy are damaged. Without them anything could be sent.
        """
        try:
            return files.read_twice(TrustedKeys, self.path, self._put_aside)
        except FileNotFoundError:
            return TrustedKeys()
        except Damaged as error:
            raise Damaged(f"{error}; pin the keys again: airflow-remote-worker trust pin FILE") from None

    def store(self, trusted: TrustedKeys) -> None:
        """Raises: OSError."""
        files.write_twice(self.path, trusted, durable=True)
