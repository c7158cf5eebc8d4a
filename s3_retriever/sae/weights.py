"""Weights in safetensors files, written to no link and checked when read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from s3_retriever.errors import CodebookError, brief
from s3_retriever.paths import begin_draft, regular_size

# Types that weights in a file may have.
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def save_weights(
    tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write weights, in the place of a file or a link of that name.

    Args:
        tensors: The weights, by name.
        path: The file.
        metadata: What its header says besides.

    Raises:
        OSError: The file cannot be written; also SafetensorError.
    """
    begin_draft(path).close()
    mode = path.stat().st_mode
    save_file(tensors, path, metadata=metadata)
    # safetensors writes files that only their owner can read.
    path.chmod(mode)


def load_weights(
    path: Path,
    what: str,
    shapes: Mapping[str, tuple[int | None, ...]],
    optional: Mapping[str, tuple[int | None, ...]] | None = None,
) -> dict[str, Tensor]:
    """Read weights as float32.

    Args:
        path: The file.
        what: What it holds, for messages.
        shapes: By name, the shape that each must have; None is any length.
        optional: The same for those that may be missing.

    Raises:
        CodebookError: The file cannot be read, has other weights, or weights that are not finite.
    """
    try:
        regular_size(path)
        tensors = load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError, MemoryError, RuntimeError) as error:
        raise CodebookError(
            f"The {what} {path} cannot be read ({brief(error)}); fetch or fit the codebook again."
        ) from error
    expected = dict(shapes) | {
        name: shape for name, shape in (optional or {}).items() if name in tensors
    }
    for name, shape in expected.items():
        weight = tensors.get(name)
        if weight is None or not _fits(weight, shape) or weight.dtype not in _DTYPES:
            raise CodebookError(
                f"The {what} {path} cannot be used (no tensor {name} of shape {shape} and floating "
                "type); fetch or fit the codebook again."
            )
        tensors[name] = weight.float()
        if not torch.isfinite(tensors[name]).all():
            raise CodebookError(
                f"The tensor {name} in {path} has values that are not finite numbers; fetch or "
                "fit the codebook again."
            )
    return {name: tensors[name] for name in expected}


def _fits(weight: Tensor, shape: tuple[int | None, ...]) -> bool:
    lengths = zip(weight.shape, shape, strict=False)
    return weight.ndim == len(shape) and all(b is None or a == b for a, b in lengths)
