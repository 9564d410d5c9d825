"""What tasks at a site are to know of central's configuration. Which options, and why: the protocol's `task_settings`."""

from __future__ import annotations

import logging

from airflow_remote_protocol.messages import TaskSettings
from airflow_remote_protocol.task_settings import OPTIONS, revision_of, usable

log = logging.getLogger(__name__)


def read() -> TaskSettings:
    """Return what Airflow's configuration says in this process. An option that can't be read or sent is left out, and logged."""
    values = {}
    for name in OPTIONS:
        try:
            value = _value(*name.split(".", 1))
        except Exception as error:
            log.warning("[%s] %s can't be read and is not sent to workers: %s", *name.split(".", 1), error)
            continue
        if value is not None:
            values[name] = value
    sent = usable(values)
    for name in values.keys() - sent.keys():
        log.warning(
            "[%s] %s is not sent to workers, because its value may not leave central or can't be passed on; set it at each site",
            *name.split(".", 1),
        )
    return TaskSettings(revision_of(sent), sent)


def _value(section: str, option: str) -> str | None:
    from airflow.configuration import conf

    value: str | None = conf.get(section, option, fallback=None)
    if (section, option, value) == ("core", "default_timezone", "system"):
        return _name_of_local_zone()  # there it would be another machine's
    return value


def _name_of_local_zone() -> str | None:
    from airflow import settings

    name = getattr(settings.TIMEZONE, "name", None)
    return name if isinstance(name, str) else None
