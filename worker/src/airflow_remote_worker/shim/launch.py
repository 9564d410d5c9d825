"""The script that the daemon runs with the runtime's interpreter: `launch.py zygote --control-fd N` or `launch.py host JOB_DIR`.

That interpreter doesn't have our packages, and the worker's site-packages on its path would shadow its own packages. So only the
two packages that the shim needs are registered here, by their locations. Until the runtime is known to be usable, only the
standard library is imported, and nothing newer than Python 3.8 is used: this file must be able to explain what is wrong with any
interpreter that runs it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import sys
from pathlib import Path

PACKAGE = "airflow_remote_worker"
PROTOCOL = "airflow_remote_protocol"
OLDEST_PYTHON = (3, 10)


def main() -> int:
    """Become a zygote or host one job; return the exit code."""
    parser = argparse.ArgumentParser(prog="launch.py", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    zygote = commands.add_parser("zygote", help="preload Airflow, then fork a shim for each job")
    zygote.add_argument("--control-fd", type=int, required=True)
    host = commands.add_parser("host", help="host one job, without a zygote")
    host.add_argument("job_dir", type=Path)
    arguments = parser.parse_args()

    forget_own_directory()
    register_packages()
    if arguments.command == "zygote":
        return become_zygote(arguments.control_fd)
    return host_job(arguments.job_dir)


def become_zygote(control_fd: int) -> int:
    from airflow_remote_worker.shim.explain import explain_import_error, send_unable

    if sys.version_info < OLDEST_PYTHON:
        send_unable(control_fd, f"the runtime {sys.executable} is Python {platform.python_version()}; tasks need 3.10 or newer")
        return 1
    try:
        from airflow_remote_worker.shim import zygote
    except ImportError as error:
        send_unable(control_fd, explain_import_error(error))
        return 1
    return zygote.main(control_fd)


def host_job(job_dir: Path) -> int:
    from airflow_remote_worker.shim import posix
    from airflow_remote_worker.shim.explain import explain_import_error

    posix.detach(job_dir)
    try:
        from airflow_remote_worker.shim import host
    except ImportError as error:
        part = job_dir / "result.part"
        part.write_text(json.dumps({"exit_code": 1, "final_state": "", "error": explain_import_error(error)}))
        part.replace(job_dir / "result.json")
        return 1
    return host.run(job_dir)


def forget_own_directory() -> None:
    """Remove this file's directory, which Python put first on the path: our modules (`host`, …) must not shadow others."""
    here = str(Path(__file__).resolve().parent)
    sys.path[:] = [entry for entry in sys.path if not entry or str(Path(entry).resolve()) != here]


def register_packages() -> None:
    """Make the worker's package and the protocol's importable, but no other package in their directory."""
    root = Path(__file__).resolve().parent.parent
    beside = root.parent / PROTOCOL  # if installed; a checkout has a directory for each distribution
    register(PACKAGE, root)
    register(PROTOCOL, beside if beside.is_dir() else root.parents[2] / "protocol" / "src" / PROTOCOL)


def register(package: str, root: Path) -> None:
    spec = importlib.util.spec_from_file_location(package, root / "__init__.py", submodule_search_locations=[str(root)])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[package] = module
    spec.loader.exec_module(module)


if __name__ == "__main__":
    sys.exit(main())
