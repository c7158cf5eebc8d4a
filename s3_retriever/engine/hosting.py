"""Finding and sharing the host and the codebook of an index or an answer."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s3_retriever.errors import CodebookError, InputError

if TYPE_CHECKING:
    from s3_retriever.codebook import Codebook
    from s3_retriever.host import Host

# The embedded hosts, whose codebooks come with this package.
EMBEDDED = ("minilm", "smollm2")
# The folder beside a model's files in which its codebook is found without being named.
CODEBOOK_FOLDER = "s3-codebook"

_HOSTS: dict[object, Host] = {}
_HOSTS_LOCK = threading.Lock()


def codebook_name(host: str | Host, codebook: str | Path | None) -> str:
    """Find the name of a host's codebook: the one given, else the host's own. Loads nothing.

    Returns:
        `minilm`, `smollm2`, a folder, or an id on the Hugging Face Hub.

    Raises:
        CodebookError: No name was given, and the host has no codebook of its own.
    """
    if codebook is not None:
        return str(codebook)
    name = host if isinstance(host, str) else host.name
    if name in EMBEDDED:
        return name
    beside = Path(name) / CODEBOOK_FOLDER
    if beside.is_dir():
        return str(beside)
    raise CodebookError(
        f"There is no codebook for host {name!r} in this package or beside the model; pass "
        f"codebook=..., or fit one on plain text with: s3r fit {name} --text TEXTS --out CODEBOOK"
    )


def find_codebook(host: str | Host, codebook: str | Path | Codebook | None) -> Codebook:
    """Load a host's codebook: the one given or named, else the host's own.

    Raises:
        CodebookError: There is no codebook, or it cannot be read.
    """
    from s3_retriever.codebook import Codebook

    if isinstance(codebook, Codebook):
        return codebook
    return Codebook.from_pretrained(codebook_name(host, codebook))


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


def _load_once(host: str | Host, extent: dict[str, Any], options: dict[str, Any]) -> Host:
    from s3_retriever.host import Host

    if isinstance(host, Host):
        if options:
            raise InputError("A loaded host takes no options; pass them to Host.load instead.")
        return host
    key = (lasting(host), repr(extent), repr(sorted(options.items())))
    with _HOSTS_LOCK:
        if key not in _HOSTS:
            _HOSTS[key] = Host.load(host, **extent, **options)
        return _HOSTS[key]


def lasting(name: str) -> str:
    """A name that is valid from any working directory: an absolute path, or the name."""
    path = Path(name).expanduser()
    local = name not in EMBEDDED and (path.is_dir() or path.suffix.lower() == ".gguf")
    return str(path.resolve()) if local else name
