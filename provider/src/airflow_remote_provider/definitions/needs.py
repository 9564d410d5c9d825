"""What a job needs of a worker besides its queue: labels that people gave it, and the right to have the job's Dag bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache

LONGEST = 1000
"""Of a job's labels as they are stored: a column that databases can compare."""


def encode_labels(labels: Mapping[str, str]) -> str | None:
    """Return *labels* as a job's row holds them: one text for the same labels, whatever their order; None for none."""
    return json.dumps(dict(labels), sort_keys=True, ensure_ascii=False, separators=(",", ":")) if labels else None


@lru_cache(maxsize=1024)
def pairs_of(spelled_labels: str) -> frozenset[tuple[str, str]]:
    """Return the pairs that :func:`spelled` has written."""
    return frozenset(json.loads(spelled_labels).items())


def suits(labels: Mapping[str, str], bundles: Sequence[str] | None, *, needed: str | None, bundle: str | None) -> bool:
    """Say whether a worker with these *labels*, which may have *bundles* (globs; None: any), is what a job needs.

    *needed* and *bundle* are the job's: as :func:`spelled`, and None where it needs none.
    """
    if needed is not None and not pairs_of(needed) <= labels.items():
        return False
    return bundle is None or bundles is None or any(fnmatchcase(bundle, glob) for glob in bundles)
