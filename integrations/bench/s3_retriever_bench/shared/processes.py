"""Work in fresh processes, which may run out of memory, and what it costs in time and memory."""

from __future__ import annotations

import json
import multiprocessing
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers.generation.streamers import BaseStreamer

from s3_retriever import S3Error
from s3_retriever.host.device import is_out_of_memory

OUT_OF_MEMORY = "out of memory"
# Writing 5 resets the peak (proc(5)).
_CLEAR_REFS = Path("/proc/self/clear_refs")
_Work = Callable[..., dict[str, Any]]


def run_alone(work: _Work, *arguments: object) -> dict[str, Any]:
    """Run a function in a fresh process, because the peak memory of a process never falls.

    Args:
        work: A module-level function that returns JSON values.
        arguments: Its arguments.

    Returns:
        Its result; or `failed`, how the process ended, if it ran out of memory or was killed.

    Raises:
        S3Error: The function raised it.
        RuntimeError: The function raised another error.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(sender, work, arguments), daemon=True)
    process.start()
    sender.close()  # Otherwise the end of the process would go unnoticed.
    try:
        error, result = receiver.recv()
    except EOFError:
        process.join()
        return {"failed": how_it_ended(process.exitcode)}
    except KeyboardInterrupt:
        process.kill()
        raise
    finally:
        process.join()
        receiver.close()
    if error is not None:
        raise error(result)
    value: dict[str, Any] = result
    return value


def _run(sender: Connection, work: _Work, arguments: tuple[object, ...]) -> None:
    # The waiting process decides when an interrupt ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    outcome: tuple[type[Exception] | None, object]
    try:
        outcome = None, work(*arguments)
    except Exception as error:
        if ran_out_of_memory(error):
            outcome = None, {"failed": OUT_OF_MEMORY}
        elif isinstance(error, S3Error):
            outcome = type(error), str(error)
        else:
            outcome = RuntimeError, traceback.format_exc()
    sender.send(outcome)


def ran_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one of its causes, reports a lack of memory."""
    if error is None:
        return False
    # torch words a lack of CPU memory differently.
    reported = isinstance(error, RuntimeError) and (
        is_out_of_memory(error) or "can't allocate memory" in str(error)
    )
    return reported or isinstance(error, MemoryError) or ran_out_of_memory(error.__cause__)


def how_it_ended(status: int | None) -> str:
    """Why a process returned no result, from its exit status."""
    if status == -signal.SIGKILL:
        return OUT_OF_MEMORY  # The kernel kills what takes too much.
    if status is not None and status < 0:
        return f"ended by {signal.Signals(-status).name}"
    return f"ended with status {status}"


def run_script(script: str, *arguments: str) -> dict[str, Any]:
    """Run a Python script in a fresh process.

    Args:
        script: Source code; the last line it prints is a JSON object.
        arguments: `sys.argv[1:]` of the script.

    Returns:
        The JSON object.

    Raises:
        RuntimeError: The script failed; the message is the last line of its traceback.
    """
    command = [sys.executable, "-c", script, *arguments]
    process = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if process.returncode:
        raise RuntimeError((process.stderr.strip().splitlines() or ["no reason given"])[-1])
    value: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return value


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
