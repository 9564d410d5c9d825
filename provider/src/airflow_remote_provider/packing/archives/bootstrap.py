"""The `__main__.py` of an archive: unpacks the worker for this interpreter, once, and executes it.

This file is copied into each archive and runs alone: it uses only the standard library, and nothing newer than Python 3.6, so
that an old interpreter gets a sentence and no SyntaxError. What it unpacks is an environment that can be moved:

    bin/python                      a link to the interpreter that was used
    bin/airflow-remote-worker       starts the worker with the interpreter beside it
    lib/python3.X/site-packages/    the worker's packages
    unpacked.json                   the digest of their tree
"""

import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import sys
import sysconfig
import zipfile
from typing import Iterator, Tuple

ARCHIVE = os.path.abspath(os.path.dirname(__file__))
CACHE = "AIRFLOW_REMOTE_WORKER_CACHE"
PROCESSORS = {"amd64": "x86_64", "arm64": "aarch64", "i386": "i686", "i586": "i686"}
PREFIX = "site-packages/"
HEADER = "airflow-remote-tree 1"
LINE = re.compile(r"([0-9a-f]{64}) ([0-9]+) ([-x]) (.+)\Z")
PROGRAM = """#!/bin/sh
'''exec' "$(dirname -- "$(readlink -f -- "$0")")/python" "$0" "$@"
' '''
import sys
from airflow_remote_worker.cli import main
if __name__ == '__main__':
    sys.exit(main())
"""


class Unusable(Exception):
    """The text says why, and what to do."""


def main() -> None:
    """Replace this process with the worker's program."""
    try:
        place = prepare()
    except Unusable as error:
        sys.exit(f"airflow-remote-worker: {error}")
    except OSError as error:
        where = error.filename or cache()
        text = "{} can't be written ({}); make room, or name another directory in {}"
        sys.exit("airflow-remote-worker: " + text.format(where, error.strerror or error, CACHE))
    python = os.path.join(place, "bin", "python")
    arguments = sys.argv[1:]
    if arguments[:1] == ["install"]:
        arguments[1:1] = ["--archive", ARCHIVE]
    os.execv(python, [python, os.path.join(place, "bin", "airflow-remote-worker")] + arguments)


def prepare() -> str:
    """Return the directory with the worker for this interpreter; unpack it if it isn't there."""
    if sys.version_info < (3, 10):
        raise Unusable(f"{sys.executable} is Python {platform.python_version()}; the worker needs 3.10 or newer")
    base = interpreter()
    with zipfile.ZipFile(ARCHIVE) as archive:
        about = json.loads(archive.read("archive.json").decode())
        own, offered = own_platform(), about["platforms"]
        if own not in offered:
            text = "this file has no worker for {} ({}), only for {}; use one of these, or a file that was made for it"
            raise Unusable(text.format(own, sys.executable, ", ".join(sorted(offered))))
        digest = offered[own]
        key = hashlib.sha256(f"{base} {platform.python_version()}".encode()).hexdigest()
        place = os.path.join(cache(), f"{digest[:16]}-{key[:8]}")
        if not os.path.exists(os.path.join(place, "unpacked.json")):
            unpack(archive, digest, base, place)
    return place


def unpack(archive: zipfile.ZipFile, digest: str, base: str, place: str) -> None:
    """Unpack a tree beside *place* and rename it: a directory of that name is always complete."""
    manifest = archive.read("manifests/" + digest)
    if hashlib.sha256(manifest).hexdigest() != digest:
        raise Unusable(f"{ARCHIVE} is damaged (the list of its files); copy it again")
    os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
    part = f"{place}.{secrets.token_hex(4)}.part"
    try:
        site = os.path.join(part, "lib", "python{}.{}".format(*sys.version_info), "site-packages")
        os.makedirs(os.path.join(part, "bin"))
        for path, content in contents(archive, manifest.decode()):
            if path.startswith(PREFIX):
                target = os.path.join(site, *path[len(PREFIX) :].split("/"))
                os.makedirs(os.path.dirname(target), exist_ok=True)
                write(target, content)
        link(base, os.path.join(part, "bin"))
        config = "home = {}\ninclude-system-site-packages = false\nversion = {}\n"
        write(os.path.join(part, "pyvenv.cfg"), config.format(os.path.dirname(base), platform.python_version()).encode())
        program = os.path.join(part, "bin", "airflow-remote-worker")
        write(program, PROGRAM.encode())
        os.chmod(program, 0o755)
        write(os.path.join(part, "unpacked.json"), json.dumps({"tree": digest}).encode())
        try:
            os.rename(part, place)
        except OSError:
            if not os.path.exists(os.path.join(place, "unpacked.json")):  # else another process was faster
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def contents(archive: zipfile.ZipFile, manifest: str) -> Iterator[Tuple[str, bytes]]:
    """Yield path and verified content of each file of a manifest."""
    header, *lines = manifest.split("\n")
    if header != HEADER:
        raise Unusable(f"{ARCHIVE} has files of another format ({header[:50]!r}); copy it again")
    for line in lines[:-1]:
        found = LINE.match(line)
        path = found.group(4) if found else ""
        if not found or path.startswith("/") or ".." in path.split("/"):
            raise Unusable(f"{ARCHIVE} is damaged (a line of the list of its files); copy it again")
        content = archive.read("blobs/" + found.group(1))
        if hashlib.sha256(content).hexdigest() != found.group(1):
            raise Unusable(f"{ARCHIVE} is damaged ({path}); copy it again")
        yield path, content


def link(base: str, programs: str) -> None:
    """Make the links to the interpreter."""
    os.symlink(base, os.path.join(programs, "python"))
    for name in ("python3", "python{}.{}".format(*sys.version_info)):
        os.symlink("python", os.path.join(programs, name))


def write(path: str, content: bytes) -> None:
    """Write a file that every user may read."""
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, 0o644)


def cache() -> str:
    """Return the directory of what was unpacked."""
    named = os.environ.get(CACHE)
    if named:
        return os.path.abspath(named)
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(root, "airflow-remote-worker")


def interpreter() -> str:
    """Return the path of the interpreter without an environment, in the directory of its installation."""
    executable = getattr(sys, "_base_executable", "") or sys.executable
    installed = os.path.join(sys.base_prefix, "bin", "python{}.{}".format(*sys.version_info))
    try:
        return installed if os.path.samefile(installed, executable) else executable
    except OSError:
        return executable


def own_platform() -> str:
    """Return this interpreter's platform, as the protocol names it: `cp311-linux-gnu-x86_64`."""
    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise Unusable(f"{sys.executable} is not the usual CPython, which the worker needs")
    if not sys.platform.startswith("linux"):
        raise Unusable("this file is for Linux; on this system, install the worker's packages with pip")
    try:
        libc = "gnu" if (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc") else "musl"
    except (ValueError, OSError):  # musl does not know the name
        libc = "musl"
    machine = platform.machine().lower()
    return "cp{}{}-linux-{}-{}".format(*sys.version_info[:2], libc, PROCESSORS.get(machine, machine))


if __name__ == "__main__":
    main()
