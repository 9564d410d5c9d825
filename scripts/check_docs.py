"""Checks that documents which repeat the code still agree with it.

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
sys.path.insert(0, str(ROOT))
from deploy import sboms  # noqa: E402 - it is no installed package

# (document, name of its block, what must stand between <!-- name:begin --> and <!-- name:end -->)
BLOCKS: list[tuple[str, str, Callable[[], str]]] = [
    ("docs/reference/configuration.md", "central-options", reference.central_options),
    ("docs/reference/configuration.md", "task-settings", reference.task_settings),
    ("docs/reference/configuration.md", "worker-settings", reference.worker_settings),
    ("docs/reference/configuration.md", "worker-commands", reference.worker_commands),
    ("docs/reference/grants.md", "rules", reference.grant_rules),
    ("docs/reference/metrics.md", "metrics", reference.metrics),
    ("docs/reference/cli.md", "commands", lambda: _printed("scripts/cli_reference.py")),
    ("docs/reference/rest.md", "routes", lambda: _printed("scripts/rest_reference.py")),
    ("docs/protocol.md", "states", lambda: f"```mermaid\n{render_mermaid().strip()}\n```"),
    ("docs/README.md", "decisions", lambda: _decisions()),
]

# (file, all that must stand in it)
FILES: list[tuple[str, Callable[[], str]]] = [
    ("deploy/systemd/airflow-remote-worker.service", lambda: UNIT.render()),
    ("protocol/sbom.cdx.json", lambda: sboms.render(ROOT / "protocol")),
    ("worker/sbom.cdx.json", lambda: sboms.render(ROOT / "worker")),
    ("provider/sbom.cdx.json", lambda: sboms.render(ROOT / "provider")),
]
UNIT = Unit(
    ("/opt/airflow-remote-worker/bin/airflow-remote-worker",), Path("/var/lib/airflow-remote-worker"), user="airflow-worker"
)


def main() -> int:
    write = "--write" in sys.argv[1:]
    wrong = [*_blocks(write=write), *_files(write=write), *_messages(), *_links(), *_locks(), *_adrs(), *_claims()]
    wrong += [*_paths(), *_index()]
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


def _printed(script: str) -> str:
    """Return what a script prints that needs Airflow, which this environment doesn't have."""
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
        # Halves and a new middle; the body may hold backslashes, so it can't be a replacement pattern.
        before, after = text.split(f"<!-- {name}:begin -->\n")[0], text.split(f"<!-- {name}:end -->")[1]
        renewed = f"{before}<!-- {name}:begin -->\n{expected()}\n<!-- {name}:end -->{after}"
        if renewed == text:
            continue
        if write:
            path.write_text(renewed, encoding="utf-8")
        else:
            wrong.append(f"{document}: the block {name!r} no longer says what the code says; run scripts/check_docs.py --write")
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
            wrong.append(f"{name}: no longer says what the code says; run scripts/check_docs.py --write")
    return wrong


MESSAGES = "docs/howto/troubleshooting.md"
NOT_OURS = {'sudo: The "no new privileges" flag is set'}
"""Quoted there, but said by others."""


def _messages() -> list[str]:
    """Every message that the troubleshooting page quotes is still in the sources: its parts in order, in one string."""
    texts = [text for package in ("protocol", "worker", "provider") for text in _strings(ROOT / package / "src")]
    texts += _strings_of(ROOT / "provider/hatch_build.py")
    quoted = re.findall(r"^### `(.+)`$", (ROOT / MESSAGES).read_text(encoding="utf-8"), re.MULTILINE)
    wrong = [] if quoted else [f"{MESSAGES}: quotes no message at all"]
    for message in quoted:
        parts = [re.escape(part.strip()) for part in message.split("…") if part.strip()]
        pattern = re.compile(".*".join(parts), re.DOTALL)
        if message not in NOT_OURS and not any(pattern.search(text) for text in texts):
            wrong.append(f"{MESSAGES}: nothing in the sources says {message!r} any more")
    return wrong


def _strings(root: Path) -> list[str]:
    """Return every string of the sources below *root*, with … for what an f-string fills in."""
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
    """Links within the repository lead somewhere, down to the heading."""
    wrong = []
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")]:
        text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            there = (path.parent / name).resolve() if name else path
            if not there.exists():
                wrong.append(f"{path.relative_to(ROOT)}: {target} leads nowhere")
            elif anchor and anchor not in _anchors(there):
                wrong.append(f"{path.relative_to(ROOT)}: {target} names no heading of that page")
    return wrong


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def _locks() -> list[str]:
    """Locks name packages and hashes, never the place of a download."""
    return [
        f"{path.relative_to(ROOT)}:{number}: names an index or a path"
        for path in sorted((ROOT / "requirements").glob("*.lock"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if re.match(r"\s*(-i|--index|--extra-index|--find-links|.*\s@\s)", line) and not line.lstrip().startswith("#")
    ]


CLAIMS: dict[str, tuple[str, ...]] = {
    "README.md": (),
    "docs/explain/security.md": ("hostile/", "api/", "ledger/", "stores/", "definitions/"),
}
"""Pages with tables whose last column, *shown by*, names tests, and the parts of `provider/tests/` that each names without it."""


def _claims() -> list[str]:
    """Return what is wrong with the claims: each row of such a table names a test or a page, and each test exists.

    The security model names tests only. That a linked page exists is checked with the other links.
    """
    wrong = []
    for page, short in CLAIMS.items():
        text = (ROOT / page).read_text(encoding="utf-8")
        wrong += [
            f"{page}: names the test {name}{'::' if test else ''}{test}, which does not exist"
            for name, test in dict.fromkeys(re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", text))
            if not _has_test(ROOT / ("provider/tests" if short and name.startswith(short) else ".") / name, test)
        ]
        tables = re.findall(r"(?m)^\|[^\n]*shown by \|\n\|[-|]+\|\n((?:\|.*\n)+)", text)
        wrong += [] if tables else [f"{page}: has no table whose last column is 'shown by'"]
        for table in tables:
            rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]
            shown = re.compile(r"\.py(::\w+)?`" if short else r"\.py(::\w+)?`|\.md\)")
            wrong += [f"{page}: nothing shows: {row[0]}" for row in rows if not shown.search(row[-1])]
    return wrong


def _has_test(path: Path, test: str) -> bool:
    """Return whether the file exists, and has the function *test*; empty: any."""
    return path.is_file() and (not test or f"def {test}(" in path.read_text(encoding="utf-8"))


OVERVIEWS = ("ARCHITECTURE.md", "CONTRIBUTING.md", "docs/explain/survival.md", "docs/reference/conformance.md")
ELSEWHERE = {"quarantine/"}
"""Named there, but in a worker's state directory."""
PACKAGES = (
    ROOT / "protocol/src/airflow_remote_protocol",
    ROOT / "worker/src/airflow_remote_worker",
    ROOT / "provider/src/airflow_remote_provider",
)


def _paths() -> list[str]:
    """Return the files and directories that the overviews name and that exist neither here nor in one of the packages."""
    wrong = []
    for page in OVERVIEWS:
        text = re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
        for name in dict.fromkeys(re.findall(r"`((?:[\w.-]+/)*[\w-]+(?:\.(?:py|tsx?|md|lock)|/))`", text)):
            places = [root / name for root in (ROOT, *PACKAGES)]
            if name not in ELSEWHERE and not any(place.is_dir() if name.endswith("/") else place.is_file() for place in places):
                wrong.append(f"{page}: names {name}, which does not exist")
    return wrong


def _index() -> list[str]:
    """Return the pages under docs/ that its list of pages lacks."""
    index = ROOT / "docs/README.md"
    links = {target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", index.read_text(encoding="utf-8"))}
    pages = {path.relative_to(index.parent).as_posix() for path in index.parent.rglob("*.md")} - {"README.md"}
    return [f"docs/README.md: does not list {page}" for page in sorted(pages - links)]


def _decisions() -> str:
    """Return links to all decisions, by number."""
    lines = []
    for path in sorted((ROOT / "docs/adr").glob("[0-9][0-9][0-9][0-9]-*.md")):
        number, _, title = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ").partition(". ")
        if number != "0000":
            lines.append(f"- [{number}](adr/{path.name}): {title}")
    return "\n".join(lines)


def _adrs() -> list[str]:
    """Decisions are numbered without gaps and say what became of them."""
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
