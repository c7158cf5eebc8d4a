"""Where a model runs, in which numbers, and how much of a text at once."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from s3_retriever.errors import InputError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

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
