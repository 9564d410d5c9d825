"""Reads the part of central's configuration that is sent to workers. The protocol's `task_settings` lists the options."""

from __future__ import annotations

import logging

from airflow_remote_protocol.messages import TaskSettings
from airflow_remote_protocol.task_settings import OPTIONS, compute_revision, filter_usable

log = logging.getLogger(__name__)


def read() -> TaskSettings:
    """Return these settings from Airflow's configuration in this process. Omit and log an option that can't be read or sent."""
    values = {}
    for name in OPTIONS:
        try:
            value = _value(*name.split(".", 1))
        except Exception as error:
            log.warning("[%s] %s can't be read and is not sent to workers: %s", *name.split(".", 1), error)
            continue
        if value is not None:
            values[name] = value
    sent = filter_usable(values)
    for name in values.keys() - sent.keys():
        log.warning(
            "[%s] %s is not sent to workers, because its value may not leave central or can't be passed on; set it at each site",
            *name.split(".", 1),
        )
    return TaskSettings(compute_revision(sent), sent)


def _value(section: str, option: str) -> str | None:
    from airflow.configuration import conf

    value: str | None = conf.get(section, option, fallback=None)
    if (section, option, value) == ("core", "default_timezone", "system"):
        return _read_local_zone_name()  # "system" would mean the worker's own zone
    return value


def _read_local_zone_name() -> str | None:
    from airflow import settings

    name = getattr(settings.TIMEZONE, "name", None)
    return name if isinstance(name, str) else None
