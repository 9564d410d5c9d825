"""Makes environments whose packages are those of a tree, without pip and without `venv`."""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Iterator
from pathlib import Path

from airflow_remote_worker.code.interpreter import Interpreter

LONGEST_SHEBANG = 127
"""Bytes; older kernels cut a longer line."""
SCRIPT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}\Z")
ENTRY_POINT = re.compile(r"([A-Za-z_][\w.]*)\s*:\s*([A-Za-z_][\w.]*)\s*(\[.*\])?\Z")


def make_venv(venv: Path, packages: Path, base: Interpreter) -> None:
    """Make an environment in the directory *venv* with the packages in *packages*. Raises: OSError."""
    # By hand: `venv` needs a process that takes longer than all else here, and systems ship it in a package of its own.
    (venv / "bin").mkdir(mode=0o755, parents=True)
    (venv / "bin" / "python").symlink_to(base.python)
    for name in ("python3", f"python{base.minor}"):
        (venv / "bin" / name).symlink_to("python")
    for path, text in texts_of(venv, packages, base).items():
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def texts_of(venv: Path, packages: Path, base: Interpreter) -> dict[Path, str]:
    """Return the files of an environment that Python reads at its start, with their content."""
    home = f"home = {base.python.parent}\ninclude-system-site-packages = false\nversion = {base.minor}\n"
    site = venv / "lib" / f"python{base.minor}" / "site-packages"
    # addsitedir() also follows the .pth files of packages. Escaped: the encoding of this file depends on the system.
    path = f"import site; site.addsitedir({str(packages)!a})\n"
    return {venv / "pyvenv.cfg": home, site / "airflow_remote_runtime.pth": path}


def make_programs(venv: Path, packages: Path) -> None:
    """Add the programs that the packages install."""
    for name, module, function in console_scripts(packages):
        path = venv / "bin" / name
        if not path.exists():
            path.write_text(script_for(venv / "bin" / "python", module, function), encoding="utf-8")
            path.chmod(0o700)


def console_scripts(packages: Path) -> Iterator[tuple[str, str, str]]:
    """Yield name, module and function of each program that the packages in a directory install."""
    for path in sorted(packages.glob("*.dist-info/entry_points.txt")):
        parser = configparser.ConfigParser(delimiters=("=",), interpolation=None, strict=False)
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        try:
            parser.read_string(path.read_text(encoding="utf-8"))
        except (configparser.Error, UnicodeDecodeError):
            continue  # the package has no programs that anybody could start
        for name, target in parser.items("console_scripts") if parser.has_section("console_scripts") else ():
            found = ENTRY_POINT.match(target.strip())
            if found and SCRIPT_NAME.match(name):
                yield name, found[1], found[2]


def script_for(python: Path, module: str, function: str) -> str:
    """Return a program that calls *function* of *module* with the interpreter *python*."""
    shebang = f"#!{python}\n"
    if " " in str(python) or len(os.fsencode(shebang)) > LONGEST_SHEBANG:
        # The shell executes the second line; Python sees a text.
        shebang = f"#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\n"
    first = function.partition(".")[0]
    return f"{shebang}import sys\nfrom {module} import {first}\nif __name__ == '__main__':\n    sys.exit({function}())\n"
