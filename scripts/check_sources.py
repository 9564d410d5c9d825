"""Checks what import contracts can't see: private names of Airflow, and calls that only POSIX systems have.

Run by `make check`. Reads the sources of the distributions, not of their tests.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCES = ("protocol/src", "worker/src", "provider/src")

COMPAT = ("provider/src/airflow_remote_provider/compat/", "worker/src/airflow_remote_worker/shim/compat.py")
"""Where private and version-dependent names of Airflow may be used."""

WORKER = "worker/src/airflow_remote_worker/"
POSIX = {
    f"{WORKER}system/posix.py": "the worker's system calls on POSIX",
    f"{WORKER}system/sockets.py": "sockets that stay on the machine",
    f"{WORKER}system/systemd.py": "systemd's own socket; only Linux has systemd",
    f"{WORKER}local/run_as.py": "another system user; only system/ and the shim import it",
    f"{WORKER}shim/posix.py": "the shim's system calls on POSIX",
    f"{WORKER}shim/zygote.py": "a zygote exists only where a process can fork",
    f"{WORKER}shim/callbacks.py": "overrides a method of the Task SDK that takes a POSIX signal",
    f"{WORKER}shim/triggers/connect.py": "passes a descriptor to a host that runs as another user",
    f"{WORKER}shim/triggers/program.py": "forks a host that runs as another user",
    "provider/src/": "central runs where Airflow runs: on POSIX",
}
"""File or folder → why POSIX-only names may be used there."""
POSIX_MODULES = {"fcntl", "grp", "pty", "pwd", "resource", "termios"}
POSIX_NAMES = {
    "os": {
        *("fork", "forkpty", "getegid", "geteuid", "getgid", "getpgid", "getsid", "getuid", "initgroups", "killpg", "pidfd_open"),
        *("register_at_fork", "setegid", "seteuid", "setgid", "setgroups", "setpgid", "setsid", "setuid", "waitid", "waitpid"),
    },
    "signal": {"SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGSTOP", "SIGUSR1", "SIGUSR2", "alarm", "pthread_sigmask"},
    "socket": {"AF_UNIX", "SCM_RIGHTS", "recv_fds", "send_fds"},
}


def private_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of each import of a private module or name of Airflow."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "airflow":
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.split(".")[0] == "airflow"]
        else:
            continue
        for name in names:
            if any(part.startswith("_") and not part.startswith("__") for part in name.split(".")):
                yield node.lineno, name


def posix_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of each use of a module or name that only POSIX systems have."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name in POSIX_MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module in POSIX_MODULES:
                yield node.lineno, node.module
            hidden = POSIX_NAMES.get(node.module, set())
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names if alias.name in hidden)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield from (
                (node.lineno, f"{node.value.id}.{node.attr}") for _ in {node.attr} & POSIX_NAMES.get(node.value.id, set())
            )


def check(path: str, source: str) -> Iterator[str]:
    """Yield what is wrong with the file *path* (relative to the repository)."""
    tree = ast.parse(source)
    if not path.startswith(COMPAT):
        for line, name in private_names(tree):
            yield f"{path}:{line}: {name} is private to Airflow: use it in compat only ({', '.join(COMPAT)})"
    if not path.startswith(tuple(POSIX)):
        for line, name in posix_names(tree):
            yield f"{path}:{line}: {name} exists on POSIX systems only: call it through `system` or `shim.posix`"


def main() -> int:
    files = sorted(file for source in SOURCES for file in (ROOT / source).rglob("*.py"))
    wrong = [line for file in files for line in check(file.relative_to(ROOT).as_posix(), file.read_text(encoding="utf-8"))]
    unused = [path for path in POSIX if not (ROOT / path).exists()]
    wrong += [f"scripts/check_sources.py: POSIX names {path}, which does not exist" for path in unused]
    for line in wrong:
        print(line, file=sys.stderr)
    print(f"sources: {len(files)} files, {len(wrong)} findings")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
