"""Makes the tree of the worker for one platform, from wheels that uv unpacks: `release.json` and `site-packages/`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from airflow_remote_protocol.platforms import Platform
from airflow_remote_protocol.trees import Tree

from airflow_remote_provider.packing.runtimes.errors import CannotBuild
from airflow_remote_provider.packing.runtimes.resolve import Uv, Wanted
from airflow_remote_provider.packing.runtimes.targets import own_platform
from airflow_remote_provider.packing.runtimes.trim import check_names, trim
from airflow_remote_provider.packing.scan import Limits, Moved, Unpublishable, read_file, scan

FORMAT = 1
OWN = ("airflow-remote-worker", "airflow-remote-protocol")
LIMITS = Limits(20_000, 512 << 20, 64 << 20)
"""A worker has some 700 files and 6 MB."""


def make_worker(
    platform: Platform,
    version: str,
    work: Path,
    *,
    wheels: Path | None = None,
    constraints: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> tuple[Tree, Callable[[str], bytes]]:
    """Make the worker's tree in the empty directory *work*; return it, with what reads its files by their SHA-256.

    *wheels* is a directory with wheels beside those of the package index.

    Raises:
        CannotBuild: a package can't be had for this platform, or its files can't travel.
    """
    given = dict(os.environ if environ is None else environ)
    if wheels is not None:
        if not wheels.is_dir():
            raise CannotBuild(f"--wheels: {wheels} is not a directory; name the one that has the worker's wheels")
        links = [str(wheels.absolute()), *filter(None, [given.get("UV_FIND_LINKS", "")])]
        given["UV_FIND_LINKS"] = ",".join(links)
    directory, site = work / "tree", work / "tree/site-packages"
    site.mkdir(parents=True)
    (work / "uv").mkdir()
    required = [f"{name}=={version}" for name in OWN]
    wanted = Wanted(platform=platform, requirements=required, own=(), constraints=constraints, excluded=())
    uv = Uv(work / "uv", given)
    uv.install(wanted, uv.lock(wanted), site)
    trim(site, platform, own_platform())
    check_names(site, LIMITS)
    about = {"format": FORMAT, "version": version, "python": platform.python}
    (directory / "release.json").write_text(json.dumps(about, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    try:
        tree, state = scan(directory, limits=LIMITS, ignored=())
    except (Unpublishable, Moved) as error:
        raise CannotBuild(f"the worker's files can't travel: {error}") from None
    paths = {entry.sha256: entry.path for entry in tree.entries}
    return tree, lambda sha256: read_file(paths[sha256], state.seen[paths[sha256]])
