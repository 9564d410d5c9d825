"""A git repository on this computer, for Airflow's `GitDagBundle`."""

from __future__ import annotations

import subprocess
from pathlib import Path

AUTHOR = ("-c", "user.name=test", "-c", "user.email=test@example.com")


class Repository:
    """A bare repository in *directory*, and a clone of it in which commits are made."""

    def __init__(self, directory: Path) -> None:
        self._bare = directory / "origin.git"
        self._clone = directory / "clone"
        directory.mkdir(parents=True)
        self._git(directory, "init", "--quiet", "--bare", "--initial-branch", "main", str(self._bare))
        self._git(directory, "init", "--quiet", "--initial-branch", "main", str(self._clone))

    @property
    def url(self) -> str:
        return self._bare.as_uri()

    def commit(self, **files: str | None) -> str:
        """Write Python files by their module names, delete those that are None, push, and return the commit's SHA."""
        for module, content in files.items():
            path = self._clone / f"{module}.py"
            if content is None:
                path.unlink()
            else:
                path.write_text(content)
        self._git(self._clone, "add", "--all")
        self._git(self._clone, *AUTHOR, "commit", "--quiet", "--message", "a change")
        self._git(self._clone, "push", "--quiet", "--force", self.url, "main")
        return self._git(self._clone, "rev-parse", "HEAD")

    @staticmethod
    def _git(directory: Path, *arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=directory, check=True, capture_output=True, text=True).stdout.strip()
