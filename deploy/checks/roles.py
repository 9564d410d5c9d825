"""The Ansible role: linted, and run on this machine against the fake central: install and join, again, and remove."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from airflow_remote_worker.testing.fake_central import FakeCentral

from deploy.checks.running import ROOT, CheckFailed, run

COLLECTION = ROOT / "deploy/ansible"
PROFILE = "production"


def check() -> dict[str, Any]:
    """Lint the collection; run its role three times, in directories of its own."""
    run("ansible-lint", "--profile", PROFILE, "--offline", "--nocolor", cwd=COLLECTION)
    with tempfile.TemporaryDirectory() as directory, FakeCentral() as central:
        place = Path(directory)
        wheels = build_wheels(place / "dist")
        (place / "units").mkdir()
        variables = {
            "worker_central_url": central.url,
            "worker_name": "plant-7-a",
            "worker_enrolment_token": central.enrolment_token(["plant-7"]),
            "worker_prefix": str(place / "prefix"),
            "worker_state": str(place / "state"),
            "worker_unit": "airflow-remote-worker-check",
            "worker_unit_directory": str(place / "units"),
            "worker_user": "root",
            "worker_system_packages": [],
            "worker_python": sys.executable,
            "worker_wheels": [str(wheel) for wheel in wheels],
            "worker_config": "slots = 2\n",
        }
        first = play(place, variables)
        if not (place / "state/credential.json").exists() or not list((place / "units").iterdir()):
            raise CheckFailed("the role ended without a credential or without a unit")
        again = play(place, variables)
        if again["changed"]:
            raise CheckFailed(f"the second run of the role changed {again['changed']} things, and must change nothing")
        play(place, {**variables, "worker_ensure": "absent", "worker_remove_state": True})
        if left := [path.name for path in (place / "prefix", place / "state", *(place / "units").iterdir()) if path.exists()]:
            raise CheckFailed(f"the role left {', '.join(left)} behind when it removed the worker")
    return {"profile": PROFILE, "changed": first["changed"], "changed_again": again["changed"]}


def build_wheels(directory: Path) -> list[Path]:
    """Return the wheels of protocol and worker."""
    for project in ("protocol", "worker"):
        run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", directory, cwd=ROOT / project)
    return sorted(directory.glob("*.whl"))


def play(place: Path, variables: dict[str, Any]) -> dict[str, int]:
    """Run the role on this machine; return the figures of Ansible's recap."""
    playbook, extra = place / "play.json", place / "variables.json"
    playbook.write_text(json.dumps([{"hosts": "localhost", "connection": "local", "roles": [str(COLLECTION / "roles/worker")]}]))
    # As root, `su` asks for no password; a machine need not have sudo.
    extra.write_text(json.dumps({**variables, "ansible_become_method": "su", "ansible_python_interpreter": sys.executable}))
    environment = {
        "ANSIBLE_LOCAL_TEMP": str(place / "local"),
        "ANSIBLE_REMOTE_TEMP": str(place / "remote"),
        "ANSIBLE_NOCOLOR": "1",
        "LC_ALL": "C.UTF-8",
    }
    command = ("ansible-playbook", "--inventory", "localhost,", "--extra-vars", f"@{extra}", playbook)
    recap = run(*command, env=environment, timeout_s=600).partition("PLAY RECAP")[2]
    return {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", recap)}
