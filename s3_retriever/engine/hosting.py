"""Finding the host and the codebook that an index or an answer works with."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s3_retriever.errors import CodebookError, InputError

if TYPE_CHECKING:
    from s3_retriever.codebook import Codebook
    from s3_retriever.host import Host

# The embedded host, whose codebook is shipped.
MINILM = "minilm"
# A codebook in this folder of a model's folder is found without being named.
CODEBOOK_FOLDER = "s3-codebook"

_HOSTS: dict[object, Host] = {}
_HOSTS_LOCK = threading.Lock()


def codebook_name(host: str | Host, codebook: str | Path | None) -> str:
    """The codebook that was named, else the one that belongs to the host; loads nothing.

    Returns:
        `minilm`, a folder, or an id on the Hugging Face Hub.

    Raises:
        CodebookError: There is none.
    """
    if codebook is not None:
        return str(codebook)
    name = host if isinstance(host, str) else host.name
    if name == MINILM:
        return MINILM
    beside = Path(name) / CODEBOOK_FOLDER
    if beside.is_dir():
        return str(beside)
    raise CodebookError(
        f"No codebook for host {name!r} comes with this package or the model; pass codebook=..., "
        f"or fit one on plain text with: s3r fit {name} --text TEXTS --out CODEBOOK"
    )


def find_codebook(host: str | Host, codebook: str | Path | Codebook | None) -> Codebook:
    """The codebook that was given or named, else the one that belongs to the host.

    Raises:
        CodebookError: There is none, or it cannot be read.
    """
    from s3_retriever.codebook import Codebook

    if isinstance(codebook, Codebook):
        return codebook
    return Codebook.from_pretrained(codebook_name(host, codebook))


def shared_host(host: str | Host, codebook: Codebook, options: dict[str, Any]) -> Host:
    """A host by name, loaded once per process for the same codebook depth and options.

    Raises:
        HostError: It cannot be loaded.
        InputError: Options for a host that is loaded already.
    """
    return _load_once(host, {"layers": codebook.depth}, options)


def answering_host(host: str | Host, options: dict[str, Any]) -> Host:
    """A host by name, loaded whole and once per process so that it can also generate.

    Raises:
        HostError: It cannot be loaded.
        InputError: Options for a host that is loaded already.
    """
    return _load_once(host, {"generates": True}, options)


def _load_once(host: str | Host, extent: dict[str, Any], options: dict[str, Any]) -> Host:
    from s3_retriever.host import Host

    if isinstance(host, Host):
        if options:
            raise InputError("A loaded host takes no further options; give them to Host.load.")
        return host
    key = (lasting(host), repr(extent), repr(sorted(options.items())))
    with _HOSTS_LOCK:
        if key not in _HOSTS:
            _HOSTS[key] = Host.load(host, **extent, **options)
        return _HOSTS[key]


def lasting(name: str) -> str:
    """A folder's absolute path, valid from any working directory; other names as they are."""
    folder = Path(name).expanduser()
    return str(folder.resolve()) if name != MINILM and folder.is_dir() else name
