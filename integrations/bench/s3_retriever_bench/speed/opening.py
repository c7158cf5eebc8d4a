"""What it takes a fresh process to open an index."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from s3_retriever.errors import IndexStoreError

_PROCESSES = 3
_CHILD = """\
import json, sys, time
from pathlib import Path
from s3_retriever.index import Store

def private():
    try:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))

before = private()
started = time.perf_counter()
store = Store.open(Path(sys.argv[1]))
snapshot = store.snapshot()
seconds = time.perf_counter() - started
after = private()
size = None if before is None or after is None else after - before
print(json.dumps({"seconds": seconds, "private": size}))
"""


def time_opening(path: Path) -> dict[str, Any]:
    """Open an index in fresh processes that load no model.

    No other process may have it open: a page that two have mapped is private to neither.

    Args:
        path: Folder of the index.

    Returns:
        JSON values, medians of three: `open_seconds`, and `open_private_bytes`, the private
        memory that opening took, None where the system does not tell (it is Linux that does).

    Raises:
        IndexStoreError: It cannot be opened.
    """
    made = [_open(path) for _ in range(_PROCESSES)]
    sizes = [one["private"] for one in made if one["private"] is not None]
    return {
        "open_seconds": round(median(one["seconds"] for one in made), 4),
        "open_private_bytes": int(median(sizes)) if sizes else None,
    }


def _open(path: Path) -> dict[str, Any]:
    command = [sys.executable, "-c", _CHILD, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise IndexStoreError(
            f"A fresh process could not open the index at {path} ({reason}); check that the "
            "package is installed for this Python."
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found
