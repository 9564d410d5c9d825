"""`release.json`: which release runs, which one ran before, and which one is on trial. Decides; uses no file and no clock.

event                              function        then
a release is installed and tested  `begin`         it is on trial from the next start on
its trial starts                   `note_try`      a trial that is cut off, by a power cut or so, counts too
it has reached central             `prove`         it is the current one; the one before is kept
its trial has ended otherwise      `give_up`       the current one goes on
the current one reaches central    `blame`         the release failed: it is not tried again until the serial rises
it does not reach central either   (nothing)       the release may be tried again, up to MAX_TRIES
"""

from __future__ import annotations

import msgspec
from airflow_remote_protocol.messages import MAX_SHORT_TEXT, WantedRelease

MAX_TRIES = 3
"""Trials of one release that end without a decision: the machine restarted, or central could not be reached."""
MAX_FAILED = 20
"""Failed releases that are remembered, the newest."""


class Release(msgspec.Struct, frozen=True):
    """A release that is installed on this machine."""

    version: str
    serial: int
    tree: str

    @classmethod
    def of(cls, wanted: WantedRelease) -> Release:
        return cls(wanted.version, wanted.serial, wanted.tree.digest)

    @property
    def text(self) -> str:
        return f"release {self.version} (serial {self.serial})"


class Record(msgspec.Struct, frozen=True):
    """`release.json`. Releases before and after this one read it too: fields are only added."""

    current: Release | None = None
    """The one that runs; None: the one that the site has installed."""
    previous: Release | None = None
    """The one before, which stays for a rollback; None: the one that the site has installed."""
    candidate: Release | None = None
    """The one on trial, or whose last trial was given up."""
    tries: int = 0
    """Trials of the candidate that have started."""
    ended: str = ""
    """Why its last trial was given up; empty: it is on trial, from the next start on."""
    failed: dict[str, str] = {}
    """Why releases failed here, by serial."""

    @property
    def on_trial(self) -> Release | None:
        """The release that the next start tries."""
        return None if self.ended else self.candidate

    @property
    def trees(self) -> frozenset[str]:
        """The trees that must stay."""
        return frozenset(release.tree for release in (self.current, self.previous, self.candidate) if release)


def begin(record: Record, release: Release) -> Record:
    """Put *release* on trial. If its last trial was given up, the tries of it still count."""
    tries = record.tries if record.candidate == release else 0
    return msgspec.structs.replace(record, candidate=release, tries=tries, ended="")


def note_try(record: Record) -> Record:
    return msgspec.structs.replace(record, tries=record.tries + 1)


def prove(record: Record) -> Record:
    """Make the candidate the current release."""
    candidate, current = record.candidate, record.current
    assert candidate is not None, "no release is on trial"
    previous = record.previous if current and current.tree == candidate.tree else current
    return msgspec.structs.replace(record, current=candidate, previous=previous, candidate=None, tries=0, ended="")


def give_up(record: Record, reason: str) -> Record:
    """End the trial: the current release goes on."""
    return msgspec.structs.replace(record, ended=reason[:MAX_SHORT_TEXT] or "it ended without a reason")


def blame(record: Record) -> Record:
    """Note that the candidate has failed here."""
    candidate = record.candidate
    assert candidate is not None, "no release was on trial"
    return msgspec.structs.replace(note_failed(record, candidate.serial, record.ended), candidate=None, tries=0, ended="")


def note_failed(record: Record, serial: int, reason: str) -> Record:
    """Note that the release with this serial is not used here, and why."""
    failed = {**record.failed, str(serial): reason[:MAX_SHORT_TEXT]}
    kept = sorted(failed, key=int)[-MAX_FAILED:]
    return msgspec.structs.replace(record, failed={key: failed[key] for key in kept})


def renumber(record: Record, serial: int) -> Record:
    """Give the current release the serial that central has for it by now: a rollback gives the same tree another one."""
    assert record.current is not None, "the installed release has no serial"
    return msgspec.structs.replace(record, current=msgspec.structs.replace(record.current, serial=serial))
