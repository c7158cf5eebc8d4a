"""Memory of this process, or of the GPU where the model is there."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")


def memory_kind(device: torch.device) -> str:
    """What is counted on a device."""
    return "allocated on the GPU" if device.type == "cuda" else "resident in the process"


def used_bytes(device: torch.device) -> int | None:
    """Memory in use now; None where the system does not tell (Linux does)."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return _status("VmRSS")


def peak_bytes(device: torch.device) -> int:
    """The most memory that was in use since the process began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Where Linux counts for `getrusage`, a process begins with the peak of the one that made it.
    found = _status("VmHWM")
    if found is not None:
        return found
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status(field: str) -> int | None:
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(field)), None)
