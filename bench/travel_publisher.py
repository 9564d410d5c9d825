"""A publisher that publishes the bundle `dags-folder` for each line of its input, and prints how many seconds that took.

Run by :mod:`bench.travel` with central's environment.
"""

from __future__ import annotations

import json
import sys
import time

from airflow_remote_provider import compat
from airflow_remote_provider.packing.publish import Publisher, Result
from airflow_remote_provider.packing.scan import Limits
from airflow_remote_provider.settings import settings
from airflow_remote_provider.stores.blobs.opened import BlobStores

BUNDLE = "dags-folder"


def main() -> int:
    options = settings()
    limits = Limits(options.tree_files, options.tree_bytes, options.blob_bytes)
    publisher = Publisher(compat.bundle_sources(), BlobStores(options.blob_store).newest, limits, who="bench")
    answer("ready")
    for _ in sys.stdin:
        begin = time.perf_counter()
        outcome = publisher.publish(BUNDLE)
        took = time.perf_counter() - begin
        if outcome.what is Result.FAILED:
            raise RuntimeError(outcome.trouble)
        answer(took)
    return 0


def answer(value: object) -> None:
    print(f"answer {json.dumps(value)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
