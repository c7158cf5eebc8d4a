"""`KVCodebook`: the dictionaries of all layers, in memory and in a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from s3_retriever.codebook.files import CODEBOOK_FILE, replace_folder
from s3_retriever.errors import CodebookError, brief
from s3_retriever.host import Host
from s3_retriever.kv.atoms import MAX_ATOMS, Atoms
from s3_retriever.kv.fit import fit
from s3_retriever.kv.layer import LayerAtoms
from s3_retriever.kv.rotary import Rotary
from s3_retriever.paths import read_json
from s3_retriever.sae.weights import load_weights, save_weights
from s3_retriever.types import check_path, check_type

SCHEMA = "kv.3"
# Far more than any host has.
_MOST_LAYERS = 1_024
_ATOMS_FILE = "atoms.safetensors"
# By host.
SHIPPED = {folder.name: folder for folder in (Path(__file__).parent / "shipped").iterdir()}
_AGAIN = "fit it again with s3r fit HOST --kv"


class _Description(BaseModel):
    """What `codebook.json` holds; see the attributes of `KVCodebook`."""

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal["kv.3"]
    identity: str
    host: str
    fingerprint: str
    layers: Annotated[int, Field(ge=1, le=_MOST_LAYERS)]
    positions: Annotated[int, Field(ge=1)] | None
    report: dict[str, Any]


class KVCodebook:
    """Dictionaries of the keys and values of every layer of one host.

    Attributes:
        host_name: Name of the host that it was fitted for.
        fingerprint: `Host.fingerprint` of that host, over all layers.
        layers: The dictionaries and the rotation of each layer.
        positions: Most tokens of a sequence; None without a limit.
        report: What fitting measured.
    """

    def __init__(
        self,
        host_name: str,
        fingerprint: str,
        layers: Sequence[LayerAtoms],
        positions: int | None,
        report: dict[str, Any],
    ) -> None:
        self.host_name = host_name
        self.fingerprint = fingerprint
        self.layers = tuple(layers)
        self.positions = positions
        self.report = report

    @classmethod
    def fit(cls, host: Host, texts: Iterable[str], **settings: Any) -> KVCodebook:
        """Fit dictionaries from plain text, read in one streaming pass.

        Args:
            host: A causal model, loaded with all its layers.
            texts: Plain texts.
            settings: Sizes and the rest: see `s3_retriever.kv.fit.fit`.

        Raises:
            InputError: There is too little text, or a setting is out of range.
            HostError: The host's cache cannot be encoded.
            CodebookError: The checkpoint is damaged or of another fit.
        """
        layers, report = fit(host, texts, **settings)
        return cls(host.name, host.fingerprint(len(layers)), layers, host.positions, report)

    @property
    def features(self) -> int:
        """Atoms of the smallest dictionary."""
        return min(atoms.features for layer in self.layers for atoms in (layer.key, layer.value))

    @cached_property
    def identity(self) -> str:
        """Digest of all weights; codebooks with the same identity read each other's codes."""
        digest = hashlib.sha256(self.fingerprint.encode())
        for layer in self.layers:
            for atoms in (layer.key, layer.value):
                # Rounded as in the files: saving and loading keep the identity.
                for matrices in (atoms.dictionaries, atoms.metrics):
                    digest.update(matrices.to("cpu", torch.float16).numpy().tobytes())
                for vector in (atoms.centres, atoms.scales):
                    digest.update(vector.cpu().numpy().tobytes())
            digest.update(layer.rotary.frequencies.to("cpu").numpy().tobytes())
        return digest.hexdigest()[:32]

    def check_host(self, host: Host) -> None:
        """Refuse a host that this codebook does not belong to.

        Raises:
            CodebookError: The host has other weights or another number of layers.
        """
        check_type(host, Host, "host")
        depth = len(self.layers)
        if len(host.blocks) != depth or host.fingerprint(depth) != self.fingerprint:
            raise CodebookError(
                f"The codebook was fitted for host {self.host_name!r}, and host {host.name!r} has "
                f"other weights; fit one for it with: s3r fit {host.name} --kv"
            )

    def save(self, folder: str | Path) -> None:
        """Write the codebook to a folder, all or nothing; an existing codebook is replaced.

        Dictionaries and metrics are in float16.

        Raises:
            CodebookError: The folder cannot be written, or holds something else.
        """
        replace_folder(check_path(folder), self._write)

    def _write(self, folder: Path) -> None:
        folder.mkdir()
        tensors: dict[str, Tensor] = {}
        for i, layer in enumerate(self.layers):
            for name, atoms in ((f"key.{i}", layer.key), (f"value.{i}", layer.value)):
                tensors |= {
                    f"{name}.dictionaries": atoms.dictionaries.half(),
                    f"{name}.centres": atoms.centres,
                    f"{name}.scales": atoms.scales,
                    f"{name}.metrics": atoms.metrics.half(),
                }
            tensors[f"rotary.{i}.frequencies"] = layer.rotary.frequencies
            tensors[f"rotary.{i}.scaling"] = torch.tensor([layer.rotary.scaling])
        # Layers may share their frequencies, which safetensors refuses.
        save_weights(
            {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()},
            folder / _ATOMS_FILE,
        )
        description = _Description(
            schema_version=SCHEMA,
            identity=self.identity,
            host=self.host_name,
            fingerprint=self.fingerprint,
            layers=len(self.layers),
            positions=self.positions,
            report=self.report,
        )
        text = json.dumps(description.model_dump(), indent=2) + "\n"
        (folder / CODEBOOK_FILE).write_text(text)

    @classmethod
    def load(cls, name: str | Path) -> KVCodebook:
        """Read a codebook that is shipped, or one from a folder.

        Args:
            name: `smollm2`, the host whose codebook is shipped, or a folder.

        Raises:
            CodebookError: A file is missing or damaged, or does not belong to the others.
        """
        folder = SHIPPED.get(str(name)) or check_path(name)
        description = _read_description(folder)
        shapes: dict[str, tuple[int | None, ...]] = {}
        for i in range(description.layers):
            for side in (f"key.{i}", f"value.{i}"):
                shapes |= {f"{side}.{part}": (None,) * 3 for part in ("dictionaries", "metrics")}
                shapes |= {f"{side}.centres": (None, None), f"{side}.scales": (None,)}
            shapes |= {f"rotary.{i}.frequencies": (None,), f"rotary.{i}.scaling": (1,)}
        tensors = load_weights(folder / _ATOMS_FILE, "atoms of the codebook", shapes)
        layers = []
        rotaries: list[Rotary] = []
        for i in range(description.layers):
            scaling = float(tensors[f"rotary.{i}.scaling"])
            rotary = Rotary(tensors[f"rotary.{i}.frequencies"], scaling)
            # Layers that rotate alike share a rotation, and with it a table of its angles.
            rotary = next((known for known in rotaries if known.equals(rotary)), rotary)
            rotaries.append(rotary)
            key, value = (
                Atoms(
                    **{field.name: tensors[f"{side}.{i}.{field.name}"] for field in fields(Atoms)}
                )
                for side in ("key", "value")
            )
            layers.append(LayerAtoms(key, value, rotary))
        codebook = cls(
            description.host,
            description.fingerprint,
            layers,
            description.positions,
            description.report,
        )
        if not all(map(_fits, layers)) or codebook.identity != description.identity:
            raise CodebookError(
                f"The files of the codebook {folder} do not belong together; {_AGAIN}."
            )
        return codebook


def _fits(layer: LayerAtoms) -> bool:
    """Whether the sizes of a layer's parts suit each other, and its scales can be divided by."""
    heads, size = layer.key.centres.shape
    return (
        all(
            atoms.centres.shape == (heads, size)
            and atoms.scales.shape == (heads,)
            and atoms.dictionaries.shape == (heads, atoms.features, size)
            and atoms.metrics.shape == (heads, size, size)
            and 1 <= atoms.features <= MAX_ATOMS
            and bool((atoms.scales > 0).all())
            for atoms in (layer.key, layer.value)
        )
        and 2 * len(layer.rotary.frequencies) <= size
        and layer.rotary.scaling > 0
    )


def _read_description(folder: Path) -> _Description:
    path = folder / CODEBOOK_FILE
    try:
        fields = read_json(path)
        schema = fields["schema_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CodebookError(
            f"{folder} holds no key-value codebook ({brief(error)}); check the path, or {_AGAIN}."
        ) from error
    if schema != SCHEMA:
        raise CodebookError(
            f"{folder} holds a codebook of schema {brief(repr(schema))}, not of keys and values "
            f"({SCHEMA}); {_AGAIN}."
        )
    try:
        return _Description.model_validate(fields)
    except ValidationError as error:
        problem = error.errors()[0]
        where = brief(".".join(map(str, problem["loc"])))
        raise CodebookError(
            f"{path} does not describe a codebook ({brief(problem['msg'])} at {where}); {_AGAIN}."
        ) from error
