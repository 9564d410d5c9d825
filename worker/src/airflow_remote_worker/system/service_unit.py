"""The systemd unit of a worker: its text, and `service install|uninstall|status`.

Owns the only source of the unit's text; `deploy/systemd/` holds the rendered units. The messages of the running daemon to systemd
are in :mod:`.systemd`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from airflow_remote_worker import system
from airflow_remote_worker.config import ConfigError
from airflow_remote_worker.system import unpacked

DEFAULT_UNIT = "airflow-remote-worker"
DRAIN_S = 20
"""How long a stop or restart of the service waits for jobs. Short, because jobs outlive the service (KillMode=process)."""
STOP_MARGIN_S = 40
"""For the last logs and reports (10 s), and for network timeouts."""
SYSTEM_UNITS = Path("/etc/systemd/system")
RUNNING_MARK = Path("/run/systemd/system")
"""Exists while systemd is this machine's init; `sd_booted(3)` tests it."""

UNIT = """\
# Written by `airflow-remote-worker service install`; a later install overwrites it. Your own changes go into a drop-in:
#   systemctl {user_flag}edit {unit}
[Unit]
Description=Remote Worker for Apache Airflow ({state})
Documentation=man:systemd.service(5)
Wants=network-online.target
After=network-online.target
# An unattended machine must always get its worker back.
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={program} run --state {state_argument} --drain-timeout-s {drain_s}
# Proxy, CA, log level: AIRFLOW_REMOTE_WORKER_…, HTTPS_PROXY, … one NAME=value a line. The file may be missing.
EnvironmentFile=-{environment_file}
{user}
# Tasks outlive the daemon: a stop, a restart, an upgrade or a crash ends only the daemon, and its next start adopts them.
KillMode=process
# The first SIGTERM drains for --drain-timeout-s; then the daemon ends and its jobs run on.
TimeoutStopSec={stop_s}
Restart=always
RestartSec=10
# 2: a setting is wrong. 3: central refuses this worker (revoked, cloned, outdated) or it never joined. A restart changes neither.
RestartPreventExitStatus=2 3
# Fed only after each successful exchange with central. During an outage this restarts the daemon four times an hour, which
# does not affect its tasks; a daemon that hangs for any reason is restarted too.
WatchdogSec=15min
# Not SIGABRT: a core dump would hold the credential.
WatchdogSignal=SIGKILL
# When the kernel kills a task because memory is full, the daemon and the other tasks must keep running.
OOMPolicy=continue
# The limit counts the processes of all tasks.
TasksMax=infinity
{hardening}
[Install]
WantedBy={target}
"""

HARDENED = """
# Tasks are children of this service and inherit these restrictions. They do not affect ordinary tasks (Python, Bash, a client of
# a Docker daemon). They forbid sudo and other setuid programs, packet sockets, programs of another architecture, containers
# without a daemon (rootless podman), and writing to /usr, /boot and /etc: `service install --allow-sudo` leaves them out.
NoNewPrivileges=yes
{capabilities}
ProtectSystem=full
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectHostname=yes
PrivateMounts=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=~AF_PACKET
LockPersonality=yes
SystemCallArchitectures=native
# Calls that only administration needs fail with EPERM. Debuggers (@debug), sandboxes (namespaces) and other users work.
SystemCallFilter=~@clock @cpu-emulation @module @mount @obsolete @raw-io @reboot @swap
SystemCallErrorNumber=EPERM
# Worth adding in a drop-in where your tasks allow it:
#   ProtectSystem=strict with ReadWritePaths={state} and each directory that tasks write to
#   ProtectHome=yes (not with the state directory or the Dags in a home)
#   PrivateDevices=yes, ProtectClock=yes (not where a task uses a device: a serial port, a GPU)
#   RestrictNamespaces=yes (not where a task runs a browser), RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6, MemoryMax=…
# Never add PrivateTmp=yes, DynamicUser=yes, RemoveIPC=yes or RuntimeDirectory=: a stop would remove what running tasks still use.
"""
NO_CAPABILITIES = """\
# The service's user has no capabilities, and no program gives it any.
CapabilityBoundingSet="""
ROOTS_CAPABILITIES = """\
# The service is root, so that tasks run as other users (`run_as_user`): it keeps its capabilities."""

UNHARDENED = """
# Tasks are children of this service and inherit its restrictions. Hardening was left out (--allow-sudo).
"""

UNPRIVILEGED = """
# A user's own service manager supports little hardening; for more, install as root: service install --system
"""


@dataclass(frozen=True)
class Unit:
    """The values that differ between two units."""

    program: tuple[str, ...]
    state: Path
    name: str = DEFAULT_UNIT
    system: bool = True
    """True: a service of the system; False: a service of the user's own service manager."""
    user: str = ""
    """The user that a system service runs as."""
    drain_s: int = DRAIN_S
    allow_sudo: bool = False

    @property
    def path(self) -> Path:
        """Where systemd looks for the unit file."""
        return (SYSTEM_UNITS if self.system else user_unit_directory()) / f"{self.name}.service"

    def render(self) -> str:
        """Return the unit's text."""
        hardening = UNPRIVILEGED if not self.system else UNHARDENED if self.allow_sudo else HARDENED
        state = _escape_path(self.state)
        return UNIT.format(
            unit=self.name,
            user_flag="" if self.system else "--user ",
            program=" ".join(_quote_argument(part) for part in self.program),
            state=state,
            state_argument=_quote_argument(str(self.state)),
            environment_file=_escape_path(self.state / "service.env"),
            drain_s=self.drain_s,
            stop_s=self.drain_s + STOP_MARGIN_S,
            user=f"User={self.user}" if self.system else "# (no User=: the user whose service manager this is)",
            hardening=hardening.replace("{state}", state).replace(
                "{capabilities}", ROOTS_CAPABILITIES if self.user == "root" else NO_CAPABILITIES
            ),
            target="multi-user.target" if self.system else "default.target",
        )


def user_unit_directory() -> Path:
    """Return the directory of the user's own units."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "systemd/user"


def find_program(state: Path) -> tuple[str, ...]:
    """Return the command that starts this installation, from a place that stays."""
    if unpacked.is_unpacked():
        return (str(unpacked.program_in(state)),)
    script = Path(sys.executable).with_name("airflow-remote-worker")
    return (str(script),) if script.exists() else (sys.executable, "-m", "airflow_remote_worker")


def service_user(state: Path, user_name: str | None) -> str:
    """Return the user that a system service runs as: *user_name*, else the owner of the state directory.

    Raises:
        ConfigError: there is no such user, or no suitable owner.
    """
    if user_name is not None:
        if not system.is_user(user_name):
            raise ConfigError(f"--user-name: there is no user {user_name!r} on this machine; create it, or name another")
        return user_name
    owner = system.owner(state) if state.exists() else None
    if owner is None or owner == "root":
        which = "doesn't exist" if owner is None else "belongs to root, and tasks should not run as root"
        remedy = "name the directory with --state and the user who owns it with --user-name (root, if you mean it)"
        raise ConfigError(f"--user-name: {state} {which}; {remedy}")
    return owner


def install(unit: Unit, *, starts: bool = False) -> list[str]:
    """Write the unit and make systemd read it; with *starts*, also start it now and at every boot. Return the lines to print.

    Raises:
        ConfigError: systemd does not start it; the unit is written.
    """
    if unpacked.is_unpacked():
        unpacked.keep(unit.state)
    unit.path.parent.mkdir(parents=True, exist_ok=True)
    part = unit.path.with_name(f".{unit.path.name}.part")
    part.write_text(unit.render())
    part.chmod(0o644)
    part.replace(unit.path)
    control = " ".join(_systemctl(unit))
    lines = [f"wrote {unit.path}"]
    if RUNNING_MARK.exists():
        subprocess.run([*_systemctl(unit), "daemon-reload"], check=False)
    else:
        lines.append("systemd doesn't run here; it will read the unit at its next start")
    if starts:
        return [*lines, *_start(unit)]
    lines.append(f"start it now and at every boot:  {control} enable --now {unit.name}")
    if not unit.system:
        lines.append("let it run while you are not logged in:  loginctl enable-linger")
    return lines


def _start(unit: Unit) -> list[str]:
    """Start the service now and at every boot, a user's also without a login; return the lines to print."""
    if not unit.system and not _succeeds(["loginctl", "enable-linger"]):
        print("warning: the service ends when you log out; to change that, an administrator runs: loginctl enable-linger USER")
    # Not `enable --now`: a unit that runs already would keep the program that it was started with.
    for words in (["enable", unit.name], ["restart", unit.name]):
        command = [*_systemctl(unit), *words]
        if not _succeeds(command):
            raise ConfigError(
                f"{' '.join(command)} failed, so the worker does not run as a service yet; see its message above, and "
                f"journalctl {'' if unit.system else '--user '}-u {unit.name}; without systemd, run: "
                f"{' '.join(unit.program)} run --state {unit.state}"
            )
    return [f"started {unit.name}, now and at every boot"]


def _succeeds(command: list[str]) -> bool:
    try:
        return subprocess.run(command, check=False).returncode == 0
    except OSError as error:
        print(f"{command[0]} can't be run: {error.strerror or error}", file=sys.stderr)
        return False


def uninstall(unit: Unit) -> list[str]:
    """Stop the service and remove its unit; running tasks go on. Return the lines to print."""
    if not unit.path.exists():
        return [f"there is no {unit.path}; nothing to do"]
    if RUNNING_MARK.exists():
        subprocess.run([*_systemctl(unit), "disable", "--now", unit.name], check=False)
    unit.path.unlink()
    if RUNNING_MARK.exists():
        subprocess.run([*_systemctl(unit), "daemon-reload"], check=False)
    return [f"removed {unit.path}; this machine is still a worker; to end that: airflow-remote-worker leave --state {unit.state}"]


def show_status(unit: Unit) -> int:
    """Print systemd's status of the service; return its exit code (0: it is active).

    Raises:
        ConfigError: there is no unit, or systemd doesn't run.
    """
    if not unit.path.exists():
        raise ConfigError(f"there is no {unit.path}; write it with: airflow-remote-worker service install")
    if not RUNNING_MARK.exists():
        raise ConfigError(f"systemd doesn't run here, so nothing starts {unit.path}; see airflow-remote-worker status")
    return subprocess.run([*_systemctl(unit), "status", "--no-pager", unit.name], check=False).returncode


def _systemctl(unit: Unit) -> list[str]:
    return ["systemctl"] if unit.system else ["systemctl", "--user"]


def _escape_path(path: Path) -> str:
    """Escape a path for a setting in which systemd does not split words; `%` begins a specifier everywhere."""
    return str(path).replace("%", "%%")


def _quote_argument(text: str) -> str:
    """Escape and quote one argument of a command line in a unit."""
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"' if any(character in text for character in " \t;'\"\\") else text
