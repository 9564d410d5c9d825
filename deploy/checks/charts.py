"""The Helm chart: linted, rendered with random values, and valid for each supported version of Kubernetes."""

from __future__ import annotations

import functools
import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import kubernetes_validate.utils
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from deploy.checks.running import ROOT, CheckFailed, run

CHART = ROOT / "deploy/helm/airflow-remote-worker"
LEAST = CHART / "ci/least-values.yaml"
KUBERNETES = tuple(f"1.{minor}" for minor in range(30, 38))
RANDOM_VALUES = 500
REFUSED: tuple[dict[str, Any], ...] = (
    {},
    {"image": {"repository": "worker"}, "central": {"url": ""}},
    {"image": {"repository": "worker"}, "central": {"url": "airflow.example.com"}},
    {"image": {"repository": "worker"}, "central": {"url": "https://airflow.example.com"}, "replica": 3},
)
"""Values that the schema must refuse: missing, malformed, and misspelt."""


def check() -> dict[str, Any]:
    """Lint, render and validate the chart."""
    run("helm", "lint", "--strict", CHART, "--values", LEAST)
    for version in KUBERNETES:
        validate(run("helm", "template", "w", CHART, "--kube-version", version, "--values", LEAST), version)
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(2) as threads:
        for number, values in enumerate(REFUSED):
            refuse(Path(directory, f"refused-{number}.json"), values)
        drawn = random_values()
        files = [Path(directory, f"{number}.json") for number in range(len(drawn))]
        for file, values in zip(files, drawn, strict=True):
            file.write_text(json.dumps(values, ensure_ascii=False))
        rendered = threads.map(lambda file: run("helm", "template", "w", CHART, "--values", file), files)
        objects = sum(validate(text, KUBERNETES[-1]) for text in rendered)
    return {"kubernetes": len(KUBERNETES), "random_values": len(drawn), "objects": objects}


def validate(rendered: str, version: str) -> int:
    """Validate each object of *rendered*, strictly; return how many there are."""
    objects = [one for one in yaml.safe_load_all(rendered) if one]
    for one in objects:
        for error in validator(one["kind"], one["apiVersion"], version).iter_errors(one):
            named = f"{one['kind']} {one['metadata']['name']}"
            raise CheckFailed(f"{named} is not valid in Kubernetes {version}: {error.json_path}: {error.message}")
    return len(objects)


@functools.cache
def validator(kind: str, api_version: str, version: str) -> Draft202012Validator:
    """Return the validator for a kind of object. kubernetes_validate's own function reads 2 MB of schemas for each object."""
    full = next(known for known in kubernetes_validate.utils.all_versions() if known.startswith(f"{version}."))
    group, _, name = api_version.rpartition("/")
    prefix = f"{group.partition('.')[0]}-" if group else ""
    folder = f"kubernetes-json-schema/v{full}-local-strict"
    schema = kubernetes_validate.utils.schema_contents(f"{folder}/{kind.lower()}-{prefix}{name}.json", version)
    return Draft202012Validator(schema, registry=(Resource.from_contents(schema) @ definitions(folder, version)).crawl())


@functools.cache
def definitions(folder: str, version: str) -> Registry[Any]:
    """Return the definitions that a version's schemas share."""
    contents = kubernetes_validate.utils.schema_contents(f"{folder}/_definitions.json", version)
    return Resource.from_contents(contents) @ Registry()


def refuse(file: Path, values: dict[str, Any]) -> None:
    """Check that the schema refuses *values*."""
    file.write_text(json.dumps(values, ensure_ascii=False))
    try:
        run("helm", "template", "w", CHART, "--values", file)
    except CheckFailed:
        return
    raise CheckFailed(f"values.schema.json accepts {values}")


def random_values() -> list[dict[str, Any]]:
    """Return values that the chart's schema allows, the same each time."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    drawn: list[dict[str, Any]] = []

    @seed(18)
    @settings(
        max_examples=RANDOM_VALUES, phases=[Phase.generate], database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(strategy(schema))
    def draw(values: dict[str, Any]) -> None:
        drawn.append(values)

    draw()
    return drawn


def strategy(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Return what *schema* allows. Parts that only Kubernetes defines have `examples`, and are one of them."""
    if "examples" in schema:
        return st.sampled_from(schema["examples"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema["type"]:
        case "object":
            parts = {name: strategy(part) for name, part in schema["properties"].items()}
            required = schema.get("required", ())
            return st.fixed_dictionaries(
                {name: parts[name] for name in required},
                optional={name: part for name, part in parts.items() if name not in required},
            )
        case "array":
            return st.lists(strategy(schema["items"]), max_size=schema["maxItems"], unique_by=json.dumps)
        case "integer":
            return st.integers(schema["minimum"], schema["maximum"])
        case "boolean":
            return st.booleans()
        case "string" if "pattern" in schema:
            # `$` also matches before a final newline in Python, but not in the schema.
            return st.from_regex(schema["pattern"].replace("$", r"\Z"))
        case "string":
            return st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=schema["maxLength"])
    raise AssertionError(f"a schema of an unexpected type: {schema}")
