"""GGUF files as hosts: dequantised once, then kept as safetensors in the user's cache.

A folder of the cache is named after the checksum of its GGUF file, written all or nothing, and
checked before every use.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import shutil
import sys
import tempfile
from contextlib import nullcontext, redirect_stderr, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import platformdirs
from filelock import FileLock
from safetensors import SafetensorError

from s3_retriever.errors import HostError, brief
from s3_retriever.host.families import family_of
from s3_retriever.host.loading import DTYPE_OPTION, quiet
from s3_retriever.paths import read_json

_MAGIC = b"GGUF"
# Lists the files of a cached model with their checksums.
_LIST = "checksums.json"


def cached_model(checksum: str) -> Path | None:
    """Find the folder of a GGUF file's model in the cache; None if it is not there or damaged.

    Args:
        checksum: SHA-256 of the GGUF file.
    """
    folder = _cache() / checksum
    try:
        listed = read_json(folder / _LIST)
        intact = listed and all(
            file_checksum(folder / Path(name).name) == expected for name, expected in listed.items()
        )
    except (OSError, ValueError, AttributeError):
        return None
    return folder if intact else None


def model_of(file: Path) -> Path:
    """Find the model of a GGUF file in the cache, or dequantise it and put it there.

    Processes that want the same model wait for the first one.

    Returns:
        A folder as `from_pretrained` reads it: weights in bfloat16, with tokenizer.

    Raises:
        HostError: The file is not a GGUF file, is damaged or of an unknown family, the extra `gguf`
            is missing, or the cache cannot be written.
    """
    try:
        with file.open("rb") as opened:
            if opened.read(len(_MAGIC)) != _MAGIC:
                raise HostError(f"{file} is not a GGUF file; use a model in that format.")
        checksum = file_checksum(file)
    except OSError as error:
        raise HostError(f"The GGUF file {file} cannot be read ({brief(error)}).") from error
    found = cached_model(checksum)
    if found is not None:
        return found
    _require_extra()
    cache = _cache()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f"{checksum}.lock"):
            # Another process may have made it meanwhile.
            return cached_model(checksum) or _make(file, cache / checksum)
    except (OSError, SafetensorError) as error:
        raise HostError(
            f"The model of {file} cannot be kept in {cache}: {brief(error)}; make room there, or "
            "set XDG_CACHE_HOME to a folder that can be written."
        ) from error


def file_checksum(path: Path) -> str:
    """Compute the SHA-256 of a file, or look up what it was for the same size and time of change.

    Raises:
        OSError: The file cannot be read.
    """
    path = path.resolve()
    status = path.stat()
    state = [str(path), status.st_size, status.st_mtime_ns]
    note = _cache() / "checked" / hashlib.sha256(os.fsencode(path)).hexdigest()[:32]
    try:
        noted = read_json(note)
        if noted[:3] == state:
            return str(noted[3])
    except (OSError, ValueError, TypeError, LookupError):
        pass
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    _write_note(note, [*state, digest.hexdigest()])
    return digest.hexdigest()


def _write_note(note: Path, content: list[Any]) -> None:
    """Note a checksum; where that is impossible, it is computed again next time."""
    draft = note.with_name(f"{note.name}.{uuid4().hex}")
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(content))
        draft.replace(note)
    except OSError:
        with suppress(OSError):
            draft.unlink()


def _cache() -> Path:
    return platformdirs.user_cache_path("s3-retriever") / "gguf"


def _require_extra() -> None:
    missing = [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        raise HostError(
            f"Reading a GGUF file needs {' and '.join(missing)}; install with: "
            "pip install 's3-retriever[gguf]'"
        )


def _make(file: Path, target: Path) -> Path:
    """Dequantise a GGUF file into a folder of the cache, all or nothing."""
    # The lock is held, so what a killed process left behind is in no one's use.
    for left in target.parent.glob(f".{target.name}-*"):
        shutil.rmtree(left, ignore_errors=True)
    room = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        folder = room / "model"
        _convert(file, folder)
        checksums = {path.name: file_checksum(path) for path in sorted(folder.iterdir())}
        (folder / _LIST).write_text(json.dumps(checksums, indent=2) + "\n")
        if os.path.lexists(target):  # also a link that leads nowhere
            target.rename(room / "damaged")
        folder.rename(target)
    finally:
        shutil.rmtree(room, ignore_errors=True)
    return target


def _convert(file: Path, folder: Path) -> None:
    """Write the model of a GGUF file in bfloat16 and its tokenizer.

    In float32 the weights would take twice the room, and the error of their 4 to 8 bits is far
    above that of bfloat16.
    """
    import torch
    import transformers

    where: dict[str, Any] = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    options: dict[str, Any] = {DTYPE_OPTION: torch.bfloat16, "output_loading_info": True}
    # Releases without this class dequantise in any case.
    if hasattr(transformers, "GgufConfig"):
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    shown = sys.stderr.isatty()
    try:
        # transformers draws this bar whether bars are on or not.
        with quiet(bars=shown), nullcontext() if shown else redirect_stderr(io.StringIO()):
            family_of(transformers.AutoConfig.from_pretrained(**where).model_type)
            tokenizer = transformers.AutoTokenizer.from_pretrained(**where)
            auto: Any = transformers.AutoModelForCausalLM
            model, report = auto.from_pretrained(**where, **options)
    except HostError:
        raise
    # The parsers of a foreign format fail in many ways on a damaged file.
    except Exception as error:
        raise HostError(
            f"The GGUF file {file} is damaged, or of a kind that transformers cannot read "
            f"({brief(error)}); fetch it again, or use another model."
        ) from error
    if report["missing_keys"] or not all(w.isfinite().all() for w in model.parameters()):
        raise HostError(f"The GGUF file {file} is damaged: weights are missing or not finite.")
    with quiet(bars=False):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
