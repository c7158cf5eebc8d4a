"""The folder of a codebook: finding it, its description, and replacing it all or nothing.

Nothing here imports torch, so an index can compare codebooks without it.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from s3_retriever.errors import CodebookError, brief
from s3_retriever.paths import existing_folder, read_json
from s3_retriever.recipe import Recipe

CODEBOOK_FILE = "codebook.json"
SCHEMA = 3
# Far more than any host has layers and sites.
_MOST_TAPS = 1_024
_SHIPPED = Path(__file__).parent / "shipped"
# What is fetched of a Hub repository: the description, and each tap's and map's own files.
_DOWNLOADED = [CODEBOOK_FILE, "*/*.json", "*/*.safetensors"]


class CodebookFile(BaseModel):
    """What `codebook.json` holds.

    Attributes:
        schema_version: Version of the folder's layout.
        identity: Digest of all weights; codebooks with the same identity compute the same
            features, sentence vectors and keys.
        host: Name of the host that the codebook was fitted for.
        fingerprint: `Host.fingerprint` of that host, for the layers that the taps need.
        taps: Names of the taps; each has a folder of that name with its SAE.
        sentence_maps: Layers with a sentence map; layer 5 has its own in the folder `sentence.5`.
        key_heads: Key heads; head 17.1 has its centre and scale in the folder `head.17.1`.
        queries_per_key: How many query heads of the host share a key head.
        recipe: Scoring defaults.
        report: What fitting measured.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: int
    identity: str
    host: str
    fingerprint: str
    taps: Annotated[list[str], Field(max_length=_MOST_TAPS)]
    sentence_maps: Annotated[list[int], Field(max_length=_MOST_TAPS)]
    key_heads: Annotated[list[str], Field(max_length=_MOST_TAPS)] = Field(default_factory=list)
    queries_per_key: Annotated[int, Field(ge=1, le=_MOST_TAPS)] = 1
    recipe: Recipe
    report: dict[str, Any]

    def write(self, folder: Path) -> None:
        """Write `codebook.json` into a folder."""
        (folder / CODEBOOK_FILE).write_text(json.dumps(self.model_dump(), indent=2) + "\n")


def find_folder(name: str, revision: str | None = None, *, local_files_only: bool = False) -> Path:
    """Find the folder of a codebook; one on the Hugging Face Hub is downloaded.

    Args:
        name: An embedded host (`minilm`, `smollm2`), a folder, or a Hub id.
        revision: Branch, tag or commit on the Hub.
        local_files_only: Whether to leave the Hub alone and look no further than its cache.

    Raises:
        CodebookError: There is no such codebook.
    """
    folder = local_folder(name)
    if folder is not None:
        return folder
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=_DOWNLOADED,
                local_files_only=local_files_only,
            )
        )
    except (OSError, ValueError) as error:
        if local_files_only:
            raise CodebookError(
                f"The codebook {name!r}, which the index names, is not on this machine; pass "
                "codebook= (on the command line --codebook) with its name to download it, or with "
                "its folder."
            ) from error
        raise CodebookError(
            f"There is no codebook {name!r}: no folder has that name, and the Hugging Face Hub "
            "does not have it or cannot be reached."
        ) from error


def local_folder(name: str) -> Path | None:
    """The folder of a codebook that is shipped or on this machine; None for a Hub id."""
    shipped = {folder.name: folder for folder in _SHIPPED.iterdir()}
    return shipped[name] if name in shipped else existing_folder(name)


def read_codebook_file(folder: Path) -> CodebookFile:
    """Read the `codebook.json` of a folder.

    Raises:
        CodebookError: There is none, or it is damaged or of another schema.
    """
    path = folder / CODEBOOK_FILE
    try:
        fields = read_json(path)
        schema = fields["schema_version"]
    except OSError as error:
        raise CodebookError(
            f"{folder} holds no codebook ({brief(error)}); check the path."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CodebookError(
            f"{path} does not describe a codebook ({brief(repr(error))}); fetch or fit it again."
        ) from error
    # Another schema may have other fields, so its number comes first.
    if schema != SCHEMA:
        raise CodebookError(f"{path} has schema {brief(repr(schema))}; {_advice(schema)}.")
    try:
        return CodebookFile.model_validate(fields)
    except ValidationError as error:
        problem = error.errors()[0]
        raise CodebookError(
            f"{path} does not fit schema {schema} ({brief(problem['msg'])} at "
            f"{brief('.'.join(map(str, problem['loc'])))}); fetch or fit the codebook again."
        ) from error


def replace_folder(target: Path, write: Callable[[Path], None]) -> None:
    """Write a codebook all or nothing, in the place of an old one if there is one.

    Args:
        target: The codebook's folder.
        write: Writes the new codebook into a folder that it makes.

    Raises:
        CodebookError: The folder cannot be written, or holds something else.
    """
    # Comparing codebooks, which needs no weights, should not load this.
    from safetensors import SafetensorError

    if is_foreign(target):
        raise CodebookError(f"{target} holds something other than a codebook; choose another.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        room = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            write(room / "new")
            _swap(room / "new", target, room / "old")
        finally:
            shutil.rmtree(room, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise CodebookError(
            f"The codebook cannot be written to {target} ({brief(error)}); check free space and "
            "permissions."
        ) from error


def _advice(schema: object) -> str:
    if isinstance(schema, int) and schema < SCHEMA:
        return f"it was made by an older release, and this one needs {SCHEMA}: fit it again"
    return f"this release reads {SCHEMA}: upgrade s3-retriever, or fit the codebook again"


def is_foreign(target: Path) -> bool:
    """Whether a path holds something other than a codebook or an empty folder."""
    if not target.is_dir():
        return target.exists()
    return not (target / CODEBOOK_FILE).is_file() and any(target.iterdir())


def _swap(new: Path, target: Path, old: Path) -> None:
    """Put a folder in the place of another; if that fails, leave the other where it is."""
    if not target.exists():
        new.rename(target)
        return
    target.rename(old)
    try:
        new.rename(target)
    except OSError:
        old.rename(target)
        raise
