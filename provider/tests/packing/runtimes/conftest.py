"""A directory with small wheels in the place of a package index: Airflow's names, with central's versions."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import pytest
from airflow_remote_provider import compat
from airflow_remote_provider.packing.runtimes import requirements

CORE_FILES = {
    "airflow/__init__.py": "",
    "airflow/example_dags/__init__.py": "",
    "airflow/example_dags/tutorial.py": "1\n",
    "airflow/migrations/env.py": "1\n",
    "airflow/models/__init__.py": "",
    "airflow/ui/dist/main.js": "1\n",
}
TAG = "py3-none-any"


@dataclass
class Index:
    """The directory, and the variables with which uv uses nothing else."""

    directory: Path
    cache: Path
    installed: dict[str, str] = field(default_factory=dict)
    """Packages that central seems to have, by name."""

    @property
    def environ(self) -> dict[str, str]:
        return {
            "UV_OFFLINE": "1",
            "UV_FIND_LINKS": str(self.directory),
            "UV_CACHE_DIR": str(self.cache),
            "UV_NO_CONFIG": "1",
            "PATH": "/usr/bin:/bin",
        }

    def add(
        self,
        name: str,
        version: str = "1.0",
        files: Mapping[str, str] | None = None,
        *,
        requires: Sequence[str] = (),
        tag: str = TAG,
        python: str = ">=3.9",
        entry_points: str = "",
    ) -> Path:
        """Add a wheel."""
        module = name.replace("-", "_")
        info = f"{module}-{version}.dist-info"
        metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Python: {python}\n"]
        metadata += [f"Requires-Dist: {one}\n" for one in requires]
        content = dict(files if files is not None else {f"{module}/__init__.py": f"version = {version!r}\n"})
        content[f"{info}/METADATA"] = "".join(metadata)
        pure = "true" if tag.endswith("any") else "false"
        content[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: {pure}\nTag: {tag}\n"
        if entry_points:
            content[f"{info}/entry_points.txt"] = entry_points
        record = "".join(f"{path},sha256={_hash(text)},{len(text.encode())}\n" for path, text in content.items())
        content[f"{info}/RECORD"] = record + f"{info}/RECORD,,\n"
        wheel = self.directory / f"{module}-{version}-{tag}.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for path, text in content.items():
                archive.writestr(zipfile.ZipInfo(path), text)
        return wheel

    def add_sources(self, name: str, version: str = "1.0") -> Path:
        """Add an sdist, which its own backend builds: a pure wheel without dependencies."""
        module = name.replace("-", "_")
        wheel = self.add(name, version)
        backend = BACKEND.format(wheel=wheel.name, content=base64.b64encode(wheel.read_bytes()).decode())
        wheel.unlink()
        files = {
            "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
            "backend.py": backend,
            "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        }
        sources = self.directory / f"{module}-{version}.tar.gz"
        with tarfile.open(sources, "w:gz") as archive:
            for path, text in files.items():
                about = tarfile.TarInfo(f"{module}-{version}/{path}")
                about.size = len(text.encode())
                archive.addfile(about, io.BytesIO(text.encode()))
        return sources


BACKEND = """
import base64, pathlib
def build_wheel(directory, config_settings=None, metadata_directory=None):
    pathlib.Path(directory, "{wheel}").write_bytes(base64.b64decode("{content}"))
    return "{wheel}"
"""


def _hash(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """Wheels of all that a runtime needs. Central seems to have `click` and Airflow only, no plugins and no local settings."""
    (tmp_path / "index").mkdir()
    index = Index(tmp_path / "index", tmp_path / "cache")
    core, sdk = version("apache-airflow-core"), version("apache-airflow-task-sdk")
    script = "[console_scripts]\nairflow = airflow.__main__:main\n"
    index.add("apache-airflow-core", core, CORE_FILES, requires=["fastapi", "click>=8"], entry_points=script)
    index.add("apache-airflow-task-sdk", sdk, {"airflow/sdk/__init__.py": ""})
    index.add("apache-airflow-providers-standard", files={"airflow/providers/standard/__init__.py": ""})
    index.add("apache-airflow-providers-docker", files={"airflow/providers/docker/__init__.py": ""})
    for number in ("8.1", "9.0"):
        index.add("click", number)
    for name in ("opentelemetry-sdk", "greenback", "fastapi"):
        index.add(name)
    index.installed |= {"apache-airflow-core": core, "apache-airflow-task-sdk": sdk, "click": "8.1"}
    here = lambda: tuple(requirements.Installed(name, number, ">=3.9") for name, number in index.installed.items())  # noqa: E731
    monkeypatch.setattr(requirements, "installed", here)
    monkeypatch.setattr(compat, "plugins_folder", lambda: tmp_path / "plugins")
    monkeypatch.setattr(compat, "local_settings_place", lambda: None)
    yield index
