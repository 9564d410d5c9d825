"""Makes what uv installed into the packages of a tree: without what tasks don't need, and the same whenever it is made."""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from airflow_remote_protocol.platforms import Platform
from airflow_remote_protocol.trees import MAX_FILES, BadTree, check_path

from airflow_remote_provider.packing.runtimes.errors import CannotBuild
from airflow_remote_provider.packing.scan import Limits

PREFIX = "site-packages/"
UNUSED = ("bin", "Scripts", "include", "Include", "airflow/ui", "airflow/migrations", ".lock")
"""Console scripts with central's shebang (a worker writes its own), headers, the dashboard's files, changes of the database."""
EXAMPLES = "example_dags"
KEPT_EXAMPLE = "__init__.py"
"""`DagBundlesManager` imports it."""
TEST_MODULE = re.compile(r"(test_.*|.*_test|conftest)\.py\Z")
WRITTEN_BY_UV = ("INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json", "RECORD")
"""In `*.dist-info`: what differs between two installations of one package. RECORD is written again."""
LICENSES = re.compile(r"[^/]+\.dist-info/(licenses|license_files)/|[^/]+\.dist-info/(LICENSE|COPYING|NOTICE)")


def trim(site: Path, platform: Platform, own: Platform) -> None:
    """Remove what tasks don't need; write the rest so that the same packages are always the same files.

    Raises:
        CannotBuild: a package was built on this computer, and can't be used on *platform*.
    """
    check_built(site, platform, own)
    for unused in UNUSED:
        _remove(site / unused)
    for directory in _directories(site):
        if directory.name == "__pycache__" or (directory.name == "tests" and _has_tests(directory)):
            shutil.rmtree(directory)
        elif directory.name == EXAMPLES and "airflow" in directory.relative_to(site).parts:
            for path in directory.iterdir():
                if path.name != KEPT_EXAMPLE:
                    _remove(path)
    for path in site.rglob("*.pyc"):
        path.unlink()
    for info in site.glob("*.dist-info"):
        record = info / "RECORD"
        names = _recorded(record) if record.is_file() else []
        for name in WRITTEN_BY_UV:
            _remove(info / name)  # also because uv may have linked it to its cache: it must not be written to
        if names:
            _write_record(site, record, names)


def check_built(site: Path, platform: Platform, own: Platform) -> None:
    """Check that packages that were built on this computer can be used on *platform*.

    Raises:
        CannotBuild: names one that can't.
    """
    if platform == own:
        return
    for marker in sorted(site.glob("*.dist-info/uv_build.json")):
        wheel = marker.parent / "WHEEL"
        tags = re.findall(r"^Tag: (\S+)", wheel.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
        if not all(tag.endswith("-none-any") for tag in tags):
            name = marker.parent.name.removesuffix(".dist-info").replace("-", "==", 1)
            raise CannotBuild(
                f"{name} has no wheel for {platform}, and what central builds of it is for {own} only ({', '.join(tags)}); "
                "build a wheel on a computer of that platform, and put it into a directory that UV_FIND_LINKS names"
            )


def check_names(site: Path, limits: Limits) -> None:
    """Check that a tree can have all files; remove texts of licenses whose names it can't have.

    Raises:
        CannotBuild: names the file, and the package that it belongs to.
    """
    seen: dict[str, str] = {}
    count = size = 0
    for path in sorted(path for path in site.rglob("*") if not path.is_dir()):
        name = path.relative_to(site).as_posix()
        try:
            check_path(PREFIX + name)
            if (other := seen.setdefault(name.casefold(), name)) != name:
                raise BadTree(f"the files {other} and {name} have the same name on Windows and macOS")
        except BadTree as error:
            if LICENSES.match(name):
                path.unlink()
                continue
            raise CannotBuild(
                f"{_owner(site, name)} can't travel: {error}. Require a version without that file, or leave the package out"
            ) from None
        length = path.stat().st_size
        if length > limits.file_bytes:
            raise CannotBuild(
                f"{_owner(site, name)} has the file {name} of {length} bytes; raise [remote] blob_bytes, which allows "
                f"{limits.file_bytes}, in Airflow's configuration"
            )
        count, size = count + 1, size + length
    if count > MAX_FILES or size > limits.bytes:
        raise CannotBuild(
            f"the packages have {count} files and {size} bytes; {MAX_FILES} files and {limits.bytes} bytes ([remote] tree_bytes) "
            "are the limits. Leave packages out, or raise the limit in Airflow's configuration"
        )


def _owner(site: Path, name: str) -> str:
    for record in sorted(site.glob("*.dist-info/RECORD")):
        if name in _recorded(record):
            return f"the package {record.parent.name.removesuffix('.dist-info').replace('-', '==', 1)}"
    return "a package"


def _directories(site: Path) -> Iterator[Path]:
    """Yield all directories, and go into those that still exist then."""
    for here, names, _ in os.walk(site):
        names.sort()
        for name in list(names):
            path = Path(here, name)
            yield path
            if not path.is_dir():
                names.remove(name)


def _has_tests(directory: Path) -> bool:
    """Return whether a directory `tests` has tests of the package. Others belong to its code, such as dbt's SQL."""
    return any(TEST_MODULE.match(path.name) for path in directory.rglob("*.py"))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _recorded(record: Path) -> list[str]:
    with record.open(encoding="utf-8", newline="") as file:
        return [row[0] for row in csv.reader(file) if row]


def _write_record(site: Path, record: Path, names: list[str]) -> None:
    """Write the files that are left, without hashes: the tree's manifest has them. `importlib.metadata` reads the names."""
    here = record.relative_to(site).as_posix()
    left = sorted({name for name in names if name == here or (site / name).is_file()})
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows((name, "", "") for name in left)
    record.write_text(text.getvalue(), encoding="utf-8")
