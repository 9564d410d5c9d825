"""A Docker-compatible daemon of our own: own storage, own socket; no container, image or mount survives `stop()`.

    with Podman() as podman:
        docker.DockerClient(base_url=podman.url).containers.run(IMAGE, "echo hello", network_mode="host")

It is Debian's podman with runc; both are installed if they are missing and we are root. Nothing is pulled: its one image is made
of Debian's static busybox. Limits, cgroups and storage are chosen so that it also runs where we are in a container ourselves.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from types import TracebackType

from testkit.debian import install
from testkit.processes import Process, clean_environment, wait_until

IMAGE = "localhost/busybox:latest"
PROGRAMS = {"podman": "podman", "runc": "runc", "busybox": "busybox-static"}
"""What must be there, and the Debian package that brings it."""


class Podman:
    """One daemon, started by `start()`, gone after `stop()`."""

    def __init__(self) -> None:
        self._directory: Path | None = None
        self._process: Process | None = None
        self._environment: dict[str, str] = {}

    @property
    def url(self) -> str:
        """What a Docker client is given."""
        assert self._directory is not None
        return f"unix://{self._directory / 'socket'}"

    def start(self) -> Podman:
        """Install what is missing, make the image, serve; return when the socket is there.

        Raises:
            RuntimeError: something is missing and can't be installed, or podman doesn't work on this machine; the text says why.
        """
        install_missing()
        # Short, because the path of a unix socket may have 107 characters.
        self._directory = Path(tempfile.mkdtemp(prefix="remote-pm-"))
        self._environment = clean_environment(
            {
                "CONTAINERS_CONF": str(self._write("containers.conf", _containers_conf())),
                "CONTAINERS_STORAGE_CONF": str(self._write("storage.conf", _storage_conf(self._directory))),
            }
        )
        self._run("import", str(_make_root(self._directory / "root.tar")), IMAGE)
        self._process = Process(
            "podman",
            ["podman", "system", "service", "--time=0", self.url],
            log=self._directory / "log",
            env=self._environment,
            cwd=self._directory,
        )
        wait_until(self._serves, timeout_s=30, what="podman's socket is there")
        return self

    def containers(self) -> list[str]:
        """Return the names of all containers, running or not."""
        return [str(name) for found in json.loads(self._run("ps", "--all", "--format=json") or "[]") for name in found["Names"]]

    def stop(self) -> None:
        if self._directory is None:
            return
        try:
            # Containers aren't the service's children: they, and what they have mounted, would outlive it.
            self._run("rm", "--all", "--force", "--time=0")
        finally:
            if self._process is not None:
                self._process.stop(timeout_s=10)
                self._process = None
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def __enter__(self) -> Podman:
        return self if self._process is not None else self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _serves(self) -> bool:
        assert self._process is not None and self._directory is not None
        if not self._process.is_running():
            raise RuntimeError(f"podman ended at once\n{self._process.tail()}")
        return (self._directory / "socket").is_socket()

    def _write(self, name: str, text: str) -> Path:
        assert self._directory is not None
        path = self._directory / name
        path.write_text(text)
        return path

    def _run(self, *arguments: str) -> str:
        command = ["podman", *arguments]
        done = subprocess.run(
            command,
            env=self._environment,
            cwd=self._directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()}")
        return done.stdout


def install_missing() -> None:
    """Install Debian's packages of the programs that are missing.

    Raises:
        RuntimeError: not root, no apt-get, or the installation failed; a person has to install them.
    """
    missing = sorted({package for program, package in PROGRAMS.items() if shutil.which(program) is None})
    if missing:
        install(*missing)


def _containers_conf() -> str:
    # Podman's own defaults lie above the hard limits of many machines, and then no container starts.
    limits = [
        f"{name}={value}:{value}"
        for name, wanted, kind in (("nofile", 1024, resource.RLIMIT_NOFILE), ("nproc", 1024, resource.RLIMIT_NPROC))
        for value in (_within(wanted, resource.getrlimit(kind)[1]),)
    ]
    return (
        f"[containers]\ndefault_ulimits = {json.dumps(limits)}\n"
        '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
    )


def _within(wanted: int, hard: int) -> int:
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)


def _storage_conf(directory: Path) -> str:
    # vfs needs neither a kernel module nor a mount of its own.
    return f'[storage]\ndriver = "vfs"\ngraphroot = "{directory / "storage"}"\nrunroot = "{directory / "run"}"\n'


def _make_root(path: Path) -> Path:
    """Write the root file system of the image: busybox under all its names."""
    busybox = Path(shutil.which("busybox") or "busybox")
    names = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    with tarfile.open(path, "w") as tar:
        tar.add(busybox.resolve(), "bin/busybox")
        for name in sorted(set(names) - {"busybox"}):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        tmp = tarfile.TarInfo("tmp")
        tmp.type, tmp.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(tmp)
    return path
