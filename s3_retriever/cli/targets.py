"""Where a command is to write: refused before the work where it cannot be written after it."""

from __future__ import annotations

from pathlib import Path

from s3_retriever.errors import CodebookError


def check_codebook_target(out: Path) -> None:
    """Refuse a folder that cannot take a codebook now, not after hours.

    Raises:
        CodebookError: It holds something else.
    """
    taken = out.exists() and not (out / "codebook.json").is_file()
    if taken and (not out.is_dir() or any(out.iterdir())):
        raise CodebookError(f"{out} holds something that is no codebook; choose another.")
    out.parent.mkdir(parents=True, exist_ok=True)
