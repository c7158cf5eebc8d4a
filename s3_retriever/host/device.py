"""The device: where a model runs, in which numbers, and what moves to and from it."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from s3_retriever.errors import InputError

if TYPE_CHECKING:
    from transformers import PretrainedConfig


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


def trim_heap() -> None:
    """Return what the C library has freed but kept.

    glibc keeps the room of freed tensors in a heap that small objects fragment, so that a scan
    grows with the length of its input although nothing is held. Elsewhere this does nothing.
    """
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on a device; what a GPU gets it may still be on its way to.

    Work that is given to the GPU afterwards waits for it, the caller does not.
    """
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class Fetched:
    """A tensor that is fetched to the CPU, from a GPU while that computes what comes next.

    Args:
        tensor: On any device.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._arrived: torch.cuda.Event | None = None
        if tensor.device.type == "cuda":
            self._fetch(tensor)
        else:
            self._tensor = tensor.cpu()

    def tensor(self) -> Tensor:
        """The tensor, on the CPU; waits until it has come."""
        if self._arrived is not None:
            self._arrived.synchronize()
            self._arrived = None
        return self._tensor

    def _fetch(self, tensor: Tensor) -> None:
        # Only page-locked memory is copied to in the background.
        self._tensor = torch.empty_like(tensor, device="cpu", pin_memory=True)
        copies = _copies(tensor.device)
        copies.wait_stream(torch.cuda.current_stream(tensor.device))
        with torch.cuda.stream(copies):
            self._tensor.copy_(tensor, non_blocking=True)
            self._arrived = copies.record_event()
        # Its memory is not to be used again before it has been copied.
        tensor.record_stream(copies)


_STREAMS: dict[torch.device, torch.cuda.Stream] = {}


def _copies(device: torch.device) -> torch.cuda.Stream:
    """The stream in which copies run beside a device's computations."""
    if device not in _STREAMS:
        _STREAMS[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return _STREAMS[device]


_BATCH_TOKENS = {"cpu": 4_096, "cuda": 131_072, "mps": 16_384}
# On a CPU a batch of a wide model holds fewer, so that its states, as many numbers as this, stay
# near the caches: that takes less time as well as less memory.
_CPU_NUMBERS = 4_096 * 384
_FEWEST_TOKENS = 512


def find_device(name: str = "auto") -> torch.device:
    """The device of that name; `auto` is CUDA, then MPS, then the CPU.

    Raises:
        InputError: There is no such device here.
    """
    if name != "auto":
        try:
            return torch.empty(0, device=name).device
        except (RuntimeError, AssertionError) as error:
            raise InputError(f"There is no device {name!r} here: {error}") from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def find_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype of that name; `auto` is bfloat16 where the device is fast in it, else float32.

    Raises:
        InputError: There is no such dtype.
    """
    # No float16: it rounds weights to other values than bfloat16 does, so a model loaded in it
    # would not have the fingerprint that its codebook is pinned to.
    known = {"bfloat16": torch.bfloat16, "float32": torch.float32}
    if name == "auto":
        return torch.bfloat16 if fast_in_bfloat16(device) else torch.float32
    if name not in known:
        raise InputError(f"The dtype is 'auto' or one of {', '.join(known)}, not {name!r}.")
    return known[name]


def default_batch_tokens(device: torch.device, config: PretrainedConfig) -> int:
    """Padded tokens of a batch, where the caller does not say."""
    most = _BATCH_TOKENS.get(device.type, _BATCH_TOKENS["cpu"])
    if device.type != "cpu":
        return most
    width = int(config.get_text_config().hidden_size)
    return max(min(most, _CPU_NUMBERS // width), _FEWEST_TOKENS)


def fast_in_bfloat16(device: torch.device) -> bool:
    """Whether matrix products run faster in bfloat16 than in float32 on a device."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(_cpu_flags())
    return False


def _cpu_flags() -> Collection[str]:
    if hasattr(torch.cpu, "get_capabilities"):
        return [name for name, has in torch.cpu.get_capabilities().items() if has]
    try:  # an older torch on Linux; the kernel has the same names
        return Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return ()
