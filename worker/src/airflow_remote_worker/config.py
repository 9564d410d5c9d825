"""The worker's settings: from a TOML file, the environment and flags; flags override the environment, which overrides the file.

Owns the names, defaults and rules of every setting. The credential is not a setting: it is in :mod:`.state`.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from airflow_remote_protocol.addresses import BadAddress, parse_address
from airflow_remote_protocol.messages import MAX_JOB_LIMIT

ENV_PREFIX = "AIRFLOW_REMOTE_WORKER_"
NOT_SETTINGS = frozenset({"HOME", "TOKEN", "AIRFLOW_TOKEN", "CONFIG", "LOG_LEVEL", "CACHE"})
"""Variables with the prefix that are not settings: the state directory, two tokens for `join`, the settings file, logging, and
the directory into which `worker.pyz` unpacks."""
FILE_NAME = "worker.toml"
TRUST_FILE = "trust.json"
"""In the state directory: the keys that `join --trust` has pinned."""

Positive = Annotated[float, msgspec.Meta(gt=0)]


class ConfigError(ValueError):
    """A setting can't be used; the text names the key, the cause and the remedy."""


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all sections: immutable; an unknown key is an error."""


class RuntimeConfig(Section, frozen=True, kw_only=True):
    """The Python environment of tasks, which is never the worker's own. Central sends it, or the site installs it itself."""

    python: Path | None = None
    """The interpreter of an environment with the Task SDK that the site has installed: tasks run in it, and central sends
    none. Unset: central sends the environment."""
    interpreter: Path | None = None
    """The Python from which the environments that central sends are made. Unset: the one that the worker was installed with."""
    env: dict[str, str] = {}
    """Extra environment variables for tasks. Tasks get only these and a few harmless ones."""


class BundleConfig(Section, frozen=True, kw_only=True):
    """A Dag bundle that exists on this machine. It is used instead of the code that central sends."""

    path: Path
    """The directory that holds its Dag files, as central's bundle of that name does."""


class CodeConfig(Section, frozen=True, kw_only=True):
    """What central sends: Dag code, and the environments of tasks."""

    path: Path | None = None
    """The directory for what central sends; unset: `code` in the state directory. Each worker needs its own."""
    total_mb: Annotated[float, msgspec.Meta(ge=0)] = 4000
    """Above this size, in MB, code that no job uses is removed, the longest unused first. Code in use always stays."""
    max_kbit_s: Annotated[float, msgspec.Meta(ge=0)] = 0
    """How many kbit/s the transfer of code may take, so that it leaves room on a narrow line. 0: no limit."""


class AcceptConfig(Section, frozen=True, kw_only=True):
    """Which jobs this site accepts from central, as patterns (`*`, `?`, `[abc]`). Other jobs fail here before anything is run."""

    bundles: tuple[str, ...] = ("*",)
    """Bundles whose jobs this site accepts, as patterns (`etl-*`). Other jobs fail here before anything is run."""
    dags: tuple[str, ...] = ("*",)
    """The same for ids of Dags. Callbacks don't name their Dag: they are accepted only if this is unset."""
    queues: tuple[str, ...] = ("*",)
    """The same for queues."""


class UpdateConfig(Section, frozen=True, kw_only=True):
    """What this worker lets central replace on this machine."""

    accept: Literal["", "central", "signed", "off"] = ""
    """Which runtimes and releases of the worker it takes from central: all (`central`), those that a trusted key has signed
    (`signed`), or none (`off`). Unset: `central`, but `signed` if `trust` has keys for them, or if tasks run as another user: the
    process that starts them is part of the runtime, and runs as the worker's user."""
    prove_within_s: Annotated[float, msgspec.Meta(ge=1, le=600)] = 300
    """How long a new release of the worker may take to reach central. Then the one before runs again."""


class TrustConfig(Section, frozen=True, kw_only=True):
    """Which keys must have signed what central sends. Each list has files with public keys, or the base64 lines of keys."""

    bundles: tuple[str, ...] = ()
    """Keys for Dag code. If set, no unsigned code from central runs, and callbacks must be functions of the signed code."""
    runtimes: tuple[str, ...] = ()
    """Keys for runtimes. Unset: those of `bundles`."""
    releases: tuple[str, ...] = ()
    """Keys for releases of the worker. Unset: those of `bundles`."""
    threshold: Annotated[int, msgspec.Meta(ge=1, le=20)] = 1
    """How many of the keys must have signed."""


class QueueConfig(Section, frozen=True, kw_only=True):
    """Settings that apply to the jobs of one queue."""

    run_as_user: str = ""
    """The user that this queue's tasks run as. Unset: the general `run_as_user`."""


class KeepLogs(Section, frozen=True, kw_only=True):
    """How long task logs are kept after central has them; the oldest are removed first. Applies to `quarantine/` too."""

    days: Annotated[float, msgspec.Meta(ge=0)] = 14
    """Older logs are removed."""
    total_mb: Annotated[float, msgspec.Meta(ge=0)] = 500
    """Above this size, in MB, the oldest logs are removed."""


class PollConfig(Section, frozen=True, kw_only=True):
    """Bounds for polls and retries. Within them central decides."""

    max_wait_s: Positive = 300
    """How long one poll may wait. Some proxies cut silent requests: set it below their limit."""
    backoff_ceiling_s: Positive = 30
    """The longest wait between attempts while central can't be reached."""


class Config(Section, frozen=True, kw_only=True):
    """All settings. Made by :func:`load`."""

    state: Path
    """The worker's state directory: credential, jobs, logs."""
    central: str = ""
    """URL of central's web server, with any sub-path; empty: the one used to join."""
    name: str = ""
    """The worker's name for `join`; empty: the host name. Later changes don't rename it."""
    slots: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = os.cpu_count() or 1
    """How many slots jobs may fill at once; a task takes its `pool_slots`."""
    triggers: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 1000
    """The largest number of triggers of deferred tasks on this worker. Triggers take no slots. 0: they wait for other workers."""
    ephemeral: bool = False
    """Leave when the daemon ends, and have central remove this worker and free its name. A worker that has been ephemeral once
    stays so."""
    max_jobs: Annotated[int, msgspec.Meta(ge=1, le=MAX_JOB_LIMIT)] | None = None
    """Take so many jobs, triggers included, then end. Unset: any number. An ephemeral worker's number is for as long as it
    exists, that of others for each start."""
    idle_exit_s: Positive | None = None
    """End after so many seconds without a job. Time in which the worker can't take jobs does not count. Unset: never."""
    runtime: RuntimeConfig = RuntimeConfig()
    run_as_user: str = ""
    """The user that tasks run as if the worker is root, so that tasks can't read its credential. Unset: the worker's user."""
    queues: dict[str, QueueConfig] = {}
    bundles: dict[str, BundleConfig] = {}
    code: CodeConfig = CodeConfig()
    accept: AcceptConfig = AcceptConfig()
    update: UpdateConfig = UpdateConfig()
    trust: TrustConfig = TrustConfig()
    ca_file: Path | None = None
    """PEM file with the certificate authorities to trust instead of the system's."""
    client_cert: Path | None = None
    """PEM file with the client certificate for mutual TLS, followed by its chain."""
    client_key: Path | None = None
    """PEM file with the key of `client_cert`, without a passphrase; unset: the key is in the same file."""
    proxy: str | None = None
    """URL of an HTTP proxy; `none`: no proxy; unset: `HTTPS_PROXY` and `NO_PROXY` apply."""
    proxy_auth_file: Path | None = None
    """File with one line `user:password` for the proxy, so that the password is in no URL and no process list."""
    insecure_http: bool = False
    """Allow unencrypted http to a central on another machine."""
    drain_timeout_s: Positive = 3600
    """How long the daemon waits for running jobs after SIGTERM. Then it ends; the jobs run on, and the next start adopts them."""
    stop_grace_s: Positive = 60
    """How long a stopped job may take to end by itself before the daemon signals its processes."""
    min_free_mb: Annotated[float, msgspec.Meta(ge=0)] = 100
    """How many MB of the state directory's disk must stay free for running jobs. With less, the logs of the oldest finished jobs
    are removed and no new jobs are taken."""
    keep_logs: KeepLogs = KeepLogs()
    poll: PollConfig = PollConfig()

    @property
    def code_path(self) -> Path:
        """The directory for what central sends."""
        return (self.code.path or self.state / "code").absolute()

    @property
    def has_other_users(self) -> bool:
        """Whether tasks of some queue run as another user."""
        return bool(self.run_as_user or any(queue.run_as_user for queue in self.queues.values()))

    @property
    def refuses_releases(self) -> str:
        """Why this worker takes no release of itself from central; empty: it takes them."""
        return self._refuses(self.trust.releases, "releases", "a release runs with the rights of the worker's own user")

    @property
    def refuses_runtimes(self) -> str:
        """Why this worker uses no runtime that central sends; empty: it uses them."""
        return self._refuses(self.trust.runtimes, "runtimes", "the process that starts a task runs as the worker's own user")

    def _refuses(self, keys: tuple[str, ...], setting: str, why: str) -> str:
        if self.update.accept == "off":
            return "update.accept is off"
        if not self.needs_signed_updates or keys or self.trust.bundles or (self.state / TRUST_FILE).exists():
            return ""
        cause = "update.accept is signed" if self.update.accept else f"run_as_user is set, and {why}"
        return (
            f"{cause}, but this worker trusts no key: set trust.{setting} to the file of a public key, or, to use unsigned "
            f"{setting}, set update.accept = 'central'"
        )

    @property
    def needs_signed_updates(self) -> bool:
        """Whether runtimes and releases must be signed, whatever keys are pinned."""
        if self.update.accept:
            return self.update.accept == "signed"
        return self.has_other_users or bool(self.trust.bundles)

    @property
    def shares_state(self) -> bool:
        """Whether other users must reach code in the state directory."""
        return self.has_other_users and self.state.absolute() in self.code_path.parents

    def user_of(self, queue: str) -> str:
        """Return the user that tasks of this queue run as; empty: the worker's user."""
        own = self.queues.get(queue)
        return (own.run_as_user if own else "") or self.run_as_user


def load(flags: Mapping[str, Any] | None = None, *, environ: Mapping[str, str] | None = None, file: Path | None = None) -> Config:
    """Return the settings from *file* (default: the state directory's `worker.toml`), *environ* and *flags*; later ones override.

    Raises:
        ConfigError: a setting is wrong; the text names the key, the cause and the remedy.
    """
    environ = os.environ if environ is None else environ
    state = state_directory(flags or {}, environ)
    named = file or (Path(path) if (path := environ.get(ENV_PREFIX + "CONFIG")) else None)
    settings: dict[str, Any] = {"state": str(state)}
    if named or (state / FILE_NAME).exists():
        _merge(settings, read_toml(named or state / FILE_NAME))
    _merge(settings, _from_environ(environ))
    _merge(settings, dict(flags or {}))
    try:
        config = msgspec.convert(settings, Config, strict=False, dec_hook=_as_path)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(str(error))) from None
    if config.central:
        check_central(config.central, insecure_http=config.insecure_http)
    return config


def state_directory(flags: Mapping[str, Any], environ: Mapping[str, str]) -> Path:
    """Return the state directory from the flags, the environment or the default."""
    return Path(flags.get("state") or environ.get(ENV_PREFIX + "HOME") or default_state(environ)).expanduser().absolute()


def default_state(environ: Mapping[str, str]) -> Path:
    """Return the default state directory."""
    data = environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(data).expanduser() / "airflow-remote-worker"


def default_name() -> str:
    """Return this machine's host name, with characters that a worker's name can't have replaced."""
    kept = "".join(c if (c.isalnum() and c.isascii()) or c in "._-" else "-" for c in socket.gethostname())
    return kept.strip("._-")[:100] or "worker"


def check_central(url: str, *, insecure_http: bool) -> str:
    """Return central's URL without a trailing slash.

    Raises:
        ConfigError: not a URL, or plain http to another machine.
    """
    try:
        checked, is_safe = parse_address(url)
    except BadAddress as error:
        raise ConfigError(f"central: {error}") from None
    if not is_safe and not insecure_http:
        raise ConfigError(
            f"central: {url} would send this worker's credential unencrypted; use https, or set insecure_http = true "
            "(--insecure-http) if you trust that network"
        )
    return checked


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a settings file.

    Raises:
        ConfigError: it can't be read, or is not TOML.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        parsed: dict[str, Any] = tomllib.loads(path.read_text())
        return parsed
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}; check the path and its permissions") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}; correct that line") from None


def write_settings(state: Path, settings: Mapping[str, Any]) -> None:
    """Write *settings* (texts, numbers and tables of them) into a new settings file in *state*.

    Raises:
        OSError: the file exists, or can't be written.
    """
    with (state / FILE_NAME).open("x", encoding="utf-8") as file:
        file.write("".join(_as_toml(settings, ())))


def _as_toml(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    values = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    if path and values:
        yield f"\n[{'.'.join(path)}]\n"
    for key, value in values.items():
        yield f"{_quoted(key)} = {_quoted_text(value) if isinstance(value, str) else value}\n"
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _as_toml(value, (*path, _quoted(key)))


def _quoted(key: str) -> str:
    return key if key and all(c.isascii() and (c.isalnum() or c in "_-") for c in key) else _quoted_text(key)


def _quoted_text(text: str) -> str:
    """Return *text* as a basic string of TOML, which is JSON's with DEL escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _from_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    """`…_SLOTS=4` → slots; `…_RUNTIME__PYTHON=…` → runtime.python; `…_BUNDLES__etl__PATH=…` → bundles.etl.path.

    `…_ACCEPT__DAGS=a,b` → a list.
    """
    settings: dict[str, Any] = {}
    for variable, value in environ.items():
        name = variable.removeprefix(ENV_PREFIX)
        if name == variable or name in NOT_SETTINGS:
            continue
        first, *rest = name.split("__")
        # Names of bundles, queues and variables are chosen by the site: their case matters.
        named = first in ("BUNDLES", "QUEUES")
        keys = [first.lower(), *(part if named and i == 0 else part.lower() for i, part in enumerate(rest))]
        if name.startswith("RUNTIME__ENV__"):
            keys = ["runtime", "env", name.removeprefix("RUNTIME__ENV__")]
        branch: Any = [part.strip() for part in value.split(",")] if _is_list(keys) else value
        for key in reversed(keys):
            branch = {key: branch}
        _merge(settings, branch)
    return settings


def _is_list(keys: list[str]) -> bool:
    return keys[0] == "accept" or (keys[0] == "trust" and keys[-1] != "threshold")


def _merge(into: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        if value is None:
            continue
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


def _as_path(kind: type[Any], value: Any) -> Any:
    if kind is Path and isinstance(value, str | Path):
        return Path(value).expanduser()
    raise NotImplementedError(kind)


def _explain(text: str) -> str:
    """Turn msgspec's "… - at `$.runtime.python`" into key, cause and remedy."""
    cause, _, where = text.partition(" - at `$")
    key = where.rstrip("`").lstrip(".") or "settings"
    known = f"see the reference, or remove it from {FILE_NAME}, {ENV_PREFIX}… and the flags"
    if "unknown field" in cause:
        unknown = cause.split("`")[1]
        key = f"{where.rstrip('`').lstrip('.')}.{unknown}".lstrip(".")
        return f"{key}: there is no such setting (misspelled?); {known}"
    return f"{key}: {cause[:1].lower()}{cause[1:]}; {known}"
