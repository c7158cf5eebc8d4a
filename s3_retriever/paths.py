"""Paths from users and from files, small JSON, and new files."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

_LARGEST_JSON = 1 << 26
# The embedded hosts, whose codebooks come with this package; these names never mean folders.
EMBEDDED = ("minilm", "smollm2")


def existing_folder(name: str | Path) -> Path | None:
    """The folder that a name means, `~` expanded; None if there is none, whatever the name is."""
    return _existing(name, Path.is_dir)


def existing_gguf(name: str | Path) -> Path | None:
    """The GGUF file that a name means, `~` expanded; None if there is none, whatever the name."""
    file = _existing(name, Path.is_file)
    return file if file is not None and file.suffix.lower() == ".gguf" else None


def lasting(name: str) -> str:
    """A name that is valid from any working directory.

    Returns:
        The absolute path of the folder or GGUF file that it means; else the name.
    """
    path = None if name in EMBEDDED else existing_folder(name) or existing_gguf(name)
    return name if path is None else str(path.resolve())


def _existing(name: str | Path, is_kind: Callable[[Path], bool]) -> Path | None:
    try:
        path = Path(name).expanduser()
        return path if is_kind(path) else None
    except (OSError, ValueError, RuntimeError):  # too long, a null character, an unknown user
        return None


def regular_size(path: Path) -> int:
    """Size of a file in bytes.

    Raises:
        OSError: There is no such file, or it is a pipe, a device or a folder: reading one might
            never end.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return status.st_size


def read_json(path: Path) -> Any:
    """What a small JSON file holds.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is too large, or not JSON; NaN and infinity are not.
    """
    if regular_size(path) > _LARGEST_JSON:
        raise ValueError(f"it has more than {_LARGEST_JSON:,} bytes")
    try:
        return json.loads(path.read_bytes(), parse_constant=refuse_constant)
    except (RecursionError, MemoryError):
        raise ValueError("it is nested too deeply") from None


def refuse_constant(name: str) -> None:
    """Refuse NaN and infinity, which Python would read; for `parse_constant` of `json`.

    Raises:
        ValueError: Always.
    """
    raise ValueError(f"{name} is not a number of JSON")


def nan_as_null(name: str) -> float | None:
    """Read NaN, which Python writes for what is missing, as null; for `parse_constant` of `json`.

    Infinity stays what it is.
    """
    return None if name == "NaN" else float(name)


def begin_draft(path: Path) -> BinaryIO:
    """Begin a new file, in the place of one that an interrupted process left.

    A symbolic link of that name is removed, never followed: in a folder from someone else it may
    lead to any file of the user's.

    Raises:
        OSError: The file cannot be made.
    """
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    return os.fdopen(os.open(path, flags | getattr(os, "O_BINARY", 0), 0o666), "wb")
