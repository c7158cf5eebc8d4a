"""A retriever on disk: a copy of its index, and a JSON file that names it and has the settings."""

from __future__ import annotations

import re
import shutil
import uuid
from contextlib import suppress
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from llama_index.retrievers.s3_attention.settings import Settings

if TYPE_CHECKING:
    from s3_retriever import S3Index

_FILE = "retriever.json"
_COPY = re.compile(r"index-[0-9a-f]{12}")
_ATTEMPTS = 5


class _Saved(BaseModel):
    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1] = 1
    index: str
    settings: Settings

    @field_validator("index")
    @classmethod
    def _in_this_folder(cls, name: str) -> str:
        if name in {"", ".", ".."} or PurePath(name).name != name:
            raise ValueError("the index is not in the retriever's folder")
        return name


def save(folder: Path, index: S3Index, settings: Settings) -> None:
    """Write a retriever; what the folder held of one before is replaced in one step, at the end.

    An index that lies in the folder already, because it was opened there, stays where it is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    before = load(folder) if (folder / _FILE).exists() else None
    if index.path.resolve().parent == folder.resolve():
        name = index.path.name
    else:
        name = f"index-{uuid.uuid4().hex[:12]}"
        try:
            _copy(index, folder / name)
        except BaseException:
            shutil.rmtree(folder / name, ignore_errors=True)
            raise
    draft = folder / f"{_FILE}.{uuid.uuid4().hex[:12]}.tmp"
    draft.write_text(_Saved(index=name, settings=settings).model_dump_json(indent=2), "utf-8")
    draft.replace(folder / _FILE)
    # An index that was put there by other means is not ours to remove.
    if before is not None and before[0].name != name and _COPY.fullmatch(before[0].name):
        shutil.rmtree(before[0], ignore_errors=True)


def load(folder: Path) -> tuple[Path, Settings]:
    """Where the index of a saved retriever lies, and its settings.

    Raises:
        FileNotFoundError: There is no retriever in the folder.
        ValueError: Its file is damaged or of a newer release.
    """
    file = folder / _FILE
    if not file.is_file():
        raise FileNotFoundError(f"There is no {_FILE} in {folder}; write it with persist().")
    try:
        saved = _Saved.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{file} is damaged or was written by a newer release: {error}") from None
    return folder / saved.index, saved.settings


def _copy(index: S3Index, target: Path) -> None:
    """Copy an index's folder; again where it was changed meanwhile."""
    for _ in range(_ATTEMPTS):
        generation = index.stats()["generation"]
        # Files go missing under the copy when a writer tidies up.
        with suppress(shutil.Error):
            shutil.copytree(index.path, target, ignore=shutil.ignore_patterns("*.lock", "draft"))
            if index.stats()["generation"] == generation:
                return
        shutil.rmtree(target, ignore_errors=True)
    raise OSError(f"The index at {index.path} is being changed too often to copy it; try again.")
