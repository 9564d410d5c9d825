"""The command line of the worker. Parses and prints. A command's imports are inside its function."""

from __future__ import annotations

import argparse
import logging
import os
import re
import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_remote_worker import __version__, system
from airflow_remote_worker.config import (
    ENV_PREFIX,
    FILE_NAME,
    Config,
    ConfigError,
    default_name,
    default_state,
    load,
    state_directory,
    write_settings,
)
from airflow_remote_worker.errors import Damaged, Refused, Unreachable, WorkerError
from airflow_remote_worker.lifecycle import EXIT_FAILED, EXIT_OK, EXIT_REFUSED
from airflow_remote_worker.state.directory import Membership, NotJoined, State, StateInUse, explain_unusable, owner_of

if TYPE_CHECKING:
    from airflow_remote_protocol.messages import Enrolled, Enrolment

    from airflow_remote_worker.link.client import Link
    from airflow_remote_worker.link.network import Network

EXIT_USAGE = 2
MAX_NAME = 100
"""Characters of a worker's name (:data:`airflow_remote_protocol.messages.Name`)."""
NAMES_TRIED = 3
RUNTIME_HELP = "interpreter of an environment with the Airflow Task SDK, in which tasks run (default: central sends one)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code. Errors are one line on stderr."""
    arguments = _parser().parse_args(argv)
    arguments.given = list(sys.argv[1:] if argv is None else argv)
    level = arguments.log_level or os.environ.get(ENV_PREFIX + "LOG_LEVEL") or "INFO"
    try:
        logging.getLogger().setLevel(level.upper())
    except ValueError:
        return _fail(f"unknown log level {level!r}; use DEBUG, INFO, WARNING or ERROR", EXIT_USAGE)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for chatty in ("httpx", "httpcore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    if "@" in (arguments.proxy or ""):
        warning = "--proxy: the process list shows its password to all users; use --proxy-auth-file, or set proxy in worker.toml"
        print(f"airflow-remote-worker: {warning}", file=sys.stderr)
    try:
        config = load(_flags(arguments), file=arguments.config)
        return int(arguments.command(arguments, config, State(config.state, is_shared=config.shares_state)))
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
    """Exchange the enrolment token for a credential and store it."""
    from airflow_remote_protocol.messages import Enrolment
    from airflow_remote_protocol.tokens import MalformedToken

    from airflow_remote_worker.code.interpreter import find, find_own
    from airflow_remote_worker.facts import facts
    from airflow_remote_worker.link.network import Network

    network = Network.of(config, central=arguments.url)
    _warn(network)
    queues = [queue.strip() for queue in (arguments.queues or "").split(",") if queue.strip()]
    try:
        token = _join_token(arguments, network, queues)
    except MalformedToken as error:
        return _fail(f"token: {error}", EXIT_USAGE)
    _check_directory_owner(state)
    with state.locked():
        if not arguments.force:
            try:
                present = state.membership()
            except NotJoined:
                pass
            else:
                return _fail(f"{state.root} is already worker {present.name} of {present.central}; leave first, or use --force")
        settings = _settings_to_store(arguments, config)
        if arguments.trust:
            _pin(arguments.trust, config, state)
        link, interpreter = _link(network, token), find(config)
        enrolment = Enrolment(
            name=config.name or default_name(),
            facts=facts(interpreter.platform, find_own().platform),
            queues=queues,
            ephemeral=config.ephemeral,
        )
        try:
            enrolled = _call(link, lambda: _enrol(link, enrolment))
        except Unreachable as error:
            return _fail(_find_failing_hop(network) or str(error), EXIT_FAILED)
        state.join(
            Membership(
                central=network.central,
                worker_id=enrolled.worker_id,
                name=enrolled.name,
                credential=enrolled.credential,
                ephemeral=config.ephemeral,
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
    if not config.runtime.python:
        print("tasks run in a runtime that central sends; next: airflow-remote-worker check, then: airflow-remote-worker run")
        if interpreter.trouble:
            print(f"warning: {interpreter.trouble} (in {config.state / FILE_NAME})")
    return EXIT_OK


async def _enrol(link: Link, enrolment: Enrolment) -> Enrolled:
    """Enrol; an ephemeral worker whose name is taken gets a suffix, because many are made from one image or template."""
    from airflow_remote_protocol.errors import ProblemCode

    asked = enrolment
    for _ in range(NAMES_TRIED - 1 if enrolment.ephemeral else 0):
        try:
            return await link.enrol(asked)
        except Refused as error:
            if error.code is not ProblemCode.NAME_TAKEN:
                raise
            suffix = f"-{secrets.token_hex(4)}"
            asked = msgspec.structs.replace(enrolment, name=enrolment.name[: MAX_NAME - len(suffix)] + suffix)
    return await link.enrol(asked)


def _check_directory_owner(state: State) -> None:
    """Raises: ConfigError: this is root, and the directory belongs to another user, who could not read files stored by root."""
    owner, user = owner_of(state.root), system.user_name()
    if system.user_id() == 0 and state.root.exists() and owner not in (None, user):
        raise ConfigError(
            f"state: {state.root} belongs to {owner}, who could not read a credential that {user} stores there; "
            f"run this command as {owner} (runuser -u {owner} -- …), or choose another directory with --state"
        )


def _settings_to_store(arguments: argparse.Namespace, config: Config) -> dict[str, Any]:
    """Return the settings among `join`'s flags that belong into a new `worker.toml`: those not about the connection to central.

    Raises:
        ConfigError: the file exists already.
    """
    wanted: dict[str, Any] = {}
    if arguments.slots is not None:
        wanted["slots"] = config.slots
    if arguments.runtime_python:
        wanted["runtime"] = {"python": str(Path(os.path.abspath(config.runtime.python or "")))}  # noqa: PTH100 - must not follow links
    if arguments.bundle:
        named = [pair.partition("=")[0] for pair in arguments.bundle]
        wanted["bundles"] = {name: {"path": str(config.bundles[name].path.absolute())} for name in named}
    file = config.state / FILE_NAME
    if wanted and (arguments.config or file.exists()):
        flags = ", ".join(flag for flag in ("--slots", "--runtime-python", "--bundle") if _is_given(arguments, flag))
        raise ConfigError(f"{flags}: {arguments.config or file} exists; set these in that file and omit the flags")
    return wanted


def _is_given(arguments: argparse.Namespace, flag: str) -> bool:
    return getattr(arguments, flag.removeprefix("--").replace("-", "_")) not in (None, [])


def _find_failing_hop(network: Network) -> str:
    """Return the text of the first failing hop to central, more specific than the error of one call; empty: no hop fails."""
    import anyio

    from airflow_remote_worker.check.hops import check_address
    from airflow_remote_worker.clock import SystemClock

    return next((hop.text for hop in anyio.run(check_address, network, SystemClock()) if not hop.ok), "")


def run(arguments: argparse.Namespace, config: Config, state: State) -> int:
    """Run the worker daemon."""
    from airflow_remote_worker.update import handover

    code = handover.begin(config, state, arguments.given)
    if code is not None:
        return code
    from airflow_remote_worker import daemon

    return daemon.run(config, arguments.given)


def self_test(arguments: argparse.Namespace, config: Config, state: State) -> int:
    """Test whether this release of the worker can work on this machine."""
    import anyio

    from airflow_remote_worker.update import self_test

    try:
        lines = anyio.run(self_test.run, config, state)
    except (Unreachable, OSError) as error:
        return _fail(str(error), self_test.EXIT_LATER)
    except self_test.SelfTestFailed as error:
        return _fail(str(error))
    for line in lines:
        print(line)
    return EXIT_OK


def status(arguments: argparse.Namespace, config: Config, state: State) -> int:
    """Print the daemon's status; exit code 0 if it runs, reaches central and can take jobs."""
    import json

    from airflow_remote_worker.clock import CLOCK_DIFFERS_S, describe_clock_offset
    from airflow_remote_worker.lifecycle import Phase
    from airflow_remote_worker.local.seal import unsealed

    membership = state.membership()
    try:
        shown: dict[str, Any] = dict(json.loads(unsealed(state.status_path.read_bytes())))
    except (OSError, ValueError, TypeError):  # the daemon writes it again at the next change
        shown = {}
    alive = state.is_locked() and bool(shown) and not shown.get("ended")
    shown |= {"alive": alive, "name": membership.name, "central": membership.central, "state": str(state.root)}
    if arguments.json:
        print(json.dumps(shown, indent=2))
    else:
        print(f"worker   {membership.name} of {membership.central}")
        print(f"state    {state.root}")
        print(f"daemon   pid {shown['pid']}, {shown['phase']}" if alive else "daemon   not running")
        if alive:
            contact = f"{time.time() - shown['contact_at']:.0f} s ago" if shown["contact_at"] else "never"
            if shown.get("warning"):
                print(f"warning  {shown['warning']}")
            if shown.get("proxy"):
                print(f"proxy    {shown['proxy']}")
            print(f"central  {('unreachable: ' + shown['trouble']) if shown['trouble'] else 'reachable'}, last contact {contact}")
            if abs(shown.get("clock_off_s", 0.0)) > CLOCK_DIFFERS_S:
                print(f"clock    {describe_clock_offset(shown['clock_off_s'])}")
            print(f"intent   {shown['intent']['mode']} {shown['intent']['reason']}".rstrip())
            for line in _runtimes_of(shown):
                print(f"runtime  {line}")
            for line in _release_of(shown):
                print(f"release  {line}")
            if shown["disk_trouble"]:
                print(f"disk     {shown['disk_trouble']}")
            print(f"slots    {shown['free_slots']} of {shown['slots']} free")
            triggers = shown.get("triggers")  # missing if the daemon is older than this command
            if triggers and triggers["most"]:
                print("triggers {running} of {most}, in {hosts} hosts".format(**triggers))
            for job in shown["jobs"]:
                detail = f", {job['detail']}" if job.get("detail") else ""
                print(f"job      {job['job_id']} (epoch {job['epoch']}) {job['phase']}{detail}")
    healthy = (
        alive
        and not shown["trouble"]
        and not shown["runtime_trouble"]
        and not shown.get("runtime_refused")
        and not shown["disk_trouble"]
        and shown["phase"] == Phase.SERVING.name.lower()
    )
    return EXIT_OK if healthy else EXIT_FAILED


def _release_of(shown: dict[str, Any]) -> list[str]:
    """Return lines about the release of the daemon, and about another one that central wants. An older daemon has none."""
    about = shown.get("release") or {}
    lines = []
    if about.get("tree"):
        lines.append(f"{shown['version']} from central, serial {about['serial']}")
    wanted = about.get("wanted")
    if wanted and wanted["phase"] != "running":
        detail = f": {wanted['detail']}" if wanted["detail"] else ""
        lines.append(f"central wants {wanted['version']} (serial {wanted['serial']}), {wanted['phase']}{detail}")
    return lines


def _runtimes_of(shown: dict[str, Any]) -> list[str]:
    """Return a line for each runtime of the daemon. An older daemon's status has fewer keys."""
    sent = shown.get("runtimes")
    if sent is None or shown["runtime_trouble"]:
        return [_runtime_of(shown)]
    versions = [f", Task SDK {one['task_sdk']}" if one["task_sdk"] else "" for one in sent]
    details = [f": {one['detail']}" if one["detail"] else "" for one in sent]
    return [
        f"{one['name']} {one['serial']} from central, {one['phase']}{version}{detail}"
        for one, version, detail in zip(sent, versions, details, strict=True)
    ]


def _runtime_of(shown: dict[str, Any]) -> str:
    """Return the daemon's own runtime in one line."""
    if shown["runtime_trouble"]:
        return f"takes no jobs: {shown['runtime_trouble']}"
    if shown.get("runtime_refused"):
        return f"central offers no jobs: {shown['runtime_refused']}"
    if not shown["runtime"]:
        return "not ready yet"
    tried_at = shown.get("runtime_tried_at")
    canary = f", canary passed {time.time() - tried_at:.0f} s ago" if tried_at else ""
    return "{python}, Task SDK {airflow}".format(**shown["runtime"]) + canary


def code(arguments: argparse.Namespace, config: Config, state: State) -> int:
    """List what central has sent, or remove what of it is not needed."""
    from airflow_remote_worker.update import held_code

    if arguments.action == "prune":
        with state.locked():
            lines = held_code.prune(config, state)
    else:
        lines = held_code.list_code(config, state)
    for line in lines:
        about = line.tree.about
        name = f"{about.bundle} {about.version}".rstrip() if about else "(unknown)"
        print(f"{line.tree.digest[:12]} {line.bytes / 1e6:8.1f} MB  {name}" + (f"  ({line.needed})" if line.needed else ""))
    print(f"{'removed' if arguments.action == 'prune' else 'trees'}: {len(lines)}")
    return EXIT_OK


def check(arguments: argparse.Namespace, config: Config, state: State) -> int:
    """Print the hops to central up to the one that fails, with the remedy."""
    import anyio

    from airflow_remote_worker.check.hops import check_address, check_worker
    from airflow_remote_worker.clock import SystemClock
    from airflow_remote_worker.link.network import Network

    if arguments.url:
        hops = anyio.run(check_address, Network.of(config, central=arguments.url), SystemClock())
    else:
        hops = anyio.run(check_worker, config, state, SystemClock())
    for hop in hops:
        print(f"{hop.mark} {hop.name:<11} {hop.text}")
    return EXIT_OK if all(hop.ok for hop in hops) else EXIT_FAILED


def leave(arguments: argparse.Namespace, config: Config, state: State) -> int:
    """Revoke the credential at central and remove it here."""
    from airflow_remote_worker.link.network import Network

    membership = state.membership()
    with state.locked():
        network = Network.of(config, membership)
        _warn(network)
        link = _link(network, membership.credential, membership.previous)
        _call(link, link.leave)
        state.forget()
    print(f"{membership.name} has left {membership.central}")
    return EXIT_OK


def _pin(path: Path, config: Config, state: State) -> None:
    """Replace the pinned keys by those in a file; the serials that were used stay. Raises: ConfigError, OSError."""
    from airflow_remote_worker.code.trust import read_keys
    from airflow_remote_worker.state.trusted_keys import TrustedKeys, TrustFile

    keys, file = [key.line for key in read_keys(path)], TrustFile(state.root, state.put_aside)
    if len(set(keys)) < config.trust.threshold:
        raise ConfigError(f"--trust: {path} has {len(set(keys))} keys, and trust.threshold is {config.trust.threshold}; add keys")
    try:
        floors = file.load().floors
    except Damaged:
        floors = {}
    file.store(TrustedKeys(keys, floors=floors))


def trust(arguments: argparse.Namespace, config: Config, state: State) -> int:
    """Show which keys this worker trusts, or pin others."""
    from airflow_remote_protocol.statements import Kind

    from airflow_remote_worker.code.trust import keys_in_settings
    from airflow_remote_worker.state.trusted_keys import TrustFile

    if arguments.action == "pin":
        if not arguments.file:
            raise ConfigError("trust pin: name the file with the public keys")
        with state.locked():
            _pin(arguments.file, config, state)
    pinned, own = TrustFile(state.root, state.put_aside).load(), keys_in_settings(config)
    for kind in (Kind.BUNDLE, Kind.RUNTIME, Kind.RELEASE):
        for key in own[kind]:
            print(f"{kind.value}s: key {key.id} (settings)")
    for line in pinned.keys:
        print(f"pinned key {_id_of(line)}" + (f" (serial {pinned.serial})" if pinned.serial else ""))
    if not pinned.keys and not any(own.values()):
        print("no key: nothing that central sends must be signed")
    print(f"threshold: {config.trust.threshold}")
    for name, serial in sorted(pinned.floors.items()):
        print(f"no {name} below serial {serial}")
    return EXIT_OK


def _id_of(line: str) -> str:
    from airflow_remote_protocol.statements import parse_keys

    return parse_keys(line)[0].id


def service(arguments: argparse.Namespace, config: Config, state: State) -> int:
    """Write, remove or show the systemd unit of this worker."""
    from airflow_remote_worker.system import service_unit as units

    root = state.root.absolute()
    writes = arguments.print or arguments.action == "install"
    if arguments.user_name and not arguments.system:
        raise ConfigError("--user-name: a user's own service always runs as that user; use this flag with --system")
    user = units.service_user(root, arguments.user_name) if writes and arguments.system else ""
    unit = units.Unit(
        units.find_program(root),
        root,
        arguments.unit,
        arguments.system,
        user,
        drain_s=arguments.drain_s,
        allow_sudo=arguments.allow_sudo,
    )
    if arguments.print:
        print(unit.render(), end="")
        return EXIT_OK
    if arguments.action == "status":
        return units.show_status(unit)
    if arguments.action == "install":
        state.membership()  # the service of a worker that has not joined would fail at every boot
    for line in units.install(unit, starts=arguments.now) if arguments.action == "install" else units.uninstall(unit):
        print(line)
    return EXIT_OK


def install(arguments: argparse.Namespace, config: Config, state: State) -> int:
    """Install what an installer contains; join, and start the service."""
    from airflow_remote_worker.installer import SYSTEM_STATE, Installer

    if system.user_id() == 0 and config.state == default_state(os.environ):  # nobody else could reach root's home
        state = State(SYSTEM_STATE)
    return Installer(arguments.archive, state, run=main).install(
        name=arguments.name or config.name, user_name=arguments.user_name, with_service=not arguments.no_service
    )


def _link(network: Network, credential: str, previous: str | None = None) -> Link:
    from airflow_remote_worker.clock import SystemClock
    from airflow_remote_worker.link.client import Link

    return Link(network, credential=credential, previous=previous, clock=SystemClock())


def _warn(network: Network) -> None:
    if network.warning:
        print(f"airflow-remote-worker: {network.warning}", file=sys.stderr)


def _absolute(path: str | None) -> str | None:
    """Return *path* as absolute: the daemon may run in another working directory than `join`."""
    return str(Path(path).absolute()) if path else None


def _call(link: Link, request: Any) -> Any:
    """Make one request and close the connection."""
    import anyio

    async def once() -> Any:
        try:
            return await request()
        finally:
            await link.close()

    return anyio.run(once)


def _join_token(arguments: argparse.Namespace, network: Network, queues: list[str]) -> str:
    """Return the token to join with: an enrolment token, or a user's own token for Airflow.

    Raises:
        ConfigError, MalformedToken: no token is given, or it is malformed.
        Refused, Unreachable: the login at Airflow failed.
    """
    from airflow_remote_protocol.tokens import TokenKind, check_token

    user_token = os.environ.get(ENV_PREFIX + "AIRFLOW_TOKEN", "").strip()
    if not arguments.username and not (user_token and queues):
        return check_token(TokenKind.ENROLMENT, _token(arguments))
    if arguments.token or arguments.token_file:
        raise ConfigError("--username: an enrolment token is given as well; use only one of them")
    if not queues:
        raise ConfigError("--queues: missing; name the queues that the worker serves, separated by commas")
    if user_token:
        return user_token
    link = _link(network, "")
    password = _password(f"Password of {arguments.username} on {network.central}: ")
    return str(_call(link, lambda: link.log_in(arguments.username, password)))


def _password(prompt: str) -> str:
    """Return the password, typed without echo, or the first line of stdin if stdin isn't a terminal."""
    import getpass

    return getpass.getpass(prompt) if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")


def _token(arguments: argparse.Namespace) -> str:
    """Return the token from a file, stdin (`-`), the flag, the environment or the terminal. Process lists show only the flag."""
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
    """Return the settings among the flags, in the shape of the file; None: not given."""
    bundles: dict[str, dict[str, str]] = {}
    for pair in arguments.bundle or []:
        name, equals, path = pair.partition("=")
        if not equals or not name or not path:
            raise ConfigError(f"--bundle: {pair!r} is not of the form NAME=PATH")
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
        "ephemeral": arguments.ephemeral,
        "max_jobs": arguments.max_jobs,
        "idle_exit_s": arguments.idle_exit,
        "drain_timeout_s": arguments.drain_timeout_s,
        "runtime": {"python": arguments.runtime_python} if arguments.runtime_python else None,
        "bundles": bundles or None,
    }


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False, argument_default=None)
    common.add_argument("--config", type=Path, help="settings file (default: worker.toml in the state directory)")
    common.add_argument("--state", help=f"the worker's state directory (default: ${ENV_PREFIX}HOME or ~/.local/share/…)")
    common.add_argument("--ca-file", help="PEM file with the certificate authorities to trust instead of the system's")
    common.add_argument("--client-cert", help="PEM file with the client certificate for central (mutual TLS)")
    common.add_argument("--client-key", help="PEM file with its key (default: in the same file)")
    common.add_argument("--proxy", help="URL of an HTTP proxy, or none (default: HTTPS_PROXY, NO_PROXY)")
    common.add_argument("--proxy-auth-file", help="file with user:password for the proxy")
    common.add_argument("--insecure-http", action="store_true", default=None, help="allow unencrypted http to another machine")
    common.add_argument("--log-level", help="DEBUG, INFO, WARNING or ERROR")
    common.set_defaults(name=None, slots=None, drain_timeout_s=None, runtime_python=None, bundle=None)
    common.set_defaults(ephemeral=None, max_jobs=None, idle_exit=None)

    parser = argparse.ArgumentParser(
        prog="airflow-remote-worker", description="Run Airflow tasks on this machine for a central Airflow."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="command")

    joining = commands.add_parser("join", parents=[common], help="make this machine a worker of a central Airflow")
    joining.add_argument("url", help="central's address, e.g. https://airflow.example.com")
    source = joining.add_mutually_exclusive_group()
    source.add_argument("--token", help="enrolment token; - reads it from stdin")
    source.add_argument("--token-file", type=Path, help="file that holds the enrolment token")
    joining.add_argument(
        "--username",
        help=f"join as this Airflow user instead of with a token; asks for the password, or reads {ENV_PREFIX}AIRFLOW_TOKEN",
    )
    joining.add_argument("--queues", help="with an Airflow user: queues to serve, separated by commas")
    joining.add_argument("--name", help="this worker's name (default: the host name)")
    joining.add_argument("--slots", type=int, help="how many slots jobs may fill; stored in worker.toml, like the next two")
    joining.add_argument("--runtime-python", help=RUNTIME_HELP)
    joining.add_argument("--bundle", action="append", metavar="NAME=PATH", help="directory with a bundle's Dags; may be repeated")
    joining.add_argument(
        "--trust", type=Path, metavar="FILE", help="pin the public keys in this file: only what they have signed is used here"
    )
    joining.add_argument(
        "--ephemeral",
        action="store_true",
        default=None,
        help="join as a worker that central removes when it ends; if its name is taken, it gets a suffix",
    )
    joining.add_argument("--force", action="store_true", help="join even if this directory is already a worker")
    joining.set_defaults(command=join)

    as_run = argparse.ArgumentParser(add_help=False)
    as_run.add_argument("--slots", type=int, help="how many slots jobs may fill (default: processors)")
    as_run.add_argument("--runtime-python", help=RUNTIME_HELP)
    as_run.add_argument("--bundle", action="append", metavar="NAME=PATH", help="directory with a bundle's Dags; may be repeated")
    as_run.add_argument(
        "--drain-timeout-s", type=float, help="how many seconds SIGTERM waits for jobs before the daemon ends without them"
    )
    as_run.add_argument("--max-jobs", type=int, metavar="N", help="take N jobs, then end")
    as_run.add_argument("--idle-exit", type=_seconds, metavar="TIME", help="end after so long without a job, e.g. 90s, 10m or 1h")
    as_run.add_argument(
        "--ephemeral", action="store_true", default=None, help="leave when the daemon ends: central removes this worker"
    )
    running = commands.add_parser("run", parents=[common, as_run], help="run the worker daemon")
    running.set_defaults(command=run)
    testing = commands.add_parser(
        "self-test", parents=[common, as_run], help="test whether this release of the worker can work on this machine"
    )
    testing.set_defaults(command=self_test)

    asking = commands.add_parser("status", parents=[common], help="show what the daemon of this directory does")
    asking.add_argument("--json", action="store_true", help="print everything as JSON")
    asking.set_defaults(command=status)

    checking = commands.add_parser(
        "check", parents=[common], help="test the connection to central hop by hop, and what tasks need on this machine"
    )
    checking.add_argument(
        "url", nargs="?", help="central's address, to test the connection before joining; no credential is sent"
    )
    checking.set_defaults(command=check)
    holding = commands.add_parser(
        "code", parents=[common], help="list the code, runtimes and releases that central has sent, or remove what is not needed"
    )
    holding.add_argument("action", choices=("list", "prune"), help="prune: only while no daemon runs, which does it itself")
    holding.set_defaults(command=code)
    commands.add_parser("leave", parents=[common], help="stop being a worker: revoke and remove the credential").set_defaults(
        command=leave
    )
    trusting = commands.add_parser("trust", parents=[common], help="show the keys that must have signed what central sends")
    trusting.add_argument("action", choices=("show", "pin"), help="show them, or pin the keys in a file while no daemon runs")
    trusting.add_argument("file", nargs="?", type=Path, help="with pin: the file with the public keys")
    trusting.set_defaults(command=trust)
    _add_service(commands, common)
    _add_install(commands, common)
    return parser


def _seconds(text: str) -> float:
    """Return a time such as `90s`, `10m`, `1h` or `90` in seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; write it as 90s, 10m or 1h")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def _add_service(commands: Any, common: argparse.ArgumentParser) -> None:
    from airflow_remote_worker.system.service_unit import DEFAULT_UNIT, DRAIN_S

    text = "run the worker as a systemd service: write its unit, remove it, or show its status"
    parser = commands.add_parser("service", parents=[common], help=text)
    parser.add_argument("action", choices=("install", "uninstall", "status"), help="what to do with the unit")
    scope = parser.add_mutually_exclusive_group()
    is_root = system.user_id() == 0
    scope.add_argument("--system", action="store_true", default=is_root, help="the system's service (root's default)")
    scope.add_argument("--user", dest="system", action="store_false", help="your own service (everyone else's default)")
    parser.add_argument("--user-name", help="user that a system service runs as (default: the owner of the state directory)")
    parser.add_argument(
        "--unit", default=DEFAULT_UNIT, help="name of the unit; a second worker on this machine needs another name"
    )
    parser.add_argument(
        "--drain-s",
        type=int,
        default=DRAIN_S,
        help="how many seconds a stop waits for jobs; later they run on without the daemon",
    )
    parser.add_argument("--allow-sudo", action="store_true", help="omit the hardening, so that tasks can use sudo")
    parser.add_argument("--now", action="store_true", help="with install: also start it, now and at every boot")
    parser.add_argument("--print", action="store_true", help="only print the unit")
    parser.set_defaults(command=service)


def _add_install(commands: Any, common: argparse.ArgumentParser) -> None:
    text = "install the worker of an installer that central made: settings, runtime, join and service"
    parser = commands.add_parser("install", parents=[common], help=text)
    parser.add_argument("--archive", type=Path, required=True, help="the installer; `FILE install` names itself")
    parser.add_argument("--name", help="this worker's name (default: the one that central chose, or the host name)")
    parser.add_argument("--no-service", action="store_true", help="don't write and start a systemd unit")
    parser.add_argument("--user-name", help="if you are root: the existing user that the worker runs as")
    parser.set_defaults(command=install)


def _fail(message: str, code: int = EXIT_FAILED) -> int:
    print(f"airflow-remote-worker: {message}", file=sys.stderr)
    return code
