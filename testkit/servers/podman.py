"""A temporary Docker-compatible daemon: own storage, own socket; no container, image or mount remains after `stop()`.

    with Podman() as podman:
        docker.DockerClient(base_url=podman.url).containers.run(IMAGE, "echo hello", network_mode="host")

It is Debian's podman with runc; both are installed if they are missing and we are root. No image is pulled: its only image is
made of Debian's static busybox. Limits, cgroups and storage are chosen so that it also runs inside a container.
"""

from __future__ import annotations

import json
import resource
import subprocess
import tarfile
from pathlib import Path

from testkit.processes import clean_environment
from testkit.servers.debian import find_or_install
from testkit.servers.server import Server

IMAGE = "localhost/busybox:latest"
PROGRAMS = {"podman": "podman", "runc": "runc", "busybox": "busybox-static"}
"""The programs that are needed and their Debian packages."""


class Podman(Server):
    name = "podman"
    stop_within_s = 10

    def __init__(self) -> None:
        super().__init__()
        self._variables: dict[str, str] = {}

    @property
    def url(self) -> str:
        """Return the URL for a Docker client."""
        return f"unix://{self._socket}"

    def start(self) -> Podman:
        found = find_or_install(PROGRAMS)
        home = self._make_home()
        containers, storage = home / "containers.conf", home / "storage.conf"
        containers.write_text(_containers_conf())
        storage.write_text(_storage_conf(home))
        self._variables = {"CONTAINERS_CONF": str(containers), "CONTAINERS_STORAGE_CONF": str(storage)}
        self._run("import", str(_make_root(home / "root.tar", Path(found["busybox"]))), IMAGE)
        self._launch(["podman", "system", "service", "--time=0", self.url], self._variables)
        return self

    def containers(self) -> list[str]:
        """Return the names of all containers, running or not."""
        return [str(name) for found in json.loads(self._run("ps", "--all", "--format=json") or "[]") for name in found["Names"]]

    def stop(self) -> None:
        try:
            if self._home is not None:
                # Containers aren't the service's children: they and their mounts would outlive it.
                self._run("rm", "--all", "--force", "--time=0")
        finally:
            super().stop()

    @property
    def _socket(self) -> Path:
        assert self._home is not None
        return self._home / "socket"

    def _is_up(self) -> bool:
        return self._socket.is_socket()

    def _run(self, *arguments: str) -> str:
        command = ["podman", *arguments]
        done = subprocess.run(
            command,
            env=clean_environment(self._variables),
            cwd=self._home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()}")
        return done.stdout


def _containers_conf() -> str:
    # Podman's own defaults exceed the hard limits of many computers, and then no container starts.
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
    # vfs needs neither a kernel module nor a mount.
    return f'[storage]\ndriver = "vfs"\ngraphroot = "{directory / "storage"}"\nrunroot = "{directory / "run"}"\n'


def _make_root(path: Path, busybox: Path) -> Path:
    """Write the root file system of the image: busybox under all its names."""
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
