"""Checks that the parts of documents that repeat the code agree with it.

Run by `make check`; `--write` brings the documents up to date instead.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import reference
from airflow_remote_protocol.states import render_mermaid
from airflow_remote_worker.system.service_unit import Unit

ROOT = Path(__file__).parent.parent

# (document, name of its block, the text that belongs between <!-- name:begin --> and <!-- name:end -->)
BLOCKS: list[tuple[str, str, Callable[[], str]]] = [
    ("docs/reference/configuration.md", "central-options", reference.central_options),
    ("docs/reference/configuration.md", "task-settings", reference.task_settings),
    ("docs/reference/configuration.md", "worker-settings", reference.worker_settings),
    ("docs/reference/configuration.md", "worker-commands", reference.worker_commands),
    ("docs/reference/grants.md", "rules", reference.grant_rules),
    ("docs/reference/metrics.md", "metrics", reference.metrics),
    ("docs/reference/cli.md", "commands", lambda: _output_of("scripts/cli_reference.py")),
    ("docs/reference/rest.md", "routes", lambda: _output_of("scripts/rest_reference.py")),
    ("docs/protocol.md", "states", lambda: f"```mermaid\n{render_mermaid().strip()}\n```"),
]

# (file, its whole text)
FILES: list[tuple[str, Callable[[], str]]] = [
    ("deploy/systemd/airflow-remote-worker.service", lambda: UNIT.render()),
]
UNIT = Unit(
    ("/opt/airflow-remote-worker/bin/airflow-remote-worker",), Path("/var/lib/airflow-remote-worker"), user="airflow-worker"
)


def main() -> int:
    write = "--write" in sys.argv[1:]
    wrong = [*_blocks(write=write), *_files(write=write), *_messages(), *_links(), *_locks(), *_adrs(), *_claims()]
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


def _output_of(script: str) -> str:
    """Return the output of a script that needs Airflow, which this environment doesn't have."""
    python = ROOT / ".work/central/bin/python"
    done = subprocess.run([python, "-W", "ignore", ROOT / script], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{script} failed:\n{done.stderr}")
    return done.stdout.strip()


def _blocks(*, write: bool) -> list[str]:
    wrong = []
    for document, name, expected in BLOCKS:
        path = ROOT / document
        text = path.read_text(encoding="utf-8")
        pattern = re.compile(rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
        if not pattern.search(text):
            wrong.append(f"{document}: the block {name!r} is missing")
            continue
        # The parts before and after, and a new middle; the body can contain backslashes, so it can't be a replacement pattern.
        before, after = text.split(f"<!-- {name}:begin -->\n")[0], text.split(f"<!-- {name}:end -->")[1]
        renewed = f"{before}<!-- {name}:begin -->\n{expected()}\n<!-- {name}:end -->{after}"
        if renewed == text:
            continue
        if write:
            path.write_text(renewed, encoding="utf-8")
        else:
            wrong.append(f"{document}: the block {name!r} differs from the code; run scripts/check_docs.py --write")
    return wrong


def _files(*, write: bool) -> list[str]:
    wrong = []
    for name, expected in FILES:
        path = ROOT / name
        if path.exists() and path.read_text(encoding="utf-8") == expected():
            continue
        if write:
            path.write_text(expected(), encoding="utf-8")
        else:
            wrong.append(f"{name}: differs from the code; run scripts/check_docs.py --write")
    return wrong


MESSAGES = "docs/howto/troubleshooting.md"
NOT_OURS = {'sudo: The "no new privileges" flag is set'}
"""Messages of other programs that the page quotes."""


def _messages() -> list[str]:
    """Return the messages quoted by the troubleshooting page that no string of the sources contains, part by part in order."""
    texts = [text for package in ("protocol", "worker", "provider") for text in _strings(ROOT / package / "src")]
    texts += _strings_of(ROOT / "provider/hatch_build.py")
    quoted = re.findall(r"^### `(.+)`$", (ROOT / MESSAGES).read_text(encoding="utf-8"), re.MULTILINE)
    wrong = [] if quoted else [f"{MESSAGES}: quotes no message"]
    for message in quoted:
        parts = [re.escape(part.strip()) for part in message.split("…") if part.strip()]
        pattern = re.compile(".*".join(parts), re.DOTALL)
        if message not in NOT_OURS and not any(pattern.search(text) for text in texts):
            wrong.append(f"{MESSAGES}: no string in the sources contains {message!r}")
    return wrong


def _strings(root: Path) -> list[str]:
    """Return every string of the sources below *root*, with … in place of what an f-string fills in."""
    return [text for path in root.rglob("*.py") for text in _strings_of(path)]


def _strings_of(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
            found.append("".join(map(str, parts)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(re.sub(r"%(\.\d+)?[sdfr]", "…", node.value))
    return found


def _links() -> list[str]:
    """Return the links within the repository whose file or heading does not exist."""
    wrong = []
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")]:
        text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            there = (path.parent / name).resolve() if name else path
            if not there.exists():
                wrong.append(f"{path.relative_to(ROOT)}: {target} does not exist")
            elif anchor and anchor not in _anchors(there):
                wrong.append(f"{path.relative_to(ROOT)}: {target} names no heading of that page")
    return wrong


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def _locks() -> list[str]:
    """Return the lines of locks that name an index or a path: locks contain only packages and hashes."""
    return [
        f"{path.relative_to(ROOT)}:{number}: names an index or a path"
        for path in sorted((ROOT / "requirements").glob("*.lock"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if re.match(r"\s*(-i|--index|--extra-index|--find-links|.*\s@\s)", line) and not line.lstrip().startswith("#")
    ]


CLAIMS = ROOT / "docs/explain/security.md"
SHORT = ("hostile/", "api/", "ledger/", "stores/", "definitions/")
"""Directories below `provider/tests/` that the security model names without that prefix."""


def _claims() -> list[str]:
    """Return the claims in the security model's tables that name no test, and the named tests that do not exist."""
    text = CLAIMS.read_text(encoding="utf-8")
    wrong = [
        f"{CLAIMS.relative_to(ROOT)}: names the test {name}, which does not exist"
        for name in dict.fromkeys(re.findall(r"`([\w/]+\.py)`", text))
        if not (ROOT / ("provider/tests" if name.startswith(SHORT) else ".") / name).is_file()
    ]
    for table in re.findall(r"(?m)^\|[^\n]*shown by \|\n\|[-|]+\|\n((?:\|.*\n)+)", text):
        rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]
        wrong += [f"{CLAIMS.relative_to(ROOT)}: no test shows: {row[0]}" for row in rows if ".py`" not in row[-1]]
    return wrong


def _adrs() -> list[str]:
    """Return the decisions that break the numbering without gaps, or that have no status."""
    paths = sorted((ROOT / "docs/adr").glob("[0-9][0-9][0-9][0-9]-*.md"))
    wrong = [
        f"{path.relative_to(ROOT)}: should be number {number:04}"
        for number, path in enumerate(paths)
        if not path.name.startswith(f"{number:04}-")
    ]
    wrong += [
        f"{path.relative_to(ROOT)}: has no line 'Status:'"
        for path in paths
        if "\nStatus: " not in path.read_text(encoding="utf-8")
    ]
    return wrong


if __name__ == "__main__":
    sys.exit(main())
