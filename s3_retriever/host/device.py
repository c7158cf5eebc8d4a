"""The device: where a model runs, in which dtype, and copies to and from it."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from s3_retriever.errors import InputError
from s3_retriever.types import shown

if TYPE_CHECKING:
    from transformers import PretrainedConfig


# The name of torch 2.5 and later.
_OutOfMemory = getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error means that the device ran out of memory."""
    # MPS raises a plain RuntimeError, and so do some libraries below CUDA.
    return isinstance(error, _OutOfMemory) or "out of memory" in str(error)


def free_device_memory() -> None:
    """Return the device memory that torch has cached but does not use."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def trim_heap() -> None:
    """Return memory that glibc has freed but kept; elsewhere this does nothing.

    glibc keeps the space of freed tensors in a heap that small objects fragment. Without trimming,
    a scan would grow with the length of its input although nothing is held.
    """
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to a device; to a GPU, in the background.

    Later work on the GPU waits for the copy, the caller does not.
    """
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class Fetched:
    """A tensor on its way to the CPU, copied from a GPU while the GPU goes on computing.

    Args:
        tensor: A tensor on any device.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._arrived: torch.cuda.Event | None = None
        if tensor.device.type == "cuda":
            self._fetch(tensor)
        else:
            self._tensor = tensor.cpu()

    def tensor(self) -> Tensor:
        """Return the tensor on the CPU, once it has arrived."""
        if self._arrived is not None:
            self._arrived.synchronize()
            self._arrived = None
        return self._tensor

    def _fetch(self, tensor: Tensor) -> None:
        # Only copies to page-locked memory run in the background.
        self._tensor = torch.empty_like(tensor, device="cpu", pin_memory=True)
        copies = _copies(tensor.device)
        copies.wait_stream(torch.cuda.current_stream(tensor.device))
        with torch.cuda.stream(copies):
            self._tensor.copy_(tensor, non_blocking=True)
            self._arrived = copies.record_event()
        # Its memory must not be reused before it has been copied.
        tensor.record_stream(copies)


_STREAMS: dict[torch.device, torch.cuda.Stream] = {}


def _copies(device: torch.device) -> torch.cuda.Stream:
    """Look up the stream in which copies run beside a device's computations."""
    if device not in _STREAMS:
        _STREAMS[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return _STREAMS[device]


_BATCH_TOKENS = {"cpu": 4_096, "cuda": 131_072, "mps": 16_384}
# On a CPU, batches of wide models hold fewer tokens: at this many numbers, their states stay near
# the caches, which saves time and memory.
_CPU_NUMBERS = 4_096 * 384
_FEWEST_TOKENS = 512


def find_device(name: str = "auto") -> torch.device:
    """Find a device by name; `auto` is CUDA, then MPS, then the CPU.

    Raises:
        InputError: There is no such device here.
    """
    if not isinstance(name, str) or name != "auto":
        try:
            empty = torch.empty(0, device=name)
            empty.cpu()  # which the device `meta` cannot, having no data
            return empty.device
        except (RuntimeError, AssertionError, TypeError) as error:
            raise InputError(
                f"Device {shown(name)} is not available here ({error}); pass auto, cpu, cuda or "
                "mps."
            ) from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def find_dtype(name: str, device: torch.device) -> torch.dtype:
    """Find a dtype by name; `auto` is bfloat16 if the device is fast in it, else float32.

    Raises:
        InputError: There is no such dtype.
    """
    # Not float16: it rounds weights to other values than bfloat16 does, so the model would not have
    # the fingerprint that its codebook is pinned to.
    known = {"bfloat16": torch.bfloat16, "float32": torch.float32}
    if isinstance(name, str) and name == "auto":
        return torch.bfloat16 if fast_in_bfloat16(device) else torch.float32
    if not isinstance(name, str) or name not in known:
        raise InputError(f"The dtype must be auto, {' or '.join(known)}, not {shown(name)}.")
    return known[name]


def default_batch_tokens(device: torch.device, config: PretrainedConfig) -> int:
    """Choose the padded tokens of a batch for callers who do not."""
    most = _BATCH_TOKENS.get(device.type, _BATCH_TOKENS["cpu"])
    if device.type != "cpu":
        return most
    width = int(config.get_text_config().hidden_size)
    return max(min(most, _CPU_NUMBERS // width), _FEWEST_TOKENS)


# Processors with one of these multiply whole tiles of bfloat16 numbers. `avx512_bf16` alone is not
# enough: on a Xeon with it, minilm reads 3,700 tokens a second in bfloat16 and 5,190 in float32.
_BFLOAT16_FLAGS = {"amx_bf16", "bf16"}  # x86, ARM


def fast_in_bfloat16(device: torch.device) -> bool:
    """Whether matrix products run faster in bfloat16 than in float32 on a device.

    On a CPU its flags decide, not a measurement: the number format changes the last digits of
    scores, and should not depend on what else ran when an index was made.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return not _BFLOAT16_FLAGS.isdisjoint(_cpu_flags())
    return False


def _cpu_flags() -> Collection[str]:
    if hasattr(torch.cpu, "get_capabilities"):
        return [name for name, has in torch.cpu.get_capabilities().items() if has]
    try:  # an older torch on Linux; the kernel has the same names
        return Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return ()
