"""What a runtime is to contain: requirements, what is left out of them, and which versions they must have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distributions, version
from importlib.resources import files

from airflow_remote_protocol.platforms import Platform
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from airflow_remote_provider.packing.runtimes.errors import CannotBuild

AIRFLOW, TASK_SDK = "apache-airflow-core", "apache-airflow-task-sdk"
EXACT = (AIRFLOW, TASK_SDK)
"""Packages that have exactly central's versions in every runtime."""
SYSTEMS = {"linux": ("linux", "Linux", "posix"), "windows": ("win32", "Windows", "nt"), "macos": ("darwin", "Darwin", "posix")}
"""By system: the values of `sys_platform`, `platform_system` and `os_name` in markers."""
LONGEST = 1 << 18
"""Characters of a file of requirements."""


@dataclass(frozen=True)
class Installed:
    """A package of this computer's environment."""

    name: str
    version: str
    requires_python: str = ""

    def supports(self, python: str) -> bool:
        """Return whether this version supports *python*, such as `3.10`, as far as its metadata says."""
        try:
            return SpecifierSet(self.requires_python).contains(f"{python}.99", prereleases=True)
        except InvalidSpecifier:
            return True


@cache
def installed() -> tuple[Installed, ...]:
    """Return the packages of this environment by name; of several with one name, the one that Python imports."""
    found: dict[str, Installed] = {}
    for one in distributions():
        known = {key: one.metadata[key] for key in ("Name", "Version", "Requires-Python") if key in one.metadata}
        name, number = known.get("Name"), known.get("Version")
        if name and number:
            requires = known.get("Requires-Python") or ""
            found.setdefault(canonicalize_name(name), Installed(canonicalize_name(name), number, requires))
    return tuple(found[name] for name in sorted(found))


def built_with() -> dict[str, str]:
    """Return the versions that decide whether a runtime must be built again."""
    from airflow_remote_provider import __version__

    return {"airflow": version(AIRFLOW), "task_sdk": version(TASK_SDK), "provider": __version__}


def check(text: str) -> str:
    """Return a user's file of requirements, without comments and blank lines, as it is stored.

    Raises:
        CannotBuild: it names a line that can't be used.
    """
    if len(text) > LONGEST:
        raise CannotBuild(f"the file of requirements has {len(text)} characters; {LONGEST} is the limit")
    lines = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = re.sub(r"(^|\s)#.*", "", raw).strip()
        if line:
            lines.append(str(_requirement(line, number)))
    return "\n".join(lines)


def _requirement(line: str, number: int) -> Requirement:
    where = f"line {number} of the requirements"
    if line.startswith("-") or " --" in line or line.endswith("\\"):
        raise CannotBuild(
            f"{where} has options; write one name with versions, extras or markers a line. Configure the package index for uv "
            "(UV_DEFAULT_INDEX, UV_INDEX, UV_FIND_LINKS) or for pip"
        )
    try:
        found = Requirement(line)
    except InvalidRequirement as error:
        raise CannotBuild(f"{where} is not a requirement: {line[:100]!r} ({str(error).splitlines()[0]}); correct it") from None
    if found.url is not None:
        raise CannotBuild(
            f"{where} names {found.name} by an address, which is not stored; put the wheel into a package index, or into a "
            "directory that UV_FIND_LINKS names, and write its name and version"
        )
    if canonicalize_name(found.name) in EXACT:
        raise CannotBuild(f"{where} names {found.name}, which always has central's version in a runtime; remove the line")
    return found


def base() -> list[str]:
    """Return the requirements of every runtime."""
    exact = [f"{name}=={version(name)}" for name in EXACT]
    return [*exact, *_lines("packages.txt")]


def excluded() -> list[str]:
    """Return the packages that no task imports, and that are left out unless a user's requirement needs them."""
    return _lines("excludes.txt")


def _lines(name: str) -> list[str]:
    text = files("airflow_remote_provider.packing.runtimes").joinpath(name).read_text(encoding="utf-8")
    return [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")]


def constraints(
    packages: Iterable[Installed], requirements: Sequence[str], wanted: Platform
) -> tuple[list[str], list[Installed]]:
    """Return lines that keep a runtime at central's versions, and the packages that may have others.

    Others are those whose version here does not support the platform's Python, and those for which a user's requirement excludes
    it. Local versions (`2.3+cpu`) don't count: another platform has others.
    """
    ruled = [found for found in map(Requirement, requirements) if _applies(found, wanted)]
    lines, free = [], []
    for package in packages:
        if package.name in EXACT:
            continue  # a requirement already
        if not package.supports(wanted.python) or _excludes(ruled, package):
            free.append(package)
        else:
            lines.append(f"{package.name}=={package.version.partition('+')[0]}")
    return lines, free


def _applies(requirement: Requirement, wanted: Platform) -> bool:
    if requirement.marker is None:
        return True
    sys_platform, platform_system, os_name = SYSTEMS.get(wanted.system, SYSTEMS["linux"])
    environment = {
        "python_version": wanted.python,
        "python_full_version": f"{wanted.python}.99",
        "sys_platform": sys_platform,
        "platform_system": platform_system,
        "os_name": os_name,
        "platform_machine": wanted.processor,
    }
    return requirement.marker.evaluate(environment)


def _excludes(requirements: Iterable[Requirement], package: Installed) -> bool:
    """Return whether a requirement does not allow this version of the package."""
    return any(
        canonicalize_name(found.name) == package.name and not found.specifier.contains(package.version, prereleases=True)
        for found in requirements
    )
