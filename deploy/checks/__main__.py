"""Runs the checks named as arguments (default: all). The last line is one JSON object with the figures of each check."""

from __future__ import annotations

import importlib
import json
import sys
import time
from typing import Any

from deploy.checks.running import CheckFailed

CHECKS = ("packages", "workflows", "charts", "units", "roles", "containerfiles")


def main(names: list[str]) -> int:
    unknown = set(names) - set(CHECKS)
    if unknown:
        print(f"no such check: {', '.join(sorted(unknown))}; there are {', '.join(CHECKS)}", file=sys.stderr)
        return 2
    figures: dict[str, Any] = {}
    failed = False
    for name in names or CHECKS:
        began = time.monotonic()
        try:
            figures[name] = importlib.import_module(f"deploy.checks.{name}").check()
        except CheckFailed as error:
            failed = True
            figures[name] = {"failed": str(error).splitlines()[0]}
            print(f"{name}: {error}", file=sys.stderr)
        figures[name]["seconds"] = round(time.monotonic() - began, 1)
        print(f"{name:<14} {figures[name]['seconds']:>6} s", flush=True)
    print(json.dumps(figures))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
