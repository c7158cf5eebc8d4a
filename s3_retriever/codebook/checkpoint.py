"""`Checkpoint`: the progress of a fit on disk."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from s3_retriever.errors import CodebookError

# Between two checkpoints.
_CHECKPOINT_SECONDS = 60.0


class Checkpoint:
    """The progress of a fit in one file, replaced at once: the counters ride in its header.

    Args:
        folder: Where it is kept; made when there is something to keep.
        identity: JSON values: of which fit. A checkpoint of another fit is refused.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self._path = folder / "progress.safetensors"
        self._identity = json.loads(json.dumps(identity))
        self._saved = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether the last one is old enough for another."""
        return time.monotonic() - self._saved >= _CHECKPOINT_SECONDS

    def save(self, tensors: dict[str, Tensor], counters: dict[str, int]) -> None:
        """Replace what was saved before.

        Raises:
            CodebookError: It cannot be written.
        """
        draft = self._path.with_suffix(".tmp")
        header = json.dumps({"fit": self._identity, "counters": counters})
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, draft, metadata={"progress": header})
            draft.replace(self._path)
        except (OSError, SafetensorError) as error:
            raise CodebookError(
                f"The checkpoint {self._path} cannot be written: {error}"
            ) from error
        self._saved = time.monotonic()

    def load(self) -> tuple[dict[str, Tensor], dict[str, int]] | None:
        """What was saved, or nothing where there is no checkpoint yet.

        Raises:
            CodebookError: It is damaged or of another fit.
        """
        if not self._path.is_file():
            return None
        try:
            with safe_open(self._path, framework="pt") as file:
                progress = json.loads(file.metadata()["progress"])
            identity, counters = progress["fit"], dict(progress["counters"])
            tensors = load_file(self._path)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise CodebookError(
                f"The checkpoint {self._path} is damaged ({error}); delete it to start afresh."
            ) from error
        if identity != self._identity:
            raise CodebookError(
                f"The checkpoint {self._path} is of a fit with another host or other settings; "
                "delete it to start afresh, or use what it was made with."
            )
        return tensors, counters
