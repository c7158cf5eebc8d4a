"""What work costs in time and memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch
from transformers.generation.streamers import BaseStreamer

# Writing 5 resets the peak (proc(5)).
_CLEAR_REFS = Path("/proc/self/clear_refs")
_Argument = TypeVar("_Argument")
_Result = TypeVar("_Result")


def memory_kind(device: torch.device) -> str:
    """Which memory `used_bytes` and `peak_bytes` count on a device."""
    return "allocated on the GPU" if device.type == "cuda" else "resident in the process"


def used_bytes(device: torch.device) -> int:
    """Memory in use now."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return int(psutil.Process().memory_info().rss)


def reset_peak(device: torch.device) -> bool:
    """Let `peak_bytes` count from now on.

    Returns:
        Whether the system can do that, which on a CPU only Linux does.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        _CLEAR_REFS.write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def peak_bytes(device: torch.device) -> int:
    """The most memory in use since the process began, or since `reset_peak`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Not `getrusage` on Linux: there a process starts with the peak of its parent.
    if peak := peak_resident("self"):
        return peak
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts in bytes, others in KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def peak_resident(process: int | str) -> int | None:
    """Peak resident memory of a process in bytes; None if it is gone, or on other systems."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), None)


class TokenClock(BaseStreamer):
    """Records when each new token is on the CPU; given to `generate` as its streamer.

    Attributes:
        ticks: Seconds of `time.perf_counter`, one for each new token.
    """

    def __init__(self) -> None:
        self._prompt_passed = False
        self.ticks: list[float] = []

    def put(self, value: Any) -> None:  # noqa: ARG002
        """Take the prompt, then every new token."""
        if self._prompt_passed:
            self.ticks.append(time.perf_counter())
        self._prompt_passed = True

    def end(self) -> None:
        """See `BaseStreamer`."""


@dataclass(slots=True)
class Cost:
    """What a piece of work took.

    Attributes:
        seconds: Its time.
        peak_bytes: The most memory of this process meanwhile, as `peak_bytes` counts it; None
            where a peak cannot be reset.
    """

    seconds: float = 0.0
    peak_bytes: int | None = None


@contextmanager
def metered(device: torch.device) -> Iterator[Cost]:
    """Measure the block; its cost is complete at the end."""
    cost = Cost()
    known = reset_peak(device)
    began = time.perf_counter()
    yield cost
    cost.seconds = time.perf_counter() - began
    cost.peak_bytes = peak_bytes(device) if known else None


def highest(*costs: Cost) -> int | None:
    """The highest peak of several pieces of work; None if one is unknown."""
    peaks = [cost.peak_bytes for cost in costs]
    return None if None in peaks else max(peak for peak in peaks if peak is not None)


def in_turn(
    ways: Mapping[str, Callable[[_Argument], _Result]], arguments: Iterable[_Argument]
) -> dict[str, list[_Result]]:
    """Call each way with every argument, one right after the other.

    Other work of the machine then affects all of them alike. The first way changes from argument to
    argument, because each leaves the caches of the processor to the next.

    Args:
        ways: Functions by name.
        arguments: What to call them with.

    Returns:
        By name, the result for each argument.
    """
    results: dict[str, list[_Result]] = {name: [] for name in ways}
    names = list(ways)
    for number, argument in enumerate(arguments):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            results[name].append(ways[name](argument))
    return results


def seconds_of(work: Callable[[_Argument], object], argument: _Argument) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    work(argument)
    return time.perf_counter() - began
