"""Telling that a device's memory did not suffice, and giving back what is left over."""

from __future__ import annotations

import torch

# The name of torch 2.5 and later.
_OutOfMemory = getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that the device's memory did not suffice."""
    # MPS raises a plain RuntimeError, and so do some libraries below CUDA.
    return isinstance(error, _OutOfMemory) or "out of memory" in str(error)


def free_device_memory() -> None:
    """Give back what torch keeps of a device's memory but does not use."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
