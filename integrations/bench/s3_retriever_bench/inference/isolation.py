"""Running something in a process of its own, which may run out of memory."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from s3_retriever.errors import S3Error
from s3_retriever.host.device import is_out_of_memory

OUT_OF_MEMORY = "out of memory"
_Work = Callable[..., dict[str, Any]]


def run_alone(work: _Work, *arguments: object) -> dict[str, Any]:
    """Run a function in a fresh process: the peak memory of a process never falls.

    Args:
        work: A function of a module, which returns JSON values.
        arguments: For it.

    Returns:
        What it returned; or `failed`, how the process ended, where it ran out of memory or was
        killed.

    Raises:
        S3Error: The function raised it.
        RuntimeError: The function raised another error.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(sender, work, arguments), daemon=True)
    process.start()
    sender.close()  # or its end would go unnoticed
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
    found: dict[str, Any] = result
    return found


def ran_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised from, says that memory did not suffice."""
    if error is None:
        return False
    # torch has words of its own for the memory of the CPU.
    told = isinstance(error, RuntimeError) and (
        is_out_of_memory(error) or "can't allocate memory" in str(error)
    )
    return told or isinstance(error, MemoryError) or ran_out_of_memory(error.__cause__)


def how_it_ended(status: int | None) -> str:
    """Why a process gave no result, by its exit status."""
    if status == -signal.SIGKILL:
        return OUT_OF_MEMORY  # so a system ends what takes too much
    if status is not None and status < 0:
        return f"ended by {signal.Signals(-status).name}"
    return f"ended with status {status}"


def _run(sender: Connection, work: _Work, arguments: tuple[object, ...]) -> None:
    # It is for the process that waits to end this one.
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
