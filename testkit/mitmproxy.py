"""mitmproxy as a corporate proxy that inspects TLS: shows certificates of its own authority in place of central's.

    with Mitmproxy(home, authority=Authority(home / "corp", "Corp Inspect CA"), trusts=other.file) as proxy:
        environment["HTTPS_PROXY"] = proxy.url

Its environment (.work/mitmproxy) is made when it is missing.
"""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from types import TracebackType

from testkit.authority import Authority
from testkit.processes import Process, clean_environment, free_port, wait_until

ROOT = Path(__file__).parent.parent
PROGRAM = ROOT / ".work/mitmproxy/bin/mitmdump"


class Mitmproxy:
    """One proxy, started by `start()`, gone after `stop()`."""

    def __init__(self, home: Path, *, authority: Authority, trusts: Path) -> None:
        """It signs as *authority*, and itself trusts servers whose authority is in the file *trusts*."""
        self.home = home
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._authority = authority
        self._trusts = trusts
        self._process: Process | None = None

    def start(self) -> Mitmproxy:
        self.home.mkdir(parents=True, exist_ok=True)
        if not PROGRAM.exists():
            subprocess.run([ROOT / "scripts/environments", "mitmproxy"], check=True)
        ours = self._authority.key_file.read_bytes() + self._authority.file.read_bytes()
        (self.home / "mitmproxy-ca.pem").write_bytes(ours)
        options = {"confdir": self.home, "ssl_verify_upstream_trusted_ca": self._trusts, "flow_detail": 1}
        command: list[str | Path] = [PROGRAM, "--listen-host", "127.0.0.1", "--listen-port", str(self.port)]
        command += [part for name, value in options.items() for part in ("--set", f"{name}={value}")]
        self._process = Process("mitmproxy", command, log=self.home / "mitmproxy.out", env=clean_environment(), cwd=self.home)
        wait_until(self._answers, timeout_s=60, what="mitmproxy answers")
        return self

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None

    def seen(self) -> str:
        """Return what it could read of the requests, a line each."""
        return (self.home / "mitmproxy.out").read_text(errors="replace")

    def __enter__(self) -> Mitmproxy:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _answers(self) -> bool:
        assert self._process is not None
        if not self._process.is_running():
            raise RuntimeError(f"mitmproxy ended at once\n{self._process.tail()}")
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
        except OSError:
            return False
        return True
