"""What a worker reports about itself when it opens a session: its machine, and its capabilities."""

from __future__ import annotations

import platform

from airflow_remote_protocol.messages import Facts
from airflow_remote_protocol.version import Capability

from airflow_remote_worker import __version__, system
from airflow_remote_worker.config import Config, ConfigError

CAPABILITIES = frozenset(
    {
        Capability.TASK,
        Capability.CALLBACK,
        Capability.CONNECTION_TEST,
        Capability.GZIP_LOG,
        Capability.WORKER_LOG,
        Capability.RESTART,
        Capability.RUNTIME,
        Capability.USAGE,
        Capability.BUNDLES,
    }
)


def facts(platform_of_runtimes: str = "", platform_of_releases: str = "") -> Facts:
    """Return the facts about this machine, and the platforms of the interpreters that runtimes and releases from central use."""
    return Facts(
        hostname=platform.node()[:255],
        os=f"{platform.system()} {platform.release()}"[:100],
        arch=platform.machine()[:50],
        python=platform.python_version(),
        version=__version__,
        platform=platform_of_runtimes,
        release_platform=platform_of_releases,
    )


def capabilities(config: Config, platform_of_runtimes: str = "", platform_of_releases: str = "") -> frozenset[Capability]:
    """Return the capabilities of this worker with *config*.

    Raises:
        ConfigError: tasks can't run as the configured user.
    """
    able = CAPABILITIES | ({Capability.TRIGGER} if system.CAN_FORK and config.triggers else frozenset())
    able |= {Capability.RUNTIMES} if platform_of_runtimes else frozenset()
    able |= {Capability.RELEASES} if platform_of_releases else frozenset()
    users = {"run_as_user": config.run_as_user}
    users |= {f"queues.{queue}.run_as_user": own.run_as_user for queue, own in config.queues.items()}
    if not any(users.values()):
        return able
    for setting, name in users.items():
        try:
            if name:
                system.find_user(name)
        except (ValueError, PermissionError) as error:
            raise ConfigError(f"{setting}: {error}") from None
    return able - {Capability.CONNECTION_TEST}  # the Task SDK tests connections in the shim itself, which stays root
