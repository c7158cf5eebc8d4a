"""Work in fresh processes, which may run out of memory."""

from __future__ import annotations

import json
import multiprocessing
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from s3_retriever import S3Error

OUT_OF_MEMORY = "out of memory"
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
    if isinstance(error, RuntimeError):
        # Here, because torch takes seconds to import, which not all work needs.
        from s3_retriever.host.device import is_out_of_memory

        # torch words a lack of CPU memory differently.
        if is_out_of_memory(error) or "can't allocate memory" in str(error):
            return True
    return isinstance(error, MemoryError) or (
        error is not None and ran_out_of_memory(error.__cause__)
    )


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
    value: dict[str, Any] = json.loads(run_python("-c", script, *arguments).splitlines()[-1])
    return value


def run_python(*arguments: str) -> str:
    """Run Python in a fresh process, and return what it prints.

    Raises:
        RuntimeError: It failed; the message is the last line of its traceback.
    """
    command = [sys.executable, *arguments]
    process = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if process.returncode:
        raise RuntimeError((process.stderr.strip().splitlines() or ["no reason given"])[-1])
    return process.stdout
