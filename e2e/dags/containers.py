"""Tasks in containers. The worker's environment names the Docker daemon; central only parses this file."""

from __future__ import annotations

import os

from airflow.providers.docker.operators.docker import DockerOperator
from airflow.sdk import Param, dag

CONTAINER = {
    "executor": "RemoteExecutor",
    "queue": "harbour",
    "image": "localhost/busybox:latest",
    "docker_url": os.environ.get("DOCKER_HOST", "unix:///nowhere"),
    "network_mode": "host",
    "mount_tmp_dir": False,
    "auto_remove": "force",
}


@dag(schedule=None, params={"who": Param("nobody", type="string")})
def contained():
    DockerOperator(
        task_id="say",
        environment={"WHO": "{{ params.who }}"},
        command=["sh", "-c", "echo the first line; echo grüße $WHO, try {{ ti.try_number }}"],
        **CONTAINER,
    )


@dag(schedule=None)
def contained_failure():
    DockerOperator(task_id="fail", command=["sh", "-c", "echo before the end; exit 7"], **CONTAINER)


@dag(schedule=None, params={"name": Param("", type="string")})
def contained_wait():
    """Waits in a shell that is process 1: without the trap it would not receive SIGTERM."""
    DockerOperator(
        task_id="linger",
        container_name="{{ params.name }}",
        command=["sh", "-c", "trap 'exit 0' TERM; echo it runs; sleep 600 & wait"],
        **CONTAINER,
    )


contained()
contained_failure()
contained_wait()
