"""`TopKSAE`: encode, decode, save and load."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from s3_retriever.errors import CodebookError, InputError, brief
from s3_retriever.features import MAX_FEATURES
from s3_retriever.host.batches import padded_rows
from s3_retriever.paths import begin_draft, read_json
from s3_retriever.sae.weights import load_weights, save_weights
from s3_retriever.types import check_count, check_path, check_type

# How preactivations become activations: the k largest, all above zero, or all above thresholds.
Activation = Literal["topk", "relu", "jumprelu"]

_BLOCK_ROWS = 1_024
# Rows are padded to multiples of this, fewer of them to powers of two: the matrix library keeps
# what it prepares for every shape, and each batch has another number of tokens.
_ROW_STEP = 128


@dataclass(frozen=True, slots=True)
class TopKEncoder:
    """The strongest features of activations.

    Attributes:
        weights: [width, features].
        bias: [features], in the dtype of the weights. It includes the centring of the input,
            which saves a pass over it.
        k: Most features of a row.
        threshold: What a feature's preactivation must exceed to fire [features], float32; None
            for zero.
    """

    weights: Tensor
    bias: Tensor
    k: int
    threshold: Tensor | None = None

    def encode(self, x: Tensor, k: int | None = None) -> tuple[Tensor, Tensor]:
        """Find the strongest features of each row.

        Args:
            x: Activations [rows, width], any floating dtype.
            k: How many features to keep; defaults to the encoder's own k.

        Returns:
            Values [rows, k], float32, strongest first, and feature indices [rows, k], int64. A
            feature that does not fire (its value is not above zero) has index -1 and value 0.
        """
        k = self.k if k is None else min(k, self.weights.shape[1])
        values, indices = [], []
        for block in torch.split(x, _BLOCK_ROWS):
            value, index = self._fired(self._preactivations(block)).topk(k, dim=1)
            values.append(value.float().clamp_min(0.0))
            indices.append(torch.where(value > 0, index, -1))
        return torch.cat(values), torch.cat(indices)

    def _fired(self, preactivations: Tensor) -> Tensor:
        if self.threshold is None:
            return preactivations
        fires = preactivations > self.threshold.to(preactivations.device)
        return preactivations.masked_fill(~fires, 0.0)

    def _preactivations(self, block: Tensor) -> Tensor:
        padded = functional.pad(block, (0, 0, 0, padded_rows(len(block), _ROW_STEP) - len(block)))
        return torch.addmm(self.bias, padded.to(self.weights.dtype), self.weights)[: len(block)]


CONFIG_FILE = "cfg.json"
WEIGHTS_FILE = "sae_weights.safetensors"
# Beside the weights, as loaders of SAELens' layout refuse tensors that they do not know.
ACTIVATIONS_FILE = "activations.safetensors"
# Sites at which a layer's output can be read.
_HOOK = re.compile(
    r"blocks\.(?P<block>[0-9]{1,4})\.hook_resid_(?P<side>pre|post)|hidden\.(?P<tap>[0-9]{1,4})"
)
# What SAELens calls the ways to fire.
_ARCHITECTURES: dict[Activation, str] = {"topk": "topk", "relu": "standard", "jumprelu": "jumprelu"}
# The release of SAELens whose file layout is written; its loader reads this field.
_SAE_LENS_VERSION = "6.0.0"


class TopKSAE(nn.Module):
    """A sparse autoencoder with a Top-k code (S3-Attention, section 3; Gao et al. 2024).

    `z = ReLU(topk((x - b_dec) W_enc + b_enc))` and `x_hat = z W_dec + b_dec`.

    SAEs that were trained elsewhere (`load_sae`) may fire by other rules, `relu` or `jumprelu`.
    Their codes are the k strongest of the features that fire; `activations` has all of them.

    Attributes:
        W_enc: [width, features].
        W_dec: [features, width]; rows of unit norm if it was trained here, in the metric of its
            training.
        b_enc: [features].
        b_dec: [width].
        k: Most features of a token in a code; of a Top-k SAE, also of its activations.
        activation: `topk`, `relu` or `jumprelu`.
        threshold: What a feature's preactivation must exceed to fire [features]; None for zero.
        layer: The layer of a language model whose output it encodes, where its files say so.
        mean_activations: Mean activation of each feature on the tokens on which it fires, float32
            [features]; None if not known.
    """

    activation: Activation
    threshold: Tensor | None
    layer: int | None
    mean_activations: Tensor | None

    def __init__(self, width: int, features: int, k: int) -> None:
        super().__init__()
        width, features = check_count(width, "width"), check_count(features, "features")
        self.k = _checked_k(check_count(k, "k"), features)
        self.activation, self.threshold, self.layer = "topk", None, None
        self.register_buffer("mean_activations", None, persistent=False)
        directions = functional.normalize(torch.randn(features, width), dim=1)
        self.W_dec = nn.Parameter(directions)
        self.W_enc = nn.Parameter(directions.T.clone().contiguous())
        self.b_enc = nn.Parameter(torch.zeros(features))
        self.b_dec = nn.Parameter(torch.zeros(width))

    @classmethod
    def of(
        cls,
        weights: Mapping[str, Tensor],
        k: int,
        activation: Activation = "topk",
        layer: int | None = None,
    ) -> TopKSAE:
        """Make an SAE of trained weights, which are frozen and not copied.

        Args:
            weights: `W_enc`, `W_dec`, `b_enc` and `b_dec` by name, shapes as in the class; for
                `jumprelu` also `threshold` [features].
            k: Most features of a token in a code.
            activation: How its features fire.
            layer: The layer whose output it encodes, if known.

        Raises:
            CodebookError: k is out of range.
        """
        # The constructor would draw random weights first, and making it draw on torch's device
        # "meta" costs the import of torch._dynamo, more than a second.
        sae = cls.__new__(cls)
        nn.Module.__init__(sae)
        sae.k = _checked_k(k, len(weights["b_enc"]))
        sae.activation, sae.layer = activation, layer
        sae.register_buffer("threshold", weights["threshold"] if activation == "jumprelu" else None)
        sae.register_buffer("mean_activations", None, persistent=False)
        for name in ("W_dec", "W_enc", "b_enc", "b_dec"):
            setattr(sae, name, nn.Parameter(weights[name], requires_grad=False))
        return sae

    @property
    def width(self) -> int:
        """Size of the activations that are encoded."""
        return self.W_enc.shape[0]

    @property
    def features(self) -> int:
        """Size of the dictionary."""
        return self.W_enc.shape[1]

    @property
    def mean_contributions(self) -> Tensor:
        """What each feature adds to a reconstruction where it fires, on average [features, width].

        Raises:
            CodebookError: The mean activations are not known.
        """
        if self.mean_activations is None:
            raise CodebookError(
                "The mean activations of the SAE's features are not known; fit it again."
            )
        return self.W_dec.detach() * self.mean_activations[:, None]

    def encoder(self) -> TopKEncoder:
        """The encoding half: `(x - b_dec) W_enc + b_enc`, then the k largest that fire."""
        bias = self.b_enc - self.b_dec @ self.W_enc
        return TopKEncoder(self.W_enc, bias, self.k, self.threshold)

    def encode(self, x: Tensor, k: int | None = None) -> tuple[Tensor, Tensor]:
        """Find the strongest features of each row.

        Args:
            x: Activations [rows, width], any floating dtype.
            k: How many features to keep; defaults to the SAE's own k.

        Returns:
            Values [rows, k], float32, strongest first, and feature indices [rows, k], int64. A
            feature that does not fire (its value is not above zero) has index -1 and value 0.
        """
        self._check(x)
        return self.encoder().encode(x, None if k is None else check_count(k, "k"))

    def activations(self, x: Tensor) -> Tensor:
        """Compute every feature of each row, 0 where it does not fire.

        Args:
            x: Activations of the model [rows, width], any floating dtype.

        Returns:
            float32 [rows, features].
        """
        self._check(x)
        if self.activation == "topk":
            values, indices = self.encode(x)
            empty = values.new_zeros(len(x), self.features)
            # Features that do not fire add their value, 0, to the first one.
            return empty.scatter_add_(1, indices.clamp_min(0), values)
        pre = (x.to(self.W_enc.dtype) - self.b_dec) @ self.W_enc + self.b_enc
        floor = 0.0 if self.threshold is None else self.threshold
        return torch.where(pre > floor, pre, 0.0).float()

    def _check(self, x: Tensor) -> None:
        check_type(x, Tensor, "activations")
        if x.ndim != 2 or x.shape[1] != self.width or not x.is_floating_point():
            raise InputError(
                f"Activations must be floating-point numbers [rows, {self.width}], not "
                f"{x.dtype} {list(x.shape)}."
            )

    def decode(self, values: Tensor, indices: Tensor) -> Tensor:
        """Reconstruct rows from their features.

        Args:
            values: [rows, k], 0 where a feature does not fire.
            indices: [rows, k]; -1 where a feature does not fire.

        Returns:
            Reconstructed activations [rows, width] in the dtype of `W_dec`.
        """
        rows = functional.embedding_bag(
            indices.clamp_min(0),
            self.W_dec,
            per_sample_weights=values.to(self.W_dec.dtype),
            mode="sum",
        )
        return rows + self.b_dec

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct activations [rows, width] through the Top-k code."""
        return self.decode(*self.encode(x))

    def save(
        self, folder: str | Path, *, dtype: torch.dtype = torch.float32, **metadata: Any
    ) -> None:
        """Write `cfg.json` and `sae_weights.safetensors` in the SAELens v6 layout.

        Args:
            folder: The folder; made if it does not exist.
            dtype: Type of the matrices in the file. The biases stay float32, as the mean of an
                activation may lie beyond the range of float16.
            metadata: JSON values to keep beside the configuration, such as `hook_name`.
        """
        folder = check_path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = {
            "architecture": _ARCHITECTURES[self.activation],
            "d_in": self.width,
            "d_sae": self.features,
            "k": self.k,
            "dtype": str(dtype).removeprefix("torch."),
            "device": "cpu",
            "apply_b_dec_to_input": True,
            "normalize_activations": "none",
            "reshape_activations": "none",
            "rescale_acts_by_decoder_norm": False,
            "metadata": {
                "sae_lens_version": _SAE_LENS_VERSION,
                "mean_activations": self.mean_activations is not None,
                **metadata,
            },
        }
        tensors = {
            name: weight.to("cpu", dtype if weight.ndim == 2 else torch.float32).contiguous()
            for name, weight in self.state_dict().items()
        }
        with begin_draft(folder / CONFIG_FILE) as file:
            file.write(f"{json.dumps(config, indent=2)}\n".encode())
        save_weights(tensors, folder / WEIGHTS_FILE)
        (folder / ACTIVATIONS_FILE).unlink(missing_ok=True)
        if self.mean_activations is not None:
            save_weights({"mean": self.mean_activations.cpu()}, folder / ACTIVATIONS_FILE)

    @classmethod
    def load(cls, folder: str | Path) -> TopKSAE:
        """Read an SAE that `save` wrote, as float32; `load_sae` reads those of others.

        Raises:
            CodebookError: A file is missing or damaged, or the SAE is of another kind.
        """
        folder = check_path(folder)
        config = _read_config(folder / CONFIG_FILE)
        width, features, k = config["d_in"], config["d_sae"], config["k"]
        activation = next(a for a, name in _ARCHITECTURES.items() if name == config["architecture"])
        shapes = {
            "W_enc": (width, features),
            "W_dec": (features, width),
            "b_enc": (features,),
            "b_dec": (width,),
        }
        if activation == "jumprelu":
            shapes["threshold"] = (features,)
        weights = load_weights(folder / WEIGHTS_FILE, "SAE weights", shapes)
        sae = cls.of(weights, k, activation, hooked_layer(config))
        metadata = config.get("metadata")
        if isinstance(metadata, Mapping) and metadata.get("mean_activations"):
            path, shapes = folder / ACTIVATIONS_FILE, {"mean": (features,)}
            sae.mean_activations = load_weights(path, "mean activations", shapes)["mean"]
            if (sae.mean_activations < 0).any():
                raise CodebookError(
                    f"{path} has mean activations below zero; fetch or fit the codebook again."
                )
        return sae


def hooked_layer(config: Mapping[str, Any]) -> int | None:
    """The layer whose output an SAE encodes, by its hook in TransformerLens or its tap."""
    metadata = config.get("metadata")
    hook = metadata.get("hook_name") if isinstance(metadata, Mapping) else None
    match = _HOOK.fullmatch(str(hook))
    if match is None:
        return None
    layer = int(match["tap"] or match["block"]) - (match["side"] == "pre")
    return layer if layer >= 0 else None


def _checked_k(k: int, features: int) -> int:
    if not 1 <= k <= features:
        raise CodebookError(f"k must be between 1 and the {features} features, not {k}.")
    return k


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = dict(read_json(path))
        sizes = [config["d_in"], config["d_sae"], config["k"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CodebookError(
            f"The SAE configuration {path} cannot be read ({brief(repr(error))}); fetch or fit the "
            "codebook again."
        ) from error
    known = config.get("architecture") in _ARCHITECTURES.values()
    if not known or config.get("rescale_acts_by_decoder_norm"):
        raise CodebookError(
            f"{path} does not describe an SAE that this package wrote; read it with load_sae, and "
            "save it."
        )
    scaled = config.get("normalize_activations", "none") != "none"
    if (
        scaled
        or not config.get("apply_b_dec_to_input", True)
        or any(type(size) is not int or not 1 <= size <= MAX_FEATURES for size in sizes)
    ):
        raise CodebookError(
            f"{path} has sizes or settings that this package cannot use; fit the codebook again."
        )
    return config
