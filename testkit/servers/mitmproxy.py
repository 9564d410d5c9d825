"""mitmproxy as a corporate proxy that inspects TLS: it presents certificates of its own authority instead of central's.

    with Mitmproxy(home, authority=Authority(home / "corp", "Corp Inspect CA"), trusts=other.file) as proxy:
        environment["HTTPS_PROXY"] = proxy.url

Its environment (.work/mitmproxy) is created when it is missing.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from testkit.authority import Authority
from testkit.processes import free_port, is_listening
from testkit.servers.server import Server

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / ".work/mitmproxy/bin/mitmdump"


class Mitmproxy(Server):
    name = "mitmproxy"
    up_within_s = 60

    def __init__(self, home: Path, *, authority: Authority, trusts: Path) -> None:
        """Sign certificates as *authority*; trust servers whose authority is in the file *trusts*."""
        super().__init__(home)
        self.home = home
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._authority = authority
        self._trusts = trusts

    def start(self) -> Mitmproxy:
        if not PROGRAM.exists():
            subprocess.run([ROOT / "scripts/environments", "mitmproxy"], check=True)
        self._make_home()
        ours = self._authority.key_file.read_bytes() + self._authority.file.read_bytes()
        (self.home / "mitmproxy-ca.pem").write_bytes(ours)
        options = {"confdir": self.home, "ssl_verify_upstream_trusted_ca": self._trusts, "flow_detail": 1}
        command: list[str | Path] = [PROGRAM, "--listen-host", "127.0.0.1", "--listen-port", str(self.port)]
        command += [part for name, value in options.items() for part in ("--set", f"{name}={value}")]
        self._launch(command)
        return self

    def seen(self) -> str:
        """Return the requests that it could read, one a line."""
        return (self.home / "mitmproxy.out").read_text(errors="replace")

    def _is_up(self) -> bool:
        return is_listening(self.port)
