"""Describes this provider to Airflow's ProvidersManager, through the `apache_airflow_provider` entry point."""

from __future__ import annotations

from typing import Any

from airflow_remote_provider import __version__
from airflow_remote_provider.settings import OPTIONS, SWITCHES, TEXT_OPTIONS


def get_provider_info() -> dict[str, Any]:
    return {
        "package-name": "airflow-provider-remote",
        "name": "Remote",
        "description": "Runs tasks on Remote Workers that only make outbound HTTPS calls.",
        "versions": [__version__],
        "executors": ["airflow_remote_provider.executor.RemoteExecutor"],
        "db-managers": ["airflow_remote_provider.db.RemoteDBManager"],
        "cli": ["airflow_remote_provider.cli.get_remote_cli_commands"],
        "config": {
            "remote": {
                "description": "The Remote Executor and its worker API.",
                "options": {
                    name: {
                        "description": option.text,
                        "version_added": "0.1.0",
                        "type": "float",
                        "example": None,
                        "default": f"{option.default:g}" if option.default < 1e6 else str(int(option.default)),
                    }
                    for name, option in OPTIONS.items()
                }
                | {
                    name: {
                        "description": switch.text,
                        "version_added": "0.1.0",
                        "type": "boolean",
                        "example": None,
                        "default": str(switch.default),
                    }
                    for name, switch in SWITCHES.items()
                }
                | {
                    name: {
                        "description": option.text,
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": None,
                        "default": option.default,
                        **({"sensitive": True} if option.is_secret else {}),
                    }
                    for name, option in TEXT_OPTIONS.items()
                },
            }
        },
    }
