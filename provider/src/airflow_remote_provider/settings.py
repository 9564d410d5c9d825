"""The `[remote]` section of Airflow's configuration: read at the first use, validated, frozen.

Owns the descriptions, types and defaults of the options; :mod:`.provider_info` passes them to Airflow.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import timedelta
from functools import cache
from typing import Any

from airflow_remote_protocol.execution import MAX_BODY_BYTES
from airflow_remote_protocol.trees import MAX_FILES


class BadSetting(ValueError):
    """An option of `[remote]` has an invalid value; the text names the option, its value and the allowed values."""


@dataclass(frozen=True)
class Option:
    """One option of `[remote]`. *least* and *most* bound it, inclusive."""

    default: float
    least: float
    most: float
    text: str


@dataclass(frozen=True)
class Switch:
    """One option of `[remote]` that is on or off."""

    default: bool
    text: str


@dataclass(frozen=True)
class TextOption:
    """One option of `[remote]` whose value is a text."""

    default: str
    text: str
    choices: tuple[str, ...] = ()
    """The allowed values; empty: any."""
    is_secret: bool = False
    """Whether the value may contain a secret: it can then be set by a command or a secrets backend, too."""


OPTIONS: dict[str, Option] = {
    "poll_seconds": Option(
        50, 1, 300, "How long a worker's poll stays open, in seconds. Keep it below the idle timeout of proxies on the way."
    ),
    "retry_seconds": Option(1, 0.1, 60, "The shortest wait of a worker before it tries again after a failure, in seconds."),
    "offer_deadline_seconds": Option(
        30,
        1,
        600,
        "How long a worker may take from an offer to the task's start, in seconds, unless it reports that it is preparing.",
    ),
    "offer_attempts": Option(4, 1, 100, "How often a job is offered before it fails because no worker accepted it."),
    "reoffer_delay_seconds": Option(
        5, 0, 600, "The wait before a job is offered again, in seconds. It grows with every offer that was not accepted."
    ),
    "lost_after_seconds": Option(3600, 60, 604800, "How long a worker may be silent before its jobs are lost, in seconds."),
    "reconnect_seconds": Option(
        180,
        1,
        86400,
        "How long central must have been up without a break before it counts any job as lost, in seconds, so that every worker "
        "can reconnect. Keep it above poll_seconds + 60.",
    ),
    "stop_margin_seconds": Option(
        60, 0, 3600, "How long before its jobs count as lost the worker itself stops them, in seconds."
    ),
    "stop_grace_seconds": Option(
        120,
        10,
        86400,
        "How long after a stop a job may still make calls, in seconds, so that its task can clean up. Keep it above the "
        "stop_grace_s of workers + 30.",
    ),
    "ephemeral_silent_seconds": Option(
        600,
        60,
        604800,
        "How long an ephemeral worker may be silent before it is removed and its name is free, in seconds. One that holds jobs "
        "stays until they are lost.",
    ),
    "silent_after_seconds": Option(90, 5, 3600, "How long after its last contact a worker is shown as silent, in seconds."),
    "ledger_threads": Option(
        4, 1, 32, "Threads, and therefore database connections, that all ledger calls of one API process share."
    ),
    "gateway_concurrency": Option(
        6,
        1,
        64,
        "How many Execution API calls one API process makes for workers at once. Keep it plus ledger_threads below the size of "
        "the database pool.",
    ),
    "gateway_body_bytes": Option(
        128 * 1024 * 1024,
        65536,
        MAX_BODY_BYTES,
        "The largest value (XCom, variable, …) that a remote task may write or read, in bytes. Central sends it to workers "
        "with the session.",
    ),
    "written_bytes_per_job": Option(
        512 * 1024 * 1024,
        65536,
        1 << 40,
        "How many bytes one job may write into Airflow's database: XComs, variables, rendered fields, state of tasks and "
        "assets. Beyond that the task gets an error with the limit.",
    ),
    "writes_per_job": Option(
        10_000,
        100,
        1 << 30,
        "How often one job may write into Airflow's database. Beyond that the task gets an error with the limit.",
    ),
    "log_bytes_per_job": Option(
        1 << 30,
        65536,
        1 << 40,
        "The largest log of one try on central, in bytes. The rest stays on the worker; a line at the end of the log says so.",
    ),
    "worker_log_bytes": Option(
        4 * 1024 * 1024,
        65536,
        1 << 26,
        "How much central keeps of each worker's own log, in bytes. The oldest part is deleted first.",
    ),
    "tree_files": Option(20_000, 1, MAX_FILES, "The most files that a published Dag bundle may have."),
    "tree_bytes": Option(
        512 * 1024 * 1024, 1024, 1 << 40, "The largest Dag bundle to publish: the size of all its files together, in bytes."
    ),
    "blob_bytes": Option(
        64 * 1024 * 1024,
        1024,
        1 << 30,
        "The largest file of a Dag bundle to publish, in bytes. A publisher holds a file in memory while it packs it.",
    ),
    "publish_patience_seconds": Option(
        60,
        0,
        86400,
        "How long a job waits until the code that central has parsed is published, in seconds. Then it runs the newest published "
        "code, and its log says so. A job that needs a certain version of a bundle always waits for that version.",
    ),
    "prepare_seconds": Option(
        3600,
        60,
        604800,
        "How long a worker may prepare a job, which includes the transfer of its code, in seconds. Then the job is offered to "
        "another worker.",
    ),
    "dispatch_poll_seconds": Option(
        0.25,
        0.02,
        30,
        "How often an API process looks for new jobs where the database can't notify it (not Postgres), in seconds.",
    ),
    "enrol_failures_per_minute": Option(
        30, 1, 10000, "How many failed enrolments per minute one API process accepts from the same source before it refuses more."
    ),
    "calls_per_second": Option(
        200,
        0,
        100000,
        "How many calls per second one worker may make to one API process before it must wait. Bursts of ten times as many are "
        "allowed. 0: no limit.",
    ),
    "credential_days": Option(
        30, 0.00005, 3650, "How long a worker's credential is valid, in days. The worker replaces it by itself well before."
    ),
    "pack_concurrency": Option(
        64,
        1,
        4096,
        "How many downloads of code one API process serves at once. Others are answered as busy and try again. A download holds "
        "some 1 MiB of memory, and no thread or connection to the database between two reads.",
    ),
    "tree_days": Option(
        30,
        0.01,
        3650,
        "How long older published trees of a bundle are kept, in days. The newest tree, the three before it and those of open "
        "jobs are kept in any case, and at most 100 trees of a bundle.",
    ),
    "alert_silent_seconds": Option(
        100,
        5,
        86400,
        "How long a worker may be silent before that is an incident, in seconds. Keep it above poll_seconds + 45: a worker "
        "whose connection breaks without a trace needs that long to notice and return.",
    ),
    "alert_waiting_seconds": Option(
        900, 0, 604800, "How long the oldest job of a queue may wait before that is an incident, in seconds. 0: never."
    ),
    "alert_disk_mb": Option(
        200,
        0,
        1e6,
        "With how little free space on a worker's disk that is an incident, in MB. Workers take no jobs below their min_free_mb.",
    ),
    "history_days": Option(14, 1, 3650, "How long ended jobs are kept, in days."),
    "audit_days": Option(90, 1, 3650, "How long the audit log is kept, including the requests of jobs, in days."),
}

SWITCHES: dict[str, Switch] = {
    "suspend_on_replay": Switch(
        False,
        "Whether to suspend a worker when one of its credentials is used after it was replaced. In any case the call is refused "
        "and the worker flagged.",
    ),
}
BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}

TEXT_OPTIONS: dict[str, TextOption] = {
    "blob_store": TextOption(
        "database",
        "Where the files of published bundles are stored: database, or the URL of a directory or an object store as Airflow's "
        "ObjectStoragePath knows it (file:///srv/airflow/blobs, s3://my_connection@bucket/blobs). All API servers and publishers "
        "need access to it.",
    ),
    "alert_webhook": TextOption(
        "",
        "URL that receives each begin and recovery of an incident as JSON by POST. Empty: none.",
        is_secret=True,
    ),
    "notifiers": TextOption(
        "",
        "Airflow notifiers that are called at each begin and recovery of an incident, as a JSON list of "
        '{"classpath": "…", "kwargs": {…}}. Their templates get `message` and `incidents`. Empty: none.',
        is_secret=True,
    ),
    "callback_queue": TextOption(
        "default",
        "Queue of a Dag run's callbacks if no task of the run uses the Remote Executor (otherwise the queue of most tasks).",
    ),
    "publish": TextOption(
        "auto",
        "Whether API servers publish Dag bundles for workers. auto: each local bundle whose directory they can read, unless "
        "another process publishes it. off: only `airflow remote publish` does.",
        choices=("auto", "off"),
    ),
    "runtimes": TextOption(
        "follow",
        "Whether API servers build runtimes again, and add the worker's release of this provider, by themselves. follow: when "
        "central's Airflow, Task SDK or provider has a newer version than at the last build, or a worker has a platform for "
        "which nothing was built; `runtimes build --no-follow` and `releases add --no-follow` exclude one. off: only commands "
        "build.",
        choices=("follow", "off"),
    ),
    "client_certificate_header": TextOption(
        "",
        "Header in which the proxy in front of central passes the subject of a worker's client certificate. If set, calls "
        "without a certificate are refused, and each worker is bound to its own. The proxy must set or remove the header on "
        "every call, and central must not be reachable without the proxy.",
    ),
}


@dataclass(frozen=True)
class Settings:
    """The parsed `[remote]` section. Names and units as in :data:`OPTIONS` and :data:`TEXT_OPTIONS`."""

    poll_seconds: float
    retry_seconds: float
    offer_deadline_seconds: float
    offer_attempts: int
    reoffer_delay_seconds: float
    lost_after_seconds: float
    reconnect_seconds: float
    stop_margin_seconds: float
    stop_grace_seconds: float
    ephemeral_silent_seconds: float
    silent_after_seconds: float
    ledger_threads: int
    gateway_concurrency: int
    gateway_body_bytes: int
    written_bytes_per_job: int
    writes_per_job: int
    log_bytes_per_job: int
    worker_log_bytes: int
    tree_files: int
    tree_bytes: int
    blob_bytes: int
    publish_patience_seconds: float
    prepare_seconds: float
    dispatch_poll_seconds: float
    enrol_failures_per_minute: int
    calls_per_second: float
    credential_days: float
    pack_concurrency: int
    tree_days: float
    alert_silent_seconds: float
    alert_waiting_seconds: float
    alert_disk_mb: float
    history_days: float
    audit_days: float
    suspend_on_replay: bool
    blob_store: str
    alert_webhook: str
    notifiers: str
    callback_queue: str
    publish: str
    runtimes: str
    client_certificate_header: str


def silent_after() -> timedelta:
    """Return how long after its last contact a worker counts as silent."""
    return timedelta(seconds=settings().silent_after_seconds)


def parse(raw: dict[str, str]) -> Settings:
    """Return the settings from *raw*. Options that are not set there have their defaults.

    Raises:
        BadSetting: names the option, its value and the allowed range.
    """
    values: dict[str, Any] = {}
    whole = {f.name for f in fields(Settings) if f.type == "int"}
    for name, option in OPTIONS.items():
        text = raw.get(name, "").strip() or str(option.default)
        try:
            value = float(text)
        except ValueError:
            raise BadSetting(
                f"[remote] {name} = {text!r} is not a number; set one from {option.least:g} to {option.most:g}"
            ) from None
        if not option.least <= value <= option.most:
            raise BadSetting(f"[remote] {name} = {text} is out of range; set a number from {option.least:g} to {option.most:g}")
        values[name] = int(value) if name in whole else value
    for name, switch in SWITCHES.items():
        text = raw.get(name, "").strip().lower() or str(switch.default).lower()
        if text not in BOOLEANS:
            raise BadSetting(f"[remote] {name} = {text!r} is neither on nor off; set True or False")
        values[name] = BOOLEANS[text]
    for name, choice in TEXT_OPTIONS.items():
        text = raw.get(name, "").strip() or choice.default
        if choice.choices and text not in choice.choices:
            raise BadSetting(f"[remote] {name} = {text!r} is unknown; set {' or '.join(choice.choices)}")
        values[name] = text
    return Settings(**values)


@cache
def settings() -> Settings:
    """Return this process's settings. They are read from Airflow's configuration at the first call."""
    from airflow.configuration import conf

    return parse({name: conf.get("remote", name, fallback="") or "" for name in (*OPTIONS, *SWITCHES, *TEXT_OPTIONS)})
