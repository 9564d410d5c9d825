"""Checks that ui/src/types.ts agrees with the responses that the REST API declares in its OpenAPI document.

It writes the declared responses as TypeScript and lets the compiler assign each to the dashboard's type. A field that is renamed,
removed or of another type on either side fails the check. Fields that only the API has are allowed: the dashboard need not show
them.

Runs in the environment with Airflow, `.work/central`. Needs the dashboard's node modules (`scripts/environments ui`).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / "ui/src"
TYPES = SOURCES / "types.ts"

Schema = dict[str, Any]
Document = dict[str, Any]

ANSWERS = {
    "Me": "GET /me",
    "Summary": "GET /summary",
    "FleetCount": "GET /fleet",
    "Worker": "GET /workers/{name}",
    "Listed<Worker>": "GET /workers",
    "BulkResult": "POST /workers/actions",
    "LogLines": "GET /workers/{name}/log",
    "Listed<Queue>": "GET /queues",
    "Listed<Policy>": "GET /policies",
    "Listed<History>": "GET /history/{kind}",
    "Job": "GET /jobs/{job_id}",
    "Listed<Job>": "GET /jobs",
    "Waiting": "GET /jobs/{job_id}/waiting",
    "Listed<Bundle>": "GET /bundles",
    "BundleDetails": "GET /bundles/{bundle}",
    "Bundle": "POST /bundles/{bundle}/publish",
    "Listed<Runtime>": "GET /runtimes",
    "RuntimeDetails": "GET /runtimes/{runtime}",
    "Runtime": "POST /runtimes/{runtime}/roll",
    "ReleasesDetails": "GET /releases",
    "ReleasesSummary": "POST /releases/roll",
    "Listed<Incident>": "GET /incidents",
    "Listed<AuditEntry>": "GET /audit",
    "Listed<Access>": "GET /accesses",
    "Listed<Token>": "GET /enrolment-tokens",
    "MadeToken": "POST /enrolment-tokens",
}
"""The dashboard's type → the route whose response it describes."""

VALUES = {
    ("GET /workers/{name}", "presence"): ("GET /workers", "presence"),
    ("GET /workers/{name}", "intent"): ("GET /workers", "intent"),
    ("GET /jobs/{job_id}", "state"): ("GET /jobs", "state"),
    ("GET /accesses", "answer"): ("GET /accesses", "answer"),
    ("GET /policies", "mode"): ("PUT /policies/{queue}/mode", "mode"),
}
"""Response fields that are declared as any text → the parameter or body field that declares their values."""


def main() -> int:
    with tempfile.TemporaryDirectory() as home:
        os.environ["AIRFLOW_HOME"] = home  # Airflow writes its configuration where it is imported
        from airflow_remote_provider.api.ui_v1.app import create_rest_api, document

        described = document(create_rest_api())
    wrong = [*_unchecked(), *_optional()] or _differences(described)
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


def _unchecked() -> list[str]:
    """Return the types that this script does not check: they are neither in ANSWERS nor part of a type in ANSWERS."""
    text = TYPES.read_text(encoding="utf-8")
    names = re.findall(r"^export interface (\w+)", text, re.MULTILINE)
    checked = set(re.findall(r"\w+", " ".join(ANSWERS)))
    used = {name for name in names if re.search(rf": {name}\b", text)}
    wrong = [f"ui/src/types.ts: {name} is not in ANSWERS; add it with its route" for name in names if name not in checked | used]
    for path in sorted(SOURCES.rglob("*.ts*")):
        text = path.read_text(encoding="utf-8")
        reads = re.findall(r"\b(?:read|act)<(\w+(?:<\w+>)?|\{[^}]*\})>\(", text)
        reads += [f"Listed<{row}>" for row in re.findall(r"\busePagedList<(\w+)>\(", text)]
        wrong += [
            f"{path.relative_to(ROOT)}: reads a response as {read}, which is not in ANSWERS"
            for read in reads
            if read not in ANSWERS and read not in ("T", "Listed<T>")
        ]
    return wrong


def _optional() -> list[str]:
    """Return the fields that are marked as optional: a field that the API doesn't have would pass the check as absent."""
    fields = re.findall(r"^ +(\w+)\?:", TYPES.read_text(encoding="utf-8"), re.MULTILINE)
    return [f"ui/src/types.ts: the field {field} is optional; the API always sends it, or null" for field in fields]


def _differences(described: Document) -> list[str]:
    for (route, field), (other, parameter) in VALUES.items():
        _set_values(described, route, field, _values(described, other, parameter))
    names = ", ".join(sorted(set(re.findall(r"\w+", " ".join(ANSWERS)))))
    checks = [f'import type {{ {names} }} from "{SOURCES}/types";', 'import type * as api from "./api";', ""]
    checks += ["type Answered<Shown, Answer extends Shown> = [Shown, Answer];"]
    first = len(checks) + 1
    checks += [
        f"export type _{at} = Answered<{ours}, {_typed(_answer(described, ANSWERS[ours]))}>;" for at, ours in enumerate(ANSWERS)
    ]
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "api.ts").write_text("\n".join(_declared(described)), encoding="utf-8")
        (Path(directory) / "checks.ts").write_text("\n".join(checks), encoding="utf-8")
        compiler = ROOT / "ui/node_modules/.bin/tsc"
        options = ["--noEmit", "--strict", "--skipLibCheck", "--target", "es2022", "--module", "esnext"]
        options += ["--moduleResolution", "bundler", "--pretty", "false"]
        done = subprocess.run([compiler, *options, "checks.ts"], cwd=directory, capture_output=True, text=True)
    found = re.findall(r"^checks\.ts\((\d+),\d+\): error TS2344: .*\n((?:  .*\n)*)", done.stdout, re.MULTILINE)
    if done.returncode != 0 and not found:
        return [f"the TypeScript compiler failed:\n{done.stdout}{done.stderr}"]
    differences = []
    for line, causes in found:
        ours, route = list(ANSWERS.items())[int(line) - first]
        differences.append(f"ui/src/types.ts: the response of {route} is not a {ours}:\n{causes.rstrip()}")
    return differences


def _declared(described: Document) -> list[str]:
    """Return the API's schemas as declarations; objects become interfaces, whose names the compiler shows in its messages."""
    declared = []
    for name, schema in described["components"]["schemas"].items():
        typed = _typed(schema).replace("api.", "")
        declared.append(f"export interface {name} {typed}" if "properties" in schema else f"export type {name} = {typed};")
    return declared


def _typed(schema: Schema) -> str:
    """Return *schema* as a TypeScript type. All fields are required: the API also sends those with a default."""
    if "$ref" in schema:
        return f"api.{schema['$ref'].rpartition('/')[2]}"
    if "enum" in schema or "const" in schema:
        return " | ".join(map(json.dumps, schema.get("enum", [schema.get("const")])))
    if parts := schema.get("anyOf") or schema.get("oneOf"):
        return " | ".join(map(_typed, parts))
    match schema.get("type"):
        case "array":
            return f"({_typed(schema['items'])})[]"
        case "object" if "properties" in schema:
            return "{ " + " ".join(f"{name}: {_typed(field)};" for name, field in schema["properties"].items()) + " }"
        case "object":
            values = schema.get("additionalProperties")
            return f"Record<string, {_typed(values) if isinstance(values, dict) else 'unknown'}>"
        case "integer":
            return "number"
        case "string" | "number" | "boolean" | "null" as simple:
            return str(simple)
    raise SystemExit(f"scripts/check_ui_types.py: no TypeScript type is known for {schema}")


def _operation(described: Document, route: str) -> dict[str, Any]:
    method, path = route.split(" ")
    try:
        return dict(described["paths"][path][method.lower()])
    except KeyError:
        raise SystemExit(f"scripts/check_ui_types.py: the REST API has no route {route}") from None


def _answer(described: Document, route: str) -> Schema:
    responses = _operation(described, route)["responses"]
    status = next(status for status in responses if status.startswith("2"))
    return dict(responses[status]["content"]["application/json"]["schema"])


def _resolved(described: Document, schema: Schema) -> Schema:
    while "$ref" in schema:
        schema = described["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def _values(described: Document, route: str, name: str) -> list[str]:
    """Return the allowed values of a parameter or of a field of the body."""
    operation = _operation(described, route)
    schemas = {one["name"]: one["schema"] for one in operation.get("parameters", [])}
    if "requestBody" in operation:
        body = _resolved(described, operation["requestBody"]["content"]["application/json"]["schema"])
        schemas |= body["properties"]
    schema = _resolved(described, schemas[name])
    return list(_resolved(described, schema.get("items", schema))["enum"])


def _set_values(described: Document, route: str, field: str, values: list[str]) -> None:
    """Set the allowed values of a text field of a response, or of the items of a list."""
    answer = _resolved(described, _answer(described, route))
    if "items" in answer["properties"]:
        answer = _resolved(described, answer["properties"]["items"]["items"])
    schema = answer["properties"].get(field, {})
    for part in schema.get("anyOf", [schema]):
        if part.get("type") == "string":
            part["enum"] = values


if __name__ == "__main__":
    sys.exit(main())
