"""Decides whether enough trusted keys have signed a tree. No I/O: the envelopes, the keys and the time are given.

The library that verifies signatures is loaded only when something signed is checked (ADR 0045).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from airflow_remote_protocol.statements import BadStatement, Kind, Predicate, PublicKey, Statement, open_envelope, parse_keys

log = logging.getLogger(__name__)

ED25519 = {"keytype": "ed25519", "scheme": "ed25519"}
SHOWN = 16
"""Digits of a key's id in texts."""
MOST_VERIFIED = 100
"""Envelopes whose signatures are not verified again: without a compiled package that takes 25 ms, and each job asks."""


@dataclass(frozen=True)
class Trusted:
    """What a site requires of one kind of trees."""

    keys: Sequence[PublicKey]
    threshold: int = 1
    floors: Mapping[str, int] = field(default_factory=dict)
    """By :func:`floor_name`."""


@dataclass(frozen=True)
class Verdict:
    """Whether a tree is signed."""

    refused: str = ""
    """Why it is not; empty: it is."""
    said: Predicate | None = None
    """What the keys have signed."""


def judge(envelopes: Iterable[str], digest: str, kind: Kind, trusted: Trusted, *, now: float, name: str | None = None) -> Verdict:
    """Return whether at least *threshold* of the trusted keys have signed that *digest* is a tree of this *kind*, and *name*."""
    signed: dict[tuple[str, int], set[str]] = {}
    said: dict[tuple[str, int], Predicate] = {}
    problems: list[str] = []
    for text in envelopes:
        try:
            envelope, statement = open_envelope(text)
        except BadStatement as error:
            problems.append(str(error))
            continue
        predicate = statement.predicate
        if statement.digest != digest or predicate.kind is not kind:
            continue
        names = ", ".join(signature.keyid[:SHOWN] for signature in envelope.signatures)
        if name not in (None, predicate.name):
            problems.append(f"the statement of key {names} is about {predicate.name!r}, not about {name!r}")
            continue
        if problem := _problem(predicate, trusted, now):
            problems.append(f"the statement of key {names} {problem}")
            continue
        signers = valid_signers(text, trusted.keys)
        if not signers:
            problems.append(f"it is signed by the key {names}, which this worker does not trust")
            continue
        about = (predicate.name, predicate.serial)
        signed.setdefault(about, set()).update(signers)
        said[about] = predicate
        if len(signed[about]) >= trusted.threshold:
            return Verdict("", predicate)
    if signed:
        most = max(len(signers) for signers in signed.values())
        problems.append(f"it is signed by {most} of the {trusted.threshold} keys that trust.threshold requires")
    return Verdict(_refusal(digest, kind, problems or ["nobody has signed it"], trusted))


def _problem(predicate: Predicate, trusted: Trusted, now: float) -> str:
    if predicate.expires is not None and predicate.expires <= now:
        return "has expired"
    floor = trusted.floors.get(floor_name(predicate), 0)
    if predicate.kind is not Kind.BUNDLE and predicate.serial < floor:
        return (
            f"is about serial {predicate.serial}, and serial {floor} was used here: older ones are not taken again; "
            "a rollback has a new serial, which must be signed"
        )
    return ""


def _refusal(digest: str, kind: Kind, problems: Sequence[str], trusted: Trusted) -> str:
    keys = ", ".join(key.id[:SHOWN] for key in trusted.keys)
    is_list = kind is Kind.KEYS
    what = f"the list of keys {digest[:12]}" if is_list else f"the {kind.value} with the tree {digest[:12]}"
    command = "airflow remote sign keys" if is_list else f"airflow remote sign tree {digest}"
    return (
        f"{what} is not signed as this worker requires: {'; '.join(problems[:5])}. "
        f"This worker trusts {f'the keys {keys}' if keys else 'no key'}; sign it with one of them: {command}"
    )


def floor_name(predicate: Predicate) -> str:
    return f"{predicate.kind.value} {predicate.name}"


def valid_signers(text: str, keys: Sequence[PublicKey]) -> set[str]:
    """Return the ids of those *keys* whose signature in the envelope is valid."""
    return set(_verify(text, tuple(keys)))


@lru_cache(MOST_VERIFIED)
def _verify(text: str, keys: tuple[PublicKey, ...]) -> frozenset[str]:
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import VerificationError
    from securesystemslib.signer import Key

    found = set()
    for key in {key.id: key for key in keys}.values():
        try:
            envelope = Envelope.from_dict(json.loads(text))
            envelope.verify([Key.from_dict(key.id, {**ED25519, "keyval": {"public": key.raw.hex()}})], 1)
        except VerificationError:
            continue
        except Exception as error:  # what anyone may have written
            log.debug("a signature of key %s can't be checked: %s", key.id[:SHOWN], error)
            continue
        found.add(key.id)
    return frozenset(found)


def newest_keys(
    envelopes: Iterable[str], keys: Sequence[str], serial: int, threshold: int, *, now: float
) -> tuple[list[str], int]:
    """Return the keys that replace *keys*, and their serial: each list must be signed by *threshold* of those before it."""
    lists: dict[int, dict[str, tuple[Statement, list[str]]]] = {}
    for text in envelopes:
        try:
            _, statement = open_envelope(text)
        except BadStatement:
            continue
        if statement.predicate.kind is Kind.KEYS:
            known = lists.setdefault(statement.predicate.serial, {}).setdefault(statement.digest, (statement, []))
            known[1].append(text)
    for number in sorted(one for one in lists if one > serial):
        for digest, (statement, texts) in lists[number].items():
            trusted = Trusted([key for line in keys for key in parse_keys(line)], threshold)
            refused = judge(texts, digest, Kind.KEYS, trusted, now=now).refused
            if not refused and not _are_keys(statement.predicate.keys, threshold):
                refused = f"the list of keys {digest[:12]} has not {threshold} different keys, which trust.threshold requires"
            if refused:
                log.warning("new keys (serial %d) are not used: %s", number, refused)
                continue
            keys, serial = statement.predicate.keys, number
            break
    return list(keys), serial


def _are_keys(lines: Sequence[str], least: int) -> bool:
    try:
        return least <= len({key.id for line in lines for key in parse_keys(line)}) == len(lines)
    except ValueError:
        return False
