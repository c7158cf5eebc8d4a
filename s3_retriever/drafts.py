"""Files that are written beside their target and then moved into its place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO


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
