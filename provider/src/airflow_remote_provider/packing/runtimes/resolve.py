"""Runs uv: from requirements to a lock with hashes, and from the lock to a directory with the packages of one platform."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from airflow_remote_protocol.platforms import Platform

from airflow_remote_provider.packing.runtimes.errors import CannotBuild
from airflow_remote_provider.packing.runtimes.indexes import index_environment
from airflow_remote_provider.packing.runtimes.requirements import EXACT
from airflow_remote_provider.packing.runtimes.targets import target_of

SLOWEST_S = 3600
"""How long one call of uv may take: a hundred packages over a slow line, or the build of one from source."""
NOT_OURS = ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONHOME", "UV_COMPILE_BYTECODE", "UV_TARGET", "UV_PREFIX")
"""Variables that would let uv use, or change, another environment."""
WITHOUT_WHEEL = re.compile(r"([a-z0-9][a-z0-9._-]*)(?:[=<>!~]=?\S+)? has no (?:usable )?wheels")
NEEDS_WHEEL = re.compile(r"Wheels are required for `([^`]+)`")
UNKNOWN = re.compile(
    r"([A-Za-z0-9][A-Za-z0-9._-]*) was not found in (?:the package registry|the provided package locations|the cache)"
)
PIN = re.compile(r"[a-z0-9][a-z0-9._-]*==[0-9][^\s,]*")
NO_VERSION = re.compile(r"there is no version of ([A-Za-z0-9][^\s,]*)")
OTHER_PYTHON = re.compile(r"and ([A-Za-z0-9][^\s]*) depends on Python([^\s,]+)")
UNREACHABLE = ("Failed to fetch", "error sending request", "Network connectivity is disabled", "Could not connect")


@dataclass(frozen=True)
class Wanted:
    """What one platform's runtime is to contain."""

    platform: Platform
    requirements: Sequence[str]
    """Those of every runtime, and the user's."""
    own: Sequence[str]
    """The user's."""
    constraints: Sequence[str]
    excluded: Sequence[str]
    builds: bool = False
    """Whether packages without a wheel may be built on this computer."""
    without_wheel: str = (
        "put a wheel into a directory that UV_FIND_LINKS names, or let central build it with --build if it needs no compiler"
    )
    """What a user can do about a package that has no wheel."""
    elsewhere: str = "configure the index that has it (UV_INDEX)"
    """What a user can do about a package that the index does not have."""


class Uv:
    """uv, in a directory for the files that it is given."""

    def __init__(self, work: Path, environ: Mapping[str, str] | None = None) -> None:
        """*work* is an empty directory.

        Raises:
            CannotBuild: uv is not installed.
        """
        given = dict(os.environ if environ is None else environ)
        self._work = work
        self._uv = _find()
        self._environ = {name: value for name, value in given.items() if name not in NOT_OURS} | index_environment(given)
        self._environ |= {"UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never", "NO_COLOR": "1"}

    def lock(self, wanted: Wanted) -> Path:
        """Return a file with the version and the hashes of each package.

        Raises:
            CannotBuild: the requirements can't be met; the text says which.
        """
        excluded = list(wanted.excluded)
        if wanted.own:  # what a user's requirement needs stays, although it is left out of Airflow
            needed = self._names(self._compile(wanted, "own", wanted.own, (*EXACT, "apache-airflow")))
            excluded = [name for name in excluded if name not in needed]
        return self._compile(wanted, "lock", wanted.requirements, excluded)

    def install(self, wanted: Wanted, lock: Path, target: Path) -> None:
        """Unpack the packages of a lock into *target*.

        Raises:
            CannotBuild: a package can't be had.
        """
        options = ["--require-hashes", "--no-deps", "--no-compile-bytecode", "--target", str(target), *_for(wanted)]
        self._run("install", wanted, ["pip", "install", *options, "--requirements", str(lock)])

    def _compile(self, wanted: Wanted, name: str, requirements: Iterable[str], excluded: Iterable[str]) -> Path:
        given = {"in": requirements, "constraints": wanted.constraints, "excludes": excluded}
        paths = {kind: self._work / f"{name}.{kind}.txt" for kind in given}
        for kind, lines in given.items():
            paths[kind].write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        lock = self._work / f"{name}.lock.txt"
        options = ["--constraints", str(paths["constraints"]), "--excludes", str(paths["excludes"]), "--generate-hashes"]
        quiet = ["--no-annotate", "--no-header", "--no-emit-index-url", "--no-emit-find-links", "--quiet"]
        self._run(
            "lock", wanted, ["pip", "compile", str(paths["in"]), *options, *quiet, *_for(wanted), "--output-file", str(lock)]
        )
        return lock

    def _names(self, lock: Path) -> set[str]:
        return {
            line.partition("==")[0].partition("[")[0] for line in lock.read_text(encoding="utf-8").splitlines() if "==" in line
        }

    def _run(self, what: str, wanted: Wanted, words: Sequence[str]) -> None:
        try:
            done = subprocess.run(
                [self._uv, *words],
                cwd=self._work,  # no project's configuration counts
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=SLOWEST_S,
            )
        except subprocess.TimeoutExpired as error:
            raise CannotBuild(
                f"uv did not end within {SLOWEST_S} s; check the connection to the package index", str(error.stdout or "")
            ) from None
        except OSError as error:
            raise CannotBuild(f"{self._uv} can't be started: {error.strerror or error}; install uv again") from None
        if done.returncode:
            raise explain(what, done.stdout, wanted)


def _find() -> str:
    try:
        import uv

        return str(uv.find_uv_bin())
    except (ImportError, FileNotFoundError):
        raise CannotBuild(f"uv is missing in this environment; run: {sys.executable} -m pip install uv") from None


def _for(wanted: Wanted) -> list[str]:
    options = ["--python", sys.executable, "--python-version", wanted.platform.python]
    options += ["--python-platform", target_of(wanted.platform)]
    return options if wanted.builds else [*options, "--only-binary", ":all:"]


def explain(what: str, said: str, wanted: Wanted) -> CannotBuild:
    """Return an error for what uv printed when it failed."""
    where, without_wheel = wanted.platform, _all(WITHOUT_WHEEL, said) or _all(NEEDS_WHEEL, said)
    pins = [pin for pin in _all(PIN, said) if pin in set(wanted.constraints) and pin.partition("==")[0] not in without_wheel]
    is_conflict = "No solution found" in said and "depends on" in said
    if is_conflict and pins:
        text = (
            f"the requirements don't agree with versions that central has: {_listed(pins)}. Name the package in the requirements "
            "with versions that suit, or change its version on central"
        )
    elif names := without_wheel:
        text = f"{_listed(names)} has no wheel for {where}. Require a version that has one, or {wanted.without_wheel}"
    elif "invalid peer certificate" in said:
        text = (
            "the certificate of the package index is not trusted: set UV_SYSTEM_CERTS=1 to trust the authorities of this "
            "computer, or SSL_CERT_FILE to a PEM file with the index's authority"
        )
    elif any(words in said for words in UNREACHABLE):
        text = (
            "the package index can't be reached. Check the network and the proxy; name another index in UV_DEFAULT_INDEX or "
            "pip's index-url, or a directory with wheels in UV_FIND_LINKS with UV_OFFLINE=1"
        )
    elif "401 Unauthorized" in said or "403 Forbidden" in said:
        text = "the package index refuses access; correct the user and password in UV_DEFAULT_INDEX or pip's index-url"
    elif names := _all(UNKNOWN, said):
        text = f"the package index has no {_listed(names)}; check the name, or {wanted.elsewhere}"
    elif names := _all(NO_VERSION, said):
        text = (
            f"the package index has no {_listed(names)}, which is a version of central or one that you have named; require "
            f"a version that exists, or {wanted.elsewhere}"
        )
    elif found := OTHER_PYTHON.search(said):
        text = f"{found[1]} needs Python {found[2]}, and {where} has {where.python}; require a version that supports it"
    elif "hash" in said.lower() and "mismatch" in said.lower():
        text = "the package index gave a file with another hash than it had announced; clear uv's cache and try again"
    elif "No solution found" in said:
        text = (
            "the requirements contradict each other. Packages that central has are kept at central's versions, unless your "
            "requirements name them with other versions; name those in the detail below, too, or change their versions on central"
        )
    elif "Failed to build" in said or "build backend" in said:
        text = "a package can't be built on central; put its wheel into a package index, or a directory that UV_FIND_LINKS names"
    else:
        text = f"uv failed to {'resolve the requirements' if what == 'lock' else 'install the packages'}"
    return CannotBuild(text, said.strip())


def _all(pattern: re.Pattern[str], text: str) -> list[str]:
    return list(dict.fromkeys(pattern.findall(text)))


def _listed(names: Sequence[str]) -> str:
    more = len(names) - 5
    return ", ".join(names[:5]) + (f" and {more} others" if more > 0 else "")
