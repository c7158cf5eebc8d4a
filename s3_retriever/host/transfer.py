"""Moving tensors between the CPU and a GPU while the GPU goes on computing."""

from __future__ import annotations

import torch
from torch import Tensor


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
