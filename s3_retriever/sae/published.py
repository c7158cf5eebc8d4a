"""`load_sae`: autoencoders of residual streams as others publish them."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from s3_retriever.errors import CodebookError, InputError, brief
from s3_retriever.features import MAX_FEATURES
from s3_retriever.paths import read_json, regular_size
from s3_retriever.sae.model import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    Activation,
    TopKSAE,
    hooked_layer,
)
from s3_retriever.sae.torch_file import read_tensors
from s3_retriever.sae.weights import load_weights
from s3_retriever.types import check_count, check_path

SPARSIFY_FILE = "sae.safetensors"
GEMMA_FILE = "params.npz"
# Features in a code of an SAE that has no k of its own.
_DEFAULT_K = 128
# What SAELens calls the ways to fire; SAEs of type batchtopk are published as jumprelu.
_SAE_LENS: dict[str, Activation] = {
    "standard": "relu",
    "topk": "topk",
    "batchtopk": "jumprelu",
    "jumprelu": "jumprelu",
}


def load_sae(path: str | Path, *, k: int | None = None, layer: int | None = None) -> TopKSAE:
    """Read an SAE of a language model's residual stream, as float32 and frozen.

    Nothing in its files is run, not even the pickle in a `.pt` file. Biases and scales are folded
    in, so that `(x - b_dec) W_enc + b_enc` are the preactivations whatever the layout.

    Args:
        path: A folder of SAELens 6 (`cfg.json`, `sae_weights.safetensors`; standard, top-k,
            batch-top-k and JumpReLU), of sparsify (`cfg.json`, `sae.safetensors`) or of Gemma
            Scope (`params.npz`), the latter's file itself, or a file of Qwen-Scope
            (`layer12.sae.pt`).
        k: Features of a token in a code. A Top-k SAE has its own; Qwen-Scope's is in the name of
            its folder (`L0_50`). For others it bounds codes alone; defaults to 128.
        layer: The layer whose output it encodes, counted from 0; by default what its files or
            folders say.

    Raises:
        CodebookError: Files are missing or damaged, or the SAE is of another kind.
        InputError: k is not known.
    """
    path = check_path(path)
    k = None if k is None else check_count(k, "k")
    layer = None if layer is None else check_count(layer, "layer", least=0)
    if path.suffix == ".pt":
        return _qwen_scope(path, k, layer)
    if path.suffix == ".npz" or (path / GEMMA_FILE).is_file():
        return _gemma_scope(path if path.suffix == ".npz" else path / GEMMA_FILE, k, layer)
    if (path / SPARSIFY_FILE).is_file():
        return _sparsify(path, k, layer)
    if (path / CONFIG_FILE).is_file():
        return _sae_lens(path, k, layer)
    raise CodebookError(
        f"{path} holds no SAE of a known layout ({CONFIG_FILE} with {WEIGHTS_FILE} or "
        f"{SPARSIFY_FILE}, {GEMMA_FILE}, or a file .sae.pt); check the path."
    )


def _sae_lens(folder: Path, k: int | None, layer: int | None) -> TopKSAE:
    config = _config(folder)
    kind = _SAE_LENS.get(str(config.get("architecture")))
    if kind is None:
        raise _unusable(folder, f"of architecture {config.get('architecture')!r}")
    for name, plain in (("normalize_activations", "none"), ("reshape_activations", "none")):
        if config.get(name, plain) != plain:
            raise _unusable(folder, f"with {name} {config[name]!r}")
    width, features = _size(config, "d_in", folder), _size(config, "d_sae", folder)
    shapes: dict[str, tuple[int, ...]] = {
        "W_enc": (width, features),
        "W_dec": (features, width),
        "b_enc": (features,),
        "b_dec": (width,),
    }
    training = config["architecture"] == "batchtopk"
    if kind == "jumprelu":
        shapes |= {"topk_threshold": ()} if training else {"threshold": (features,)}
    weights = load_weights(folder / WEIGHTS_FILE, "SAE weights", shapes)
    if training:
        weights["threshold"] = weights.pop("topk_threshold").expand(features).clone()
    return _made(
        weights,
        kind,
        _size(config, "k", folder) if kind == "topk" else k,
        hooked_layer(config) if layer is None else layer,
        subtracts=bool(config.get("apply_b_dec_to_input", True)),
        rescales=bool(config.get("rescale_acts_by_decoder_norm", False)),
    )


def _sparsify(folder: Path, k: int | None, layer: int | None) -> TopKSAE:
    config = _config(folder)
    if config.get("activation", "topk") != "topk" or config.get("signed"):
        raise _unusable(folder, f"with activation {config.get('activation')!r}")
    if config.get("transcode") or config.get("skip_connection"):
        raise _unusable(folder, "that is a transcoder")
    width = _size(config, "d_in", folder)
    features = config.get("num_latents") or width * _size(config, "expansion_factor", folder)
    if type(features) is not int or not 1 <= features <= MAX_FEATURES:
        raise _unusable(folder, f"with num_latents {features!r}")
    shapes = {
        "encoder.weight": (features, width),
        "encoder.bias": (features,),
        "W_dec": (features, width),
        "b_dec": (width,),
    }
    weights = load_weights(folder / SPARSIFY_FILE, "SAE weights", shapes)
    weights["W_enc"] = weights.pop("encoder.weight").T.contiguous()
    weights["b_enc"] = weights.pop("encoder.bias")
    own = _size(config, "k", folder) if k is None else k
    named = re.fullmatch(r"(?:\w+\.)*(?:layers|h|blocks)\.([0-9]+)", folder.name)
    return _made(weights, "topk", own, int(named[1]) if layer is None and named else layer)


def _gemma_scope(path: Path, k: int | None, layer: int | None) -> TopKSAE:
    names = ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")
    try:
        regular_size(path)
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            weights = {name: torch.from_numpy(np.asarray(arrays[name])) for name in names}
    except (OSError, ValueError, KeyError, TypeError, MemoryError, RuntimeError, EOFError,
            BadZipFile, zlib.error) as error:  # fmt: skip
        raise CodebookError(
            f"The SAE {path} cannot be read ({brief(error)}); fetch it again."
        ) from error
    named = [re.fullmatch(r"layer_([0-9]+)", part) for part in path.absolute().parts]
    layers = [int(match[1]) for match in named if match]
    layer = layers[-1] if layer is None and layers else layer
    # The encoder reads states as they are.
    return _made(_checked(weights, path), "jumprelu", k, layer, subtracts=False)


def _qwen_scope(path: Path, k: int | None, layer: int | None) -> TopKSAE:
    own = re.findall(r"L0_([0-9]+)", str(path.absolute()))
    k = int(own[-1]) if k is None and own else k
    if k is None:
        raise InputError(
            f"The file {path} does not say how many features fire on a token; pass k=, which the "
            "name of its repository ends with (L0_50)."
        )
    tensors = read_tensors(path)
    names = ("W_enc", "W_dec", "b_enc", "b_dec")
    if missing := set(names) - set(tensors):
        raise _unusable(path, f"without {min(missing)}")
    # Both matrices are stored the other way round, and the encoder reads states as they are.
    weights = {name: tensors[name].T if name[0] == "W" else tensors[name] for name in names}
    named = re.match(r"layer_?([0-9]+)", path.name)
    layer = int(named[1]) if layer is None and named else layer
    return _made(_checked(weights, path), "topk", k, layer, subtracts=False)


def _made(
    weights: Mapping[str, Tensor],
    kind: Activation,
    k: int | None,
    layer: int | None,
    *,
    subtracts: bool = True,
    rescales: bool = False,
) -> TopKSAE:
    """Fold an SAE's conventions into its weights.

    Args:
        weights: As in `TopKSAE.of`.
        kind: How it fires.
        k: Features of a code; None for the default.
        layer: The layer, if known.
        subtracts: Whether b_dec is subtracted from what it encodes.
        rescales: Whether activations are in units of the decoder rows' norms.
    """
    folded = dict(weights)
    if not subtracts:
        folded["b_enc"] = folded["b_enc"] + folded["b_dec"] @ folded["W_enc"]
    if rescales:
        norms = folded["W_dec"].norm(dim=1).clamp_min(1e-12)
        folded["W_enc"], folded["b_enc"] = folded["W_enc"] * norms, folded["b_enc"] * norms
        folded["W_dec"] = folded["W_dec"] / norms[:, None]
    if kind == "jumprelu":
        folded["threshold"] = folded["threshold"].clamp_min(0.0)
    features = len(folded["b_enc"])
    return TopKSAE.of(folded, min(_DEFAULT_K, features) if k is None else k, kind, layer)


def _checked(weights: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Check sizes and values, which the layout says nothing about: float32 and contiguous."""
    shape = tuple(weights["W_enc"].shape)
    if len(shape) != 2 or not all(1 <= size <= MAX_FEATURES for size in shape):
        raise _unusable(path, f"with W_enc of shape {list(shape)}")
    width, features = shape
    wanted: dict[str, tuple[int, ...]] = {
        "W_enc": (width, features),
        "W_dec": (features, width),
        "b_enc": (features,),
        "b_dec": (width,),
        "threshold": (features,),
    }
    checked = {}
    for name, weight in weights.items():
        if tuple(weight.shape) != wanted[name] or not weight.is_floating_point():
            raise _unusable(path, f"with {name} of shape {list(weight.shape)} and {weight.dtype}")
        checked[name] = weight.float().contiguous()
        if not torch.isfinite(checked[name]).all():
            raise CodebookError(
                f"The tensor {name} in {path} has values that are not finite numbers; fetch it "
                "again."
            )
    return checked


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    try:
        return dict(read_json(path))
    except (OSError, ValueError, TypeError) as error:
        raise CodebookError(
            f"The SAE configuration {path} cannot be read ({brief(error)}); fetch it again."
        ) from error


def _size(config: Mapping[str, Any], name: str, folder: Path) -> int:
    size = config.get(name)
    if type(size) is not int or not 1 <= size <= MAX_FEATURES:
        raise _unusable(folder, f"with {name} {size!r}")
    return size


def _unusable(path: Path, problem: str) -> CodebookError:
    return CodebookError(
        f"{path} holds an SAE {problem}, which this package cannot use; choose a standard, top-k, "
        "batch-top-k or JumpReLU one of a residual stream."
    )
