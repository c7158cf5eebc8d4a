"""The settings of a retriever, and its folder on disk: a copy of its index, and a JSON file."""

from __future__ import annotations

import re
import shutil
import uuid
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Any, Literal

from llama_index.core.vector_stores import MetadataFilters
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from s3_retriever import IndexStoreError
from s3_retriever.types import DEFAULT_CONTEXT, ContextForm, Mode, Order, check_count, check_share

from llama_index.retrievers.s3_attention.filters import where_of
from llama_index.retrievers.s3_attention.merging import Merge

if TYPE_CHECKING:
    from s3_retriever import S3Index


def _count(least: int) -> BeforeValidator:
    def check(value: Any, field: ValidationInfo) -> int | None:
        return None if value is None else check_count(value, field.field_name or "", least=least)

    return BeforeValidator(check)


def _share(value: Any, field: ValidationInfo) -> float | None:
    return check_share(value, field.field_name or "")


# Whole numbers, and numbers from 0 to 1, also NumPy's; True is not a number.
Limit = Annotated[int | None, _count(0)]
Budget = Annotated[int | None, _count(1)]
Share = Annotated[float | None, BeforeValidator(_share)]

_FILE = "retriever.json"
_COPY = re.compile(r"index-[0-9a-f]{12}")


class Settings(BaseModel):
    """Settings that decide which spans a retriever returns; they are kept on disk as JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    similarity_top_k: Limit = None
    token_budget: Budget = None
    min_relevance: Share = None
    mode: Mode = "hybrid"
    order: Order = "score"
    unique: bool = True
    merge: Merge | None = None
    group_by: Literal["node"] | None = None
    spans_per_node: Budget = None
    context: ContextForm = DEFAULT_CONTEXT
    rerank: Budget = None
    rerank_host: str | None = None
    filters: MetadataFilters | None = None

    @field_validator("filters")
    @classmethod
    def _supported(cls, filters: MetadataFilters | None) -> MetadataFilters | None:
        where_of(filters)
        return filters

    @model_validator(mode="after")
    def _one_way(self) -> Settings:
        if self.merge and self.group_by:
            raise ValueError("give either merge, for the spans of a node, or group_by, for nodes")
        return self


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
    """Write a retriever; a previous one in the folder is replaced in one step, at the end.

    An index that was opened in this folder stays where it is.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise IndexStoreError(f"The folder {folder} cannot be made: {error.strerror}.") from error
    before = load(folder)[0] if (folder / _FILE).exists() else None
    if index.path is not None and index.path.resolve().parent == folder.resolve():
        name = index.path.name
    else:
        name = f"index-{uuid.uuid4().hex[:12]}"
        try:
            index.save(folder / name)
        except BaseException:
            shutil.rmtree(folder / name, ignore_errors=True)
            raise
    draft = folder / f"{_FILE}.{uuid.uuid4().hex[:12]}.tmp"
    draft.write_text(_Saved(index=name, settings=settings).model_dump_json(indent=2), "utf-8")
    draft.replace(folder / _FILE)
    # Only copies are removed: an index with another name was not written by `save`.
    if before is not None and before.name != name and _COPY.fullmatch(before.name):
        shutil.rmtree(before, ignore_errors=True)


def load(folder: Path) -> tuple[Path, Settings]:
    """Read where the index of a saved retriever is, and its settings.

    Raises:
        FileNotFoundError: The folder holds no retriever.
        ValueError: Its file is damaged or was written by a newer release.
    """
    file = folder / _FILE
    if not file.is_file():
        raise FileNotFoundError(f"There is no {_FILE} in {folder}; write it with persist().")
    try:
        saved = _Saved.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{file} is damaged or was written by a newer release: {error}") from None
    return folder / saved.index, saved.settings
