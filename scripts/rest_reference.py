"""Prints the table of the REST API, made from its OpenAPI document. Runs in the environment with Airflow, `.work/central`."""

from __future__ import annotations

import os
import tempfile
from typing import Any

GROUPS = (
    "workers",
    "enrolment tokens",
    "queues",
    "policies",
    "jobs",
    "incidents",
    "bundles",
    "runtimes",
    "releases",
    "statements",
    "audit",
    "",
)


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        os.environ["AIRFLOW_HOME"] = home  # Airflow writes its configuration where it is imported
        from airflow_remote_provider.api.ui_v1.app import create_rest_api, document

        print("\n".join(_lines(document(create_rest_api()))))


def _lines(described: dict[str, Any]) -> list[str]:
    routes = [(method.upper(), path, about) for path, methods in described["paths"].items() for method, about in methods.items()]
    lines = ["| call | what it does | takes |", "|---|---|---|"]
    for group in GROUPS:
        for method, path, about in routes:
            if about.get("tags", [""])[-1] == group:
                text = " ".join(part for part in (about["summary"] + ".", about.get("description", "")) if part)
                lines.append(f"| `{method} {path}` | {text} | {_takes(described, about)} |")
    return lines


def _takes(described: dict[str, Any], about: dict[str, Any]) -> str:
    query = [f"`{one['name']}`" for one in about.get("parameters", []) if one["in"] == "query"]
    body = about.get("requestBody")
    if body and "application/json" not in body["content"]:
        query.append("bytes")
    elif body:
        name = body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        schema = described["components"]["schemas"][name]
        needed = set(schema.get("required", []))
        query += [f"`{field}`" + ("" if field in needed else " (optional)") for field in schema["properties"]]
    return ", ".join(query)


if __name__ == "__main__":
    main()
