"""Finding and sharing the host and the codebook of an index or an answer."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s3_retriever.errors import CodebookError, InputError
from s3_retriever.paths import EMBEDDED, existing_folder, lasting
from s3_retriever.processes import renew_after_fork
from s3_retriever.types import check_source

if TYPE_CHECKING:
    from s3_retriever.codebook import Codebook
    from s3_retriever.host import Host

# The folder beside a model's files in which its codebook is found without being named.
CODEBOOK_FOLDER = "s3-codebook"

_HOSTS: dict[object, Host] = {}
_HOSTS_LOCK = threading.Lock()


def _renew() -> None:
    global _HOSTS_LOCK
    _HOSTS_LOCK = threading.Lock()


renew_after_fork(_renew)


def host_name(host: Any) -> str | Host:
    """A host's name, also of a folder as a path, or a loaded host, as it is.

    Raises:
        InputError: It is neither.
    """
    if isinstance(host, (str, os.PathLike)):
        return check_source(host, "host")
    from s3_retriever.host import Host

    if not isinstance(host, Host):
        raise InputError(
            f"The host must be a name, a folder or a loaded Host, not {type(host).__name__}."
        )
    return host


def codebook_name(host: str | Host, codebook: str | Path | None) -> str:
    """Find the name of a host's codebook: the one given, else the host's own. Loads nothing.

    Returns:
        `minilm`, `smollm2`, a folder, or an id on the Hugging Face Hub.

    Raises:
        CodebookError: No name was given, and the host has no codebook of its own.
    """
    if codebook is not None:
        return check_source(codebook, "codebook")
    named = host_name(host)
    name = named if isinstance(named, str) else named.name
    if name in EMBEDDED:
        return name
    beside = existing_folder(Path(name) / CODEBOOK_FOLDER)
    if beside is not None:
        return str(beside)
    raise CodebookError(
        f"There is no codebook for host {name!r} in this package or beside the model; pass "
        f"codebook=..., or fit one on plain text with: s3r fit {name} --text TEXTS --out CODEBOOK"
    )


def find_codebook(
    host: str | Host,
    codebook: str | Path | Codebook | None,
    *,
    local_files_only: bool = False,
) -> Codebook:
    """Load a host's codebook: the one given or named, else the host's own.

    Args:
        host: The host, or its name.
        codebook: The codebook or its name; None for the host's own.
        local_files_only: Whether to leave the Hub alone and look no further than its cache.

    Raises:
        CodebookError: There is no codebook, or it cannot be read.
    """
    from s3_retriever.codebook import Codebook

    if isinstance(codebook, Codebook):
        return codebook
    name = codebook_name(host, codebook)
    return Codebook.from_pretrained(name, local_files_only=local_files_only)


def shared_host(host: str | Host, codebook: Codebook, options: dict[str, Any]) -> Host:
    """A host by name, loaded once per process for the same codebook depth and options.

    Args:
        host: Name of a host, or a loaded one, which is returned as it is.
        codebook: Its depth is the number of layers to load.
        options: For `Host.load`.

    Raises:
        HostError: The host cannot be loaded.
        InputError: There are options for a host that is loaded already.
    """
    return _load_once(host, {"layers": codebook.depth}, options)


def words_host(host: str | Host, options: dict[str, Any]) -> Host:
    """A host by name, loaded once per process for its tokenizer, with a single layer.

    Raises:
        HostError: The host cannot be loaded.
        InputError: There are options for a host that is loaded already.
    """
    return _load_once(host, {"layers": 1}, options)


def answering_host(host: str | Host, options: dict[str, Any]) -> Host:
    """A host by name, loaded once per process, with all layers, as generation needs them.

    Args:
        host: Name of a host, or a loaded one, which is returned as it is.
        options: For `Host.load`.

    Raises:
        HostError: The host cannot be loaded.
        InputError: There are options for a host that is loaded already.
    """
    return _load_once(host, {"generates": True}, options)


def whole_host(host: str | Host, options: dict[str, Any]) -> Host:
    """A host by name, loaded once per process, with all layers unless the options say otherwise.

    Raises:
        HostError: The host cannot be loaded.
        InputError: There are options for a host that is loaded already.
    """
    return _load_once(host, {}, options)


def _load_once(host: str | Host, extent: dict[str, Any], options: dict[str, Any]) -> Host:
    from s3_retriever.host import Host

    name = host_name(host)
    if isinstance(name, Host):
        if options:
            raise InputError("A loaded host takes no options; pass them to Host.load instead.")
        return name
    options = extent | options
    # Where the files come from makes no other host of it.
    kept = {option: value for option, value in options.items() if option != "local_files_only"}
    key = (lasting(name), repr(sorted(kept.items())))
    with _HOSTS_LOCK:
        if key not in _HOSTS:
            _HOSTS[key] = Host.load(name, **options)
        return _HOSTS[key]
