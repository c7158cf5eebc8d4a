"""The folder of a codebook: its description, and replacing it all or nothing."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError

from s3_retriever.errors import CodebookError
from s3_retriever.recipe import Recipe

CODEBOOK_FILE = "codebook.json"
SCHEMA = 2
# Those of schema 1 have no maps of sentences.
_READABLE = (1, 2)


class CodebookFile(BaseModel):
    """What `codebook.json` holds."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int
    host: str
    fingerprint: str
    taps: list[str]
    standalone: list[str] = []
    recipe: Recipe
    report: dict[str, Any]

    def write(self, folder: Path) -> None:
        """Write it into a folder."""
        (folder / CODEBOOK_FILE).write_text(json.dumps(self.model_dump(), indent=2) + "\n")


def replace_folder(target: Path, write: Callable[[Path], None]) -> None:
    """Put a new codebook in the place of the one that is there, if any, all or nothing.

    Args:
        target: Where to.
        write: Writes the new one into a folder that it makes.

    Raises:
        CodebookError: The folder cannot be written, or holds something else.
    """
    if _is_foreign(target):
        raise CodebookError(f"{target} holds something that is no codebook; choose another.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        room = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            write(room / "new")
            _swap(room / "new", target, room / "old")
        finally:
            shutil.rmtree(room, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise CodebookError(f"The codebook cannot be written to {target}: {error}") from error


def read_codebook_file(path: Path) -> CodebookFile:
    """Read `codebook.json`.

    Raises:
        CodebookError: There is none, or it is damaged or newer.
    """
    try:
        fields = json.loads(path.read_bytes())
        schema = fields["schema_version"]
    except OSError as error:
        raise CodebookError(f"{path.parent} holds no codebook: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CodebookError(f"{path} is no codebook: {error!r}") from error
    # A newer schema may have other fields, so its number is looked at first.
    if schema not in _READABLE:
        raise CodebookError(
            f"{path} has schema {schema}, this release reads up to {SCHEMA}; upgrade s3-retriever "
            "or fit the codebook again."
        )
    try:
        return CodebookFile.model_validate(fields)
    except ValidationError as error:
        problem = error.errors()[0]
        raise CodebookError(
            f"{path} is no codebook of schema {schema}: {problem['msg']} at {problem['loc']}."
        ) from error


def _is_foreign(target: Path) -> bool:
    """Whether something else than a codebook or an empty folder is there."""
    if not target.is_dir():
        return target.exists()
    return not (target / CODEBOOK_FILE).is_file() and any(target.iterdir())


def _swap(new: Path, target: Path, old: Path) -> None:
    """Put a folder in the place of another, or leave that one where it is."""
    if not target.exists():
        new.rename(target)
        return
    target.rename(old)
    try:
        new.rename(target)
    except OSError:
        old.rename(target)
        raise
