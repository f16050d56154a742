"""Seconds that `zerovl.load` of a cached release takes while its store is away (docs/registry.md, "On other machines").

    python -m benchmarks.store_away MODEL        # a bundle's folder; two minutes, on a machine that does nothing else

Each load is a process of its own, from the start of `zerovl.load` to the model, torch's import among it. The bucket's
server takes connections and says nothing, or is at an address that drops what is sent to it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.common import RESULTS, Record, Results, summary
from zerovl.registry import cache, fetch, release_files
from zerovl.registry.records import Move, now
from zerovl.registry.registry import Registry
from zerovl.registry.stores import open_store

LABELS = ("1", "production")
S3 = "s3://models/team"
DROPS = "http://192.0.2.1:9"  # of a net that is kept for examples (RFC 5737): nobody routes to it
_LOAD = """
import json, sys, time
start = time.perf_counter()
import zerovl
zerovl.load(sys.argv[1], device="cpu")
print(json.dumps({"wall": time.perf_counter() - start, "cpu": time.process_time()}))
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL", help="a bundle's folder")
    parser.add_argument("--rounds", type=int, default=3, help="loads of each kind")
    parser.add_argument("--out", type=Path, default=RESULTS / "away.json", help="result file")
    options = parser.parse_args(arguments)
    results = Results(options.out, {"rounds": options.rounds})
    with tempfile.TemporaryDirectory() as folder, silent_server() as silent:
        os.environ |= {"ZEROVL_CACHE": f"{folder}/cache", "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
        os.environ["AWS_REGION"] = "us-east-1"
        here = f"{folder}/store"
        release(options.model, here)
        kinds = {
            "a folder that answers": (here, ""),
            "a silent server": (S3, silent),
            "an address that drops": (S3, DROPS),
        }
        for kind, (store, endpoint) in kinds.items():
            environment = {**os.environ, **({"AWS_ENDPOINT_URL_S3": endpoint} if endpoint else {})}
            if endpoint:
                share_cache(here, endpoint)
            for label in LABELS:
                results.add(kind, label, timed(f"{store}/zerovl@{label}", environment, options.rounds))
    return results.status()


@contextmanager
def silent_server() -> Iterator[str]:
    """Take connections and say nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def release(model: Path, store: str) -> None:
    """Publish a bundle, give it an alias, and bring it into the cache by number and alias."""
    registry = Registry(open_store(store))
    registry.publish("zerovl", release_files.collect(model), metrics={}, provenance={}, by="benchmark")
    registry.append(Move("zerovl", "production", 1, "promote", 1, now(), "benchmark", "", None))
    for label in LABELS:
        fetch.resolve(f"{store}/zerovl@{label}")


def share_cache(store: str, endpoint: str) -> None:
    """Let the cache have the release as one that came from the bucket, which nobody could ask for it."""
    os.environ["AWS_ENDPOINT_URL_S3"] = endpoint
    shutil.copytree(cache.store_folder(open_store(store)), cache.store_folder(open_store(S3)))


def timed(reference: str, environment: Mapping[str, str], rounds: int) -> Record:
    """Return wall and CPU seconds of a load in a process of its own."""
    found = []
    for _ in range(rounds):
        done = subprocess.run(
            [sys.executable, "-c", _LOAD, reference], env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        found.append(json.loads(done.stdout))
    return {**summary([its["wall"] for its in found]), "cpu": summary([its["cpu"] for its in found])["seconds"]}


if __name__ == "__main__":
    sys.exit(main())
