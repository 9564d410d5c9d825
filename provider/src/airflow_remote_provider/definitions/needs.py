"""What a job requires of a worker besides its queue: labels, and the right to run jobs of its Dag bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache

LONGEST = 1000
"""Most characters of a job's encoded labels: the column must be short enough to be compared by every database."""


def encode_labels(labels: Mapping[str, str]) -> str | None:
    """Return *labels* as a job's row holds them: the same text for the same labels in any order; None if there are no labels."""
    return json.dumps(dict(labels), sort_keys=True, ensure_ascii=False, separators=(",", ":")) if labels else None


@lru_cache(maxsize=1024)
def pairs_of(encoded_labels: str) -> frozenset[tuple[str, str]]:
    """Return the pairs in labels that :func:`encode_labels` has encoded."""
    return frozenset(json.loads(encoded_labels).items())


def suits(labels: Mapping[str, str], bundles: Sequence[str] | None, *, needed: str | None, bundle: str | None) -> bool:
    """Return whether a worker with these *labels* and *bundles* (globs; None: any) meets the needs of a job.

    *needed* are the job's labels, encoded by :func:`encode_labels`, and *bundle* is its Dag bundle; None: it needs none.
    """
    if needed is not None and not pairs_of(needed) <= labels.items():
        return False
    return bundle is None or bundles is None or any(fnmatchcase(bundle, glob) for glob in bundles)
