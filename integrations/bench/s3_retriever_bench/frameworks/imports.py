"""What importing a module costs a fresh process."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from typing import Any

from s3_retriever.errors import InputError

# Libraries that take seconds to import and that nobody needs before there is an index.
_SLOW = ["torch", "transformers"]
_CHILD = """\
import sys, time
before = set(sys.modules)
started = time.perf_counter()
__import__(sys.argv[1])
seconds = time.perf_counter() - started
import json
loaded = [name for name in sys.argv[2:] if name in sys.modules and name not in before]
print()
print(json.dumps({"seconds": seconds, "loaded": loaded}))
"""


def time_imports(module: str, times: int) -> dict[str, Any]:
    """Import a module in a fresh process, several times over.

    Args:
        module: Name of the module.
        times: Number of processes, one after the other.

    Returns:
        JSON values: `best_seconds` and `median_seconds` of the import alone, without the start of
        Python, `seconds` of each process, and `loaded`, which of torch and transformers any of
        them loaded with it.

    Raises:
        InputError: The module cannot be imported.
    """
    made = [_import(module) for _ in range(times)]
    seconds = [one["seconds"] for one in made]
    return {
        "best_seconds": round(min(seconds), 3),
        "median_seconds": round(statistics.median(seconds), 3),
        "seconds": [round(one, 3) for one in seconds],
        "loaded": sorted({name for one in made for name in one["loaded"]}),
    }


def _import(module: str) -> dict[str, Any]:
    command = [sys.executable, "-c", _CHILD, module, *_SLOW]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise InputError(
            f"{module} cannot be imported ({reason}); reinstall the integration and its framework."
        )
    # The module may print something of its own.
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
