"""Results on disk, so that an interrupted run goes on where it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s3_retriever.errors import InputError

_SETTINGS = "settings.json"
_PARTS = "parts"


class Store:
    """Finished results of one run's settings, a file for each set and method.

    Args:
        folder: Where they are kept; nowhere where None.
        settings: Whatever changes results.
        fresh: Whether what is there is removed first.

    Raises:
        InputError: There are results of other settings.
    """

    def __init__(self, folder: Path | None, settings: Mapping[str, Any], fresh: bool) -> None:
        self._folder = folder
        if folder is None:
            return
        if fresh:
            shutil.rmtree(folder / _PARTS, ignore_errors=True)
            (folder / _SETTINGS).unlink(missing_ok=True)
        (folder / _PARTS).mkdir(parents=True, exist_ok=True)
        self._check(folder / _SETTINGS, settings)

    def get(self, name: str, method: str, digest: str) -> dict[str, Any] | None:
        """A finished result; None where there is none.

        Raises:
            InputError: It is of other questions or documents.
        """
        if self._folder is None or not self._part(name, method).is_file():
            return None
        found: dict[str, Any] = _read(self._part(name, method))
        if found.pop("task", None) != digest:
            raise InputError(
                f"{self._part(name, method)} is of other questions or documents; pass --fresh to "
                "measure again, or another folder to --out."
            )
        return found

    def put(self, name: str, method: str, digest: str, result: Mapping[str, Any]) -> None:
        """Keep a result."""
        if self._folder is not None:
            _write(self._part(name, method), {"task": digest, **result})

    def _part(self, name: str, method: str) -> Path:
        assert self._folder is not None
        return self._folder / _PARTS / f"{name}--{method}.json"

    def _check(self, path: Path, settings: Mapping[str, Any]) -> None:
        wanted = json.loads(json.dumps(settings))
        if not path.is_file():
            _write(path, wanted)
            return
        there = _read(path)
        changed = [key for key in {**wanted, **there} if wanted.get(key) != there.get(key)]
        if changed:
            raise InputError(
                f"{path.parent} has results of other settings ({', '.join(changed)} changed); "
                "pass --fresh to measure again, or another folder to --out."
            )


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{path} is damaged ({error}); remove it, or pass --fresh to measure again."
        ) from error
    return found


def _write(path: Path, value: Mapping[str, Any]) -> None:
    """Write a file at once, so that it is whole or not there."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value), encoding="utf-8")
    partial.replace(path)
