"""Loading models with transformers, whatever its release, without noise."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import transformers
from huggingface_hub import constants as hub_constants

from s3_retriever.processes import renew_after_fork

# transformers renamed the argument in 4.56.
DTYPE_OPTION = (
    "dtype"
    if tuple(int(part) for part in transformers.__version__.split(".")[:2]) >= (4, 56)
    else "torch_dtype"
)

# The settings that `quiet` changes belong to the whole process.
_QUIET = threading.Lock()


def _renew() -> None:
    global _QUIET
    _QUIET = threading.Lock()


renew_after_fork(_renew)


@contextmanager
def quiet(*, bars: bool) -> Iterator[None]:
    """Silence the loading of a model, except for the bars of a download.

    Deeper layers and the head are not loaded on purpose; warnings about unused weights would only
    mislead.
    """
    log = transformers.logging
    # If the user's environment decides about bars, the switch would only warn.
    decided = hub_constants.HF_HUB_DISABLE_PROGRESS_BARS is not None
    with _QUIET:
        verbosity = log.get_verbosity()
        silenced = not bars and not decided and log.is_progress_bar_enabled()
        log.set_verbosity(logging.ERROR)
        if silenced:
            log.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            log.set_verbosity(verbosity)
            if silenced:
                log.enable_progress_bar()  # type: ignore[no-untyped-call]
