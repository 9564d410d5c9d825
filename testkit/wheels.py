"""The worker's wheels with another version, and with other modules: releases that tests and benches roll out."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from zipfile import ZipFile

from testkit.versions import WORK


def write_wheels(directory: Path, version: str, changes: Mapping[str, str]) -> None:
    """Copy our wheels; the worker's gets another version, and *changes* is appended to its modules, by path."""
    directory.mkdir(parents=True)
    (protocol,) = (WORK / "wheels").glob("airflow_remote_protocol-*.whl")
    shutil.copy(protocol, directory)
    (ours,) = (WORK / "wheels").glob("airflow_remote_worker-*.whl")
    before = ours.name.split("-")[1]
    old, new = (f"airflow_remote_worker-{one}.dist-info" for one in (before, version))
    with ZipFile(ours) as source, ZipFile(directory / ours.name.replace(before, version), "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == f"{old}/METADATA":
                content = content.replace(f"\nVersion: {before}\n".encode(), f"\nVersion: {version}\n".encode())
            elif name == f"{old}/RECORD":
                content = re.sub(rb",[^,\n]*,[^,\n]*$", b",,", content.replace(old.encode(), new.encode()), flags=re.MULTILINE)
            elif name == "airflow_remote_worker/__init__.py":
                content = content.replace(f'"{before}"'.encode(), f'"{version}"'.encode())
            module = name.removeprefix("airflow_remote_worker/").removesuffix(".py")
            target.writestr(name.replace(old, new), content + changes.get(module, "").encode())
