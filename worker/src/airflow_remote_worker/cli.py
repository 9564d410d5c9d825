"""The command line: join, run, status, check, leave, service. Parses and prints; imports what a command needs when it is run."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_remote_worker import __version__, system
from airflow_remote_worker.config import (
    ENV_PREFIX,
    FILE_NAME,
    Config,
    ConfigError,
    default_name,
    load,
    state_directory,
    write_settings,
)
from airflow_remote_worker.errors import Damaged, Unreachable, WorkerError
from airflow_remote_worker.lifecycle import EXIT_FAILED, EXIT_OK, EXIT_REFUSED
from airflow_remote_worker.state.directory import Membership, NotJoined, State, StateInUse, explain_unusable, owner_of

if TYPE_CHECKING:
    from airflow_remote_worker.link.client import Link
    from airflow_remote_worker.link.network import Network

EXIT_USAGE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code. Errors are one line on stderr."""
    arguments = _parser().parse_args(argv)
    level = arguments.log_level or os.environ.get(ENV_PREFIX + "LOG_LEVEL") or "INFO"
    try:
        logging.getLogger().setLevel(level.upper())
    except ValueError:
        return _fail(f"log level {level!r} is none of DEBUG, INFO, WARNING, ERROR", EXIT_USAGE)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for chatty in ("httpx", "httpcore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    if "@" in (arguments.proxy or ""):
        told = "--proxy: everyone who may list processes sees the password in it; use --proxy-auth-file, or worker.toml"
        print(f"airflow-remote-worker: {told}", file=sys.stderr)
    try:
        config = load(_flags(arguments), file=arguments.config)
        return int(arguments.command(arguments, config, State(config.state)))
    except ConfigError as error:
        return _fail(str(error), EXIT_USAGE)
    except (NotJoined, StateInUse, Damaged) as error:
        return _fail(str(error), EXIT_REFUSED if isinstance(error, NotJoined) else EXIT_FAILED)
    except WorkerError as error:
        return _fail(str(error), EXIT_FAILED)
    except OSError as error:
        root = state_directory(_flags(arguments), os.environ)
        return _fail(explain_unusable(root, error) or f"{error.filename or root}: {error.strerror or error}", EXIT_FAILED)


def join(arguments: argparse.Namespace, config: Config, state: State) -> int:
    """Exchange the enrolment token for a credential and keep it."""
    from airflow_remote_protocol.messages import Enrolment
    from airflow_remote_protocol.tokens import MalformedToken

    from airflow_remote_worker.facts import facts
    from airflow_remote_worker.link.network import Network

    network = Network.of(config, central=arguments.url)
    _warn(network)
    queues = [queue.strip() for queue in (arguments.queues or "").split(",") if queue.strip()]
    try:
        token = _bearer(arguments, network, queues)
    except MalformedToken as error:
        return _fail(f"token: {error}", EXIT_USAGE)
    _insist_on_own_directory(state)
    with state.locked():
        if not arguments.force:
            try:
                present = state.membership()
            except NotJoined:
                pass
            else:
                return _fail(f"{state.root} is worker {present.name} of {present.central} already; leave first, or use --force")
        settings = _settings_to_store(arguments, config)
        link = _link(network, token)
        enrolment = Enrolment(name=config.name or default_name(), facts=facts(), queues=queues)
        try:
            enrolled = _ask(link, lambda: link.enrol(enrolment))
        except Unreachable as error:
            return _fail(_walked(network) or str(error), EXIT_FAILED)
        state.join(
            Membership(
                central=network.central,
                worker_id=enrolled.worker_id,
                name=enrolled.name,
                credential=enrolled.credential,
                insecure_http=config.insecure_http,
                ca_file=_absolute(network.ca_file),
                client_cert=_absolute(network.client_cert),
                client_key=_absolute(network.client_key),
                proxy=network.proxy,
                proxy_auth_file=_absolute(network.proxy_auth_file),
            )
        )
        if settings:
            write_settings(config.state, settings)
    print(f"joined {network.central} as {enrolled.name}, for the queues: {', '.join(enrolled.queues) or '(none)'}")
    if settings:
        print(f"wrote {config.state / FILE_NAME}")
    missing = [key for key, value in (("runtime.python", config.runtime.python), ("bundles", config.bundles)) if not value]
    if missing:
        print(f"next: set {' and '.join(missing)} in {config.state / FILE_NAME}, then: airflow-remote-worker check")
    return EXIT_OK


def _insist_on_own_directory(state: State) -> None:
    """Raises: ConfigError: we are root, and the directory is another user's, who could not read what we would leave there."""
    owner, user = owner_of(state.root), system.user_name()
    if system.user_id() == 0 and state.root.exists() and owner not in (None, user):
        raise ConfigError(
            f"state: {state.root} belongs to {owner}, who could not read the credential that {user} would store there; "
            f"run this command as {owner} (runuser -u {owner} -- …), or give another directory with --state"
        )


def _settings_to_store(arguments: argparse.Namespace, config: Config) -> dict[str, Any]:
    """Return the settings among `join`'s flags that are not about the way to central: they go into a new `worker.toml`.

    Raises:
        ConfigError: there is one already.
    """
    wanted: dict[str, Any] = {}
    if arguments.slots is not None:
        wanted["slots"] = config.slots
    if arguments.runtime_python:
        wanted["runtime"] = {"python": str(Path(os.path.abspath(config.runtime.python or "")))}  # noqa: PTH100 - follows no link
    if arguments.bundle:
        named = [pair.partition("=")[0] for pair in arguments.bundle]
        wanted["bundles"] = {name: {"path": str(config.bundles[name].path.absolute())} for name in named}
    file = config.state / FILE_NAME
    if wanted and (arguments.config or file.exists()):
        flags = ", ".join(flag for flag in ("--slots", "--runtime-python", "--bundle") if _given(arguments, flag))
        raise ConfigError(f"{flags}: {arguments.config or file} exists; set these there, and leave the flags of `join` out")
    return wanted


def _given(arguments: argparse.Namespace, flag: str) -> bool:
    return getattr(arguments, flag.removeprefix("--").replace("-", "_")) not in (None, [])


def _walked(network: Network) -> str:
    """Return what the walk to central finds wrong, which says more than the one call that failed; empty: nothing."""
    import anyio

    from airflow_remote_worker.check.hops import check_address
    from airflow_remote_worker.clock import SystemClock

    return next((hop.text for hop in anyio.run(check_address, network, SystemClock()) if not hop.ok), "")


def run(arguments: argparse.Namespace, config: Config, state: State) -> int:
    """Be the worker."""
    from airflow_remote_worker import daemon

    return daemon.run(config)


def status(arguments: argparse.Namespace, config: Config, state: State) -> int:
    """Say what the daemon of this directory does; exit code 0 if it runs and hears central."""
    import json

    from airflow_remote_worker.clock import CLOCK_DIFFERS_S, off_by
    from airflow_remote_worker.lifecycle import Phase
    from airflow_remote_worker.local.seal import unsealed

    membership = state.membership()
    try:
        told: dict[str, Any] = dict(json.loads(unsealed(state.status_path.read_bytes())))
    except (OSError, ValueError, TypeError):  # the daemon writes it anew at the next change
        told = {}
    alive = state.is_locked() and bool(told) and not told.get("ended")
    told |= {"alive": alive, "name": membership.name, "central": membership.central, "state": str(state.root)}
    if arguments.json:
        print(json.dumps(told, indent=2))
    else:
        print(f"worker   {membership.name} of {membership.central}")
        print(f"state    {state.root}")
        print(f"daemon   pid {told['pid']}, {told['phase']}" if alive else "daemon   not running")
        if alive:
            contact = f"{time.time() - told['contact_at']:.0f} s ago" if told["contact_at"] else "never"
            if told.get("warning"):
                print(f"warning  {told['warning']}")
            if told.get("proxy"):
                print(f"proxy    {told['proxy']}")
            print(f"central  {('unreachable: ' + told['trouble']) if told['trouble'] else 'reachable'}, last word {contact}")
            if abs(told.get("clock_off_s", 0.0)) > CLOCK_DIFFERS_S:
                print(f"clock    {off_by(told['clock_off_s'])}")
            print(f"intent   {told['intent']['mode']} {told['intent']['reason']}".rstrip())
            print(f"runtime  {_runtime_of(told)}")
            if told["disk_trouble"]:
                print(f"disk     {told['disk_trouble']}")
            print(f"slots    {told['free_slots']} of {told['slots']} free")
            triggers = told.get("triggers")  # a daemon from before an update does not say it
            if triggers and triggers["most"]:
                print("triggers {running} of {most}, in {hosts} hosts".format(**triggers))
            for job in told["jobs"]:
                print(f"job      {job['job_id']} (epoch {job['epoch']}) {job['phase']}")
    healthy = (
        alive
        and not told["trouble"]
        and not told["runtime_trouble"]
        and not told.get("runtime_refused")
        and not told["disk_trouble"]
        and told["phase"] == Phase.SERVING.name.lower()
    )
    return EXIT_OK if healthy else EXIT_FAILED


def _runtime_of(told: dict[str, Any]) -> str:
    """Return in a line what a daemon told of its runtime. One from before an update told less."""
    if told["runtime_trouble"]:
        return f"takes no jobs: {told['runtime_trouble']}"
    if told.get("runtime_refused"):
        return f"central offers no jobs: {told['runtime_refused']}"
    if not told["runtime"]:
        return "not ready yet"
    tried_at = told.get("runtime_tried_at")
    canary = f", canary passed {time.time() - tried_at:.0f} s ago" if tried_at else ""
    return "{python}, Task SDK {airflow}".format(**told["runtime"]) + canary


def check(arguments: argparse.Namespace, config: Config, state: State) -> int:
    """Name the hop to central that fails, and the remedy."""
    import anyio

    from airflow_remote_worker.check.hops import check as walk
    from airflow_remote_worker.check.hops import check_address
    from airflow_remote_worker.clock import SystemClock
    from airflow_remote_worker.link.network import Network

    if arguments.url:
        hops = anyio.run(check_address, Network.of(config, central=arguments.url), SystemClock())
    else:
        hops = anyio.run(walk, config, state, SystemClock())
    for hop in hops:
        print(f"{hop.mark} {hop.name:<11} {hop.text}")
    return EXIT_OK if all(hop.ok for hop in hops) else EXIT_FAILED


def leave(arguments: argparse.Namespace, config: Config, state: State) -> int:
    """Give the credential back and forget it."""
    from airflow_remote_worker.link.network import Network

    membership = state.membership()
    with state.locked():
        network = Network.of(config, membership)
        _warn(network)
        link = _link(network, membership.credential, membership.previous)
        _ask(link, link.leave)
        state.forget()
    print(f"{membership.name} has left {membership.central}")
    return EXIT_OK


def service(arguments: argparse.Namespace, config: Config, state: State) -> int:
    """Write, remove or show the systemd unit of this worker."""
    from airflow_remote_worker.system import service_unit as units

    root = state.root.absolute()
    writes = arguments.print or arguments.action == "install"
    if arguments.user_name and not arguments.system:
        raise ConfigError("--user-name: your own service runs as you; use it with --system")
    user = units.whose(root, arguments.user_name) if writes and arguments.system else ""
    unit = units.Unit(
        units.program(), root, arguments.unit, arguments.system, user, drain_s=arguments.drain_s, allow_sudo=arguments.allow_sudo
    )
    if arguments.print:
        print(unit.render(), end="")
        return EXIT_OK
    if arguments.action == "status":
        return units.show(unit)
    if arguments.action == "install":
        state.membership()  # a service that never joined would only fail, at every boot
    for line in units.install(unit) if arguments.action == "install" else units.uninstall(unit):
        print(line)
    return EXIT_OK


def _link(network: Network, credential: str, previous: str | None = None) -> Link:
    from airflow_remote_worker.clock import SystemClock
    from airflow_remote_worker.link.client import Link

    return Link(network, credential=credential, previous=previous, clock=SystemClock())


def _warn(network: Network) -> None:
    if network.warning:
        print(f"airflow-remote-worker: {network.warning}", file=sys.stderr)


def _absolute(path: str | None) -> str | None:
    """The daemon may run elsewhere than `join` did."""
    return str(Path(path).absolute()) if path else None


def _ask(link: Link, question: Any) -> Any:
    """Make one call and close the connection."""
    import anyio

    async def once() -> Any:
        try:
            return await question()
        finally:
            await link.close()

    return anyio.run(once)


def _bearer(arguments: argparse.Namespace, network: Network, queues: list[str]) -> str:
    """Return what lets this worker join: an enrolment token, or a user's own token for Airflow.

    Raises:
        ConfigError, MalformedToken: there is none, or it can't be one.
        Refused, Unreachable: Airflow's login.
    """
    from airflow_remote_protocol.tokens import TokenKind, check_token

    user_token = os.environ.get(ENV_PREFIX + "AIRFLOW_TOKEN", "").strip()
    if not arguments.username and not (user_token and queues):
        return check_token(TokenKind.ENROLMENT, _token(arguments))
    if arguments.token or arguments.token_file:
        raise ConfigError("--username: an enrolment token is given as well; use one of them")
    if not queues:
        raise ConfigError("--queues: name the queues that the worker is to serve, separated by commas")
    if user_token:
        return user_token
    link = _link(network, "")
    password = _password(f"Password of {arguments.username} on {network.central}: ")
    return str(_ask(link, lambda: link.log_in(arguments.username, password)))


def _password(prompt: str) -> str:
    """The password, typed unseen; or the first line of stdin, where that is no terminal."""
    import getpass

    return getpass.getpass(prompt) if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")


def _token(arguments: argparse.Namespace) -> str:
    """The token from the flag, a file, stdin (`-`), the environment, the terminal: the flag alone shows it in process lists."""
    if arguments.token_file:
        return str(arguments.token_file.read_text().strip())
    if arguments.token == "-":
        return sys.stdin.readline().strip()
    token = arguments.token or os.environ.get(ENV_PREFIX + "TOKEN", "")
    if not token and sys.stdin.isatty():
        token = _password("Enrolment token (not shown): ").strip()
    if not token:
        raise ConfigError(f"token: none given; use --token-file, --token - (stdin), or {ENV_PREFIX}TOKEN")
    return str(token).strip()


def _flags(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings among the flags, in the shape of the file; what is None was not given."""
    bundles: dict[str, dict[str, str]] = {}
    for pair in arguments.bundle or []:
        name, equals, path = pair.partition("=")
        if not equals or not name or not path:
            raise ConfigError(f"--bundle: {pair!r} is not NAME=PATH")
        bundles[name] = {"path": path}
    return {
        "state": arguments.state,
        "name": arguments.name,
        "slots": arguments.slots,
        "ca_file": arguments.ca_file,
        "client_cert": arguments.client_cert,
        "client_key": arguments.client_key,
        "proxy": arguments.proxy,
        "proxy_auth_file": arguments.proxy_auth_file,
        "insecure_http": arguments.insecure_http,
        "drain_timeout_s": arguments.drain_timeout_s,
        "runtime": {"python": arguments.runtime_python} if arguments.runtime_python else None,
        "bundles": bundles or None,
    }


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False, argument_default=None)
    common.add_argument("--config", type=Path, help="settings file (default: worker.toml in the state directory)")
    common.add_argument("--state", help=f"directory that is this worker (default: ${ENV_PREFIX}HOME or ~/.local/share/…)")
    common.add_argument("--ca-file", help="PEM file with the authorities to trust instead of the system's")
    common.add_argument("--client-cert", help="PEM file with the certificate to show to central (mutual TLS)")
    common.add_argument("--client-key", help="PEM file with its key (default: in the same file)")
    common.add_argument("--proxy", help="URL of an HTTP proxy, or none (default: HTTPS_PROXY, NO_PROXY)")
    common.add_argument("--proxy-auth-file", help="file with user:password for the proxy")
    common.add_argument("--insecure-http", action="store_true", default=None, help="allow plain http beyond this machine")
    common.add_argument("--log-level", help="DEBUG, INFO, WARNING or ERROR")
    common.set_defaults(name=None, slots=None, drain_timeout_s=None, runtime_python=None, bundle=None)

    parser = argparse.ArgumentParser(
        prog="airflow-remote-worker", description="Run Airflow tasks on this machine for a central Airflow."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="command")

    joining = commands.add_parser("join", parents=[common], help="become a worker of a central Airflow")
    joining.add_argument("url", help="central's address, e.g. https://airflow.example.com")
    source = joining.add_mutually_exclusive_group()
    source.add_argument("--token", help="enrolment token; - reads it from stdin")
    source.add_argument("--token-file", type=Path, help="file that holds the enrolment token")
    joining.add_argument(
        "--username",
        help=f"join by this Airflow user's right instead of a token; asks for the password, or takes {ENV_PREFIX}AIRFLOW_TOKEN",
    )
    joining.add_argument("--queues", help="with an Airflow user: queues to serve, separated by commas")
    joining.add_argument("--name", help="this worker's name (default: the host name)")
    joining.add_argument("--slots", type=int, help="how many slots jobs may fill; goes into worker.toml, as the next two")
    joining.add_argument("--runtime-python", help="interpreter with the Airflow Task SDK, in which tasks run")
    joining.add_argument("--bundle", action="append", metavar="NAME=PATH", help="directory with a bundle's Dags; may be repeated")
    joining.add_argument("--force", action="store_true", help="join although this directory is a worker already")
    joining.set_defaults(command=join)

    running = commands.add_parser("run", parents=[common], help="run the worker daemon")
    running.add_argument("--slots", type=int, help="how many slots jobs may fill (default: processors)")
    running.add_argument("--runtime-python", help="interpreter with the Airflow Task SDK, in which tasks run")
    running.add_argument("--bundle", action="append", metavar="NAME=PATH", help="directory with a bundle's Dags; may be repeated")
    running.add_argument("--drain-timeout-s", type=float, help="how long SIGTERM waits for jobs before it detaches")
    running.set_defaults(command=run)

    asking = commands.add_parser("status", parents=[common], help="what the daemon here does")
    asking.add_argument("--json", action="store_true", help="all that is known, for programs")
    asking.set_defaults(command=status)

    checking = commands.add_parser(
        "check", parents=[common], help="test the way to central, hop by hop, and what tasks need here"
    )
    checking.add_argument(
        "url", nargs="?", help="central's address, to test the way before joining; nothing of this worker is sent"
    )
    checking.set_defaults(command=check)
    commands.add_parser("leave", parents=[common], help="stop being a worker: revoke the credential").set_defaults(command=leave)
    _add_service(commands, common)
    return parser


def _add_service(commands: Any, common: argparse.ArgumentParser) -> None:
    from airflow_remote_worker.system.service_unit import DEFAULT_UNIT, DRAIN_S

    text = "keep the worker running by systemd: write its unit, remove it, or show what systemd says"
    parser = commands.add_parser("service", parents=[common], help=text)
    parser.add_argument("action", choices=("install", "uninstall", "status"), help="what to do with the unit")
    scope = parser.add_mutually_exclusive_group()
    is_root = system.user_id() == 0
    scope.add_argument("--system", action="store_true", default=is_root, help="the system's service (root's default)")
    scope.add_argument("--user", dest="system", action="store_false", help="your own service (everyone else's default)")
    parser.add_argument("--user-name", help="who runs a system service (default: who owns the state directory)")
    parser.add_argument("--unit", default=DEFAULT_UNIT, help="the unit's name; a second worker needs another")
    parser.add_argument("--drain-s", type=int, default=DRAIN_S, help="seconds that a stop waits for jobs; they run on after it")
    parser.add_argument("--allow-sudo", action="store_true", help="leave out the hardening, so that tasks may use sudo")
    parser.add_argument("--print", action="store_true", help="only print the unit")
    parser.set_defaults(command=service)


def _fail(message: str, code: int = EXIT_FAILED) -> int:
    print(f"airflow-remote-worker: {message}", file=sys.stderr)
    return code
