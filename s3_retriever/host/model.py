"""`Host`: a transformer without its LM head, cut off after the deepest layer that is read.

A host that also answers questions is loaded whole instead, once: it reads with the layers below
the head.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import Tensor, nn

from s3_retriever.document import Document, as_documents
from s3_retriever.errors import HostError, InputError, brief
from s3_retriever.host.batches import padded_length, padded_rows
from s3_retriever.host.device import (
    default_batch_tokens,
    find_device,
    find_dtype,
    is_out_of_memory,
    to_device,
)
from s3_retriever.host.families import Family, family_of
from s3_retriever.host.loading import DTYPE_OPTION, quiet
from s3_retriever.host.source import MINILM, locate
from s3_retriever.host.windows import OffsetTokenizer, Window, WindowShape, windows
from s3_retriever.paths import lasting
from s3_retriever.processes import renew_after_fork
from s3_retriever.types import check_count, check_source, check_text, check_type

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

# The chunk size of S3-Attention, section 4; encoders read at their own length.
_LONGEST_WINDOW = 2048
# all-MiniLM-L6-v2 was trained on sequences of up to 256 tokens.
_MINILM_WINDOW = 256


class Host:
    """A transformer that reads windows of text; make one with `Host.load` or `Host.of`.

    Attributes:
        name: The name that `load` was given.
        model: The base model in evaluation mode, without LM head. A run ends after the deepest
            tap, so layers beyond it cost nothing in reading.
        blocks: Its layers, in order.
        family: Where the layers keep their projections.
        tokenizer: Its tokenizer, with character offsets.
        shape: Size and overlap of its windows, in tokens.
        batch_tokens: Most padded tokens of a batch; lowered when a batch did not fit into the
            device's memory.
        lock: Held while the model runs, because hooks on its modules see every forward pass.
        hooks: The hooks of whoever holds the lock.
        source: The name and the options that load it again; None if it was made by `of`.
    """

    def __init__(
        self,
        name: str,
        model: PreTrainedModel,
        tokenizer: OffsetTokenizer,
        shape: WindowShape,
        batch_tokens: int,
        causal: PreTrainedModel | None = None,
    ) -> None:
        self.name = name
        self.model = model
        self._causal = causal
        self.tokenizer = tokenizer
        self.shape = shape
        self.batch_tokens = batch_tokens
        self.source: tuple[str, dict[str, Any]] | None = None
        self.lock = threading.Lock()
        self.hooks: list[RemovableHandle] = []
        self._forked = False
        renew_after_fork(self._renew)
        self._fingerprints: dict[int, str] = {}
        self.family: Family = family_of(model.config.model_type)
        blocks = model.get_submodule(self.family.blocks)
        self.blocks: list[nn.Module] = list(blocks.children())

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        layers: int | None = None,
        window: int | None = None,
        overlap: int | None = None,
        batch_tokens: int | None = None,
        device: str = "auto",
        dtype: str = "auto",
        revision: str | None = None,
        trust_remote_code: bool = False,
        local_files_only: bool = False,
        gguf_file: str | None = None,
        generates: bool = False,
        **model_options: Any,
    ) -> Host:
        """Load a host model.

        Args:
            name: `minilm` (all-MiniLM-L6-v2), `smollm2` (SmolLM2-135M-Instruct), a local folder or
                GGUF file (also as a path), or a model id on the Hub.
            layers: How many layers to load, counted from the input; defaults to all. The weights
                of the others are never read into memory.
            window: Most tokens of a window, including special tokens and title; defaults to 256
                for `minilm`, else to the model's own length up to 2,048.
            overlap: Tokens that neighbouring windows share; defaults to an eighth of the window.
            batch_tokens: Most padded tokens of a batch; the default depends on the device and, on
                a CPU, on the model's width.
            device: `auto` (CUDA, then MPS, then CPU) or a torch device.
            dtype: `auto` (bfloat16 if the device is fast in it, else float32), `bfloat16` or
                `float32`.
            revision: Branch, tag or commit on the Hub.
            trust_remote_code: Whether to run code that comes with the model.
            local_files_only: Whether to leave the Hub alone and look no further than its cache.
            gguf_file: Name of a GGUF file in the folder or Hub repository `name`. GGUF files are
                dequantised once and kept in the user's cache directory.
            generates: Whether to load the model whole, including the LM head. One copy of its
                weights then both reads and answers (see `causal`). Encoders have no such head and
                are loaded as always.
            model_options: More arguments of `from_pretrained`, such as `attn_implementation` or
                `device_map`.

        Raises:
            HostError: The model cannot be found or loaded, has no fast tokenizer, or is of an
                unknown family.
            InputError: `layers`, `window` or `overlap` does not fit the model, or there is no
                such device or dtype here.
        """
        if generates and layers is not None:
            raise InputError(
                "A host that generates is loaded whole; pass either layers or generates, not both."
            )
        name = check_source(name, "host")
        gguf_file = None if gguf_file is None else check_text(gguf_file, "gguf_file")
        source = locate(name, revision, gguf_file, local_files_only=local_files_only)
        remote = {
            "revision": revision,
            "trust_remote_code": trust_remote_code,
            "local_files_only": local_files_only,
        }
        config = _read_config(name, source, remote)
        family = family_of(config.model_type)
        if layers is not None:
            _truncate(config, layers)
        shape = _window_shape(name, config, family, window, overlap)
        where = find_device(device)
        limit = _batch_limit(batch_tokens, where, config)
        precision = find_dtype(dtype, where)
        tokenizer = OffsetTokenizer(_read_tokenizer(name, source, remote))
        model, causal = _read_model(
            name,
            source,
            config,
            {DTYPE_OPTION: precision} | remote | model_options,
            generates=generates and not family.bidirectional,
        )
        whole = causal or model
        if "device_map" not in model_options:
            whole.to(where)  # type: ignore[arg-type]
        whole.train(mode=False)
        host = cls(name, model, tokenizer, shape, limit, causal)
        host.source = (
            lasting(name),
            {
                "layers": layers,
                "window": window,
                "overlap": overlap,
                "batch_tokens": batch_tokens,
                "device": device,
                "dtype": dtype,
                "gguf_file": gguf_file,
                "generates": generates,
                **remote,
                **model_options,
            },
        )
        return host

    @classmethod
    def of(
        cls,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str | None = None,
        window: int | None = None,
        overlap: int | None = None,
        batch_tokens: int | None = None,
    ) -> Host:
        """Make a host from a loaded model, such as a quantised one.

        The model is not copied, but put into evaluation mode; the tokenizer is copied.

        Args:
            model: A base model, or a causal model, which then also generates.
            tokenizer: Its tokenizer.
            name: What messages call it and where to look for its codebook; defaults to the name
                that the model was loaded by.
            window: As in `load`.
            overlap: As in `load`.
            batch_tokens: As in `load`.

        Raises:
            HostError: The model is of an unknown family, or the tokenizer is not a fast one.
            InputError: `window` or `overlap` does not fit the model.
        """
        check_type(model, transformers.PreTrainedModel, "model")
        check_type(tokenizer, transformers.PreTrainedTokenizerBase, "tokenizer")
        name = None if name is None else check_text(name, "name")
        family = family_of(model.config.model_type)
        name = name or model.config.name_or_path or type(model).__name__
        shape = _window_shape(name, model.config, family, window, overlap)
        whole: Any = model.train(mode=False)
        generates = not family.bidirectional and whole.get_output_embeddings() is not None
        own = OffsetTokenizer(copy.deepcopy(tokenizer))
        limit = _batch_limit(batch_tokens, model.device, model.config)
        return cls(name, whole.base_model, own, shape, limit, whole if generates else None)

    def __copy__(self) -> Host:
        """The host itself: it does not change, and a copy would take as much memory again."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Host:
        """As `__copy__`."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle how it was loaded, not its weights.

        Raises:
            HostError: It was made by `of`.
        """
        return _load_again, self.named()

    def named(self) -> tuple[str, dict[str, Any]]:
        """The name and the options of `load` that load it again, in any process.

        Raises:
            HostError: It was made by `of`.
        """
        if self.source is None:
            raise HostError(
                f"Host {self.name!r} was made from a loaded model and cannot be pickled; load it "
                "by name with Host.load, or make it in each process."
            )
        return self.source

    @property
    def causal(self) -> PreTrainedModel:
        """The whole model with its LM head; it shares its modules with `model`.

        Raises:
            HostError: The host cannot generate.
        """
        if self._causal is not None:
            return self._causal
        if self.family.bidirectional:
            raise HostError(
                f"Host {self.name!r} is an encoder ({self.model.config.model_type}) and cannot "
                "generate; compress the context with it and give the evidence to another model, "
                "or use a causal model as host."
            )
        raise HostError(
            f"Host {self.name!r} has no LM head: it was loaded without generates=True, or its "
            "files have none; load a causal model with Host.load(..., generates=True)."
        )

    @property
    def positions(self) -> int | None:
        """Most tokens of a sequence, prompt and answer together; None without a limit."""
        counted = getattr(self.model.config, "max_position_embeddings", None)
        return None if counted is None else int(counted) - self.family.unused_positions

    @property
    def device(self) -> torch.device:
        """The device of the input embeddings."""
        return self._embeddings.device

    @property
    def _embeddings(self) -> Tensor:
        weight = self.model.get_input_embeddings().weight
        assert isinstance(weight, Tensor)
        return weight

    def windows(self, documents: Iterable[Document | str] | Document | str) -> Iterator[Window]:
        """Cut documents or plain texts into this host's windows, each at least one."""
        return windows(as_documents(documents), self.tokenizer, self.shape)

    @torch.inference_mode()
    def forward(self, batch: Sequence[Window]) -> None:
        """Run a batch of windows. It returns nothing: taps read what the model computes.

        Raises:
            HostError: As `check_process`.
        """
        self.check_process()
        # Padding never goes beyond a full window: the model may have no positions there.
        longest = max(len(window.ids) for window in batch)
        longest = max(longest, min(padded_length(longest), self.shape.size))
        shape = (padded_rows(len(batch)), longest)
        ids = torch.full(shape, self.tokenizer.pad_id, dtype=torch.long)
        mask = torch.zeros(shape, dtype=torch.long)
        # Attention needs something to look at in a row without a window.
        mask[len(batch) :, 0] = 1
        for row, window in enumerate(batch):
            ids[row, : len(window.ids)] = torch.from_numpy(window.ids)
            mask[row, : len(window.ids)] = 1
        options = {} if self.family.bidirectional else {"use_cache": False}
        try:
            ids, mask = to_device(ids, self.device), to_device(mask, self.device)
            self.model(input_ids=ids, attention_mask=mask, **options)
        except RuntimeError as error:
            if is_out_of_memory(error):
                # What does not fit now will not fit in the next scan either.
                self.batch_tokens = max(min(self.batch_tokens, ids.numel()) // 2, 1)
            raise

    def check_process(self) -> None:
        """Check that this process may run the model.

        Raises:
            HostError: The process was forked after the model had been put on a GPU.
        """
        if self._forked and self.device.type != "cpu":
            raise HostError(
                f"Host {self.name!r} is on {self.device}, which a forked process cannot use; start "
                "workers by spawn, or load the host after the fork."
            )

    def _renew(self) -> None:
        """In a forked child, forget the threads that only the parent has."""
        self._forked = True
        self.lock = threading.Lock()
        for hook in self.hooks:
            hook.remove()
        self.hooks.clear()
        # More than one thread would wait for those of the parent's pool.
        torch.set_num_threads(1)

    def fingerprint(self, layers: int) -> str:
        """Identify the tokenizer and the weights of the first `layers` layers.

        Two hosts with the same fingerprint give the same activations up to rounding: the digest
        covers the vocabulary and evenly spaced values of every weight, rounded to bfloat16 so
        that it is the same for a model loaded in float32 and in bfloat16.
        """
        layers = check_count(layers, "layers")
        if layers not in self._fingerprints:
            self._fingerprints[layers] = self._digest(layers)
        return self._fingerprints[layers]

    def _digest(self, layers: int) -> str:
        digest = hashlib.sha256()
        vocabulary = self.tokenizer.backend.get_vocab()
        for token, index in sorted(vocabulary.items(), key=lambda item: (item[1], item[0])):
            digest.update(f"{index} {token}\n".encode())
        _digest_weight(digest, "embeddings", self._embeddings)
        for i, block in enumerate(self.blocks[:layers]):
            for weight_name, weight in sorted(block.named_parameters()):
                _digest_weight(digest, f"{i}.{weight_name}", weight)
        return digest.hexdigest()[:32]


def cache_argument(model: Any) -> str:
    """What a model calls its cache, which differs between versions of transformers."""
    parameters = inspect.signature(type(model).forward).parameters
    return "cache" if "cache" in parameters else "past_key_values"


def _load_again(name: str, options: dict[str, Any]) -> Host:
    return Host.load(name, **options)


def _digest_weight(digest: Any, name: str, weight: Tensor) -> None:
    flat = weight.detach().flatten()
    step = max(flat.numel() // 64, 1)
    sample = flat[::step][:64].to("cpu", torch.bfloat16).float()
    digest.update(f"{name} {tuple(weight.shape)}\n".encode())
    digest.update(sample.numpy().tobytes())


def _unreadable(what: str, error: Exception) -> HostError:
    """The error for files at which a library fails; below transformers any class is raised."""
    if "trust_remote_code" in str(error):
        return HostError(
            f"{what} without running code that comes with the model; if you trust it, pass "
            "trust_remote_code=True."
        )
    return HostError(f"{what} ({brief(error)}); check its files, or fetch the model again.")


def _read_config(name: str, source: str, remote: dict[str, Any]) -> PretrainedConfig:
    try:
        config: PretrainedConfig = transformers.AutoConfig.from_pretrained(source, **remote)
    except Exception as error:
        raise _unreadable(f"The configuration of host {name!r} cannot be read", error) from error
    return config


def _read_tokenizer(name: str, source: str, remote: dict[str, Any]) -> Any:
    try:
        return transformers.AutoTokenizer.from_pretrained(source, use_fast=True, **remote)
    except Exception as error:
        raise _unreadable(f"The tokenizer of host {name!r} cannot be read", error) from error


def _read_model(
    name: str,
    source: str,
    config: PretrainedConfig,
    options: dict[str, Any],
    *,
    generates: bool,
) -> tuple[PreTrainedModel, PreTrainedModel | None]:
    """Load the base model and, if it shall generate and its files have a head, the whole model."""
    auto: Any = transformers.AutoModelForCausalLM if generates else transformers.AutoModel
    try:
        with quiet(bars=not Path(source).is_dir()):
            model, report = auto.from_pretrained(
                source, config=config, use_safetensors=True, output_loading_info=True, **options
            )
    except TypeError as error:
        raise InputError(
            f"An option does not suit host {name!r} ({error}); Host.load takes layers, window, "
            "overlap, batch_tokens, device, dtype, revision, trust_remote_code, generates, and "
            "what transformers' from_pretrained takes."
        ) from error
    except Exception as error:
        raise _unreadable(f"The weights of host {name!r} cannot be loaded", error) from error
    if not generates:
        return model, None
    # A head missing from the files has random weights. Tied heads do not count as missing.
    base = f"{model.base_model_prefix}."
    complete = all(key.startswith(base) for key in report["missing_keys"])
    return model.base_model, model if complete else None


def _batch_limit(tokens: int | None, device: torch.device, config: PretrainedConfig) -> int:
    if tokens is None:
        return default_batch_tokens(device, config)
    return check_count(tokens, "batch_tokens")


def _truncate(config: PretrainedConfig, layers: int) -> None:
    depth = config.num_hidden_layers
    if not 1 <= check_count(layers, "layers") <= depth:
        raise InputError(f"layers must be 1 to {depth}, as deep as the host, not {layers}.")
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]
    config.num_hidden_layers = layers


def _window_shape(
    name: str, config: PretrainedConfig, family: Family, window: int | None, overlap: int | None
) -> WindowShape:
    positions = int(getattr(config, "max_position_embeddings", _LONGEST_WINDOW))
    longest = positions - family.unused_positions
    default = _MINILM_WINDOW if name == MINILM else _LONGEST_WINDOW
    size = min(default, longest) if window is None else check_count(window, "window")
    if not 8 <= size <= longest:
        raise InputError(f"window must be 8 to {longest} tokens for host {name!r}, not {size}.")
    shared = size // 8 if overlap is None else check_count(overlap, "overlap", least=0)
    if not 0 <= shared <= size // 2:
        raise InputError(f"overlap must be 0 to {size // 2}, half a window, not {shared}.")
    return WindowShape(size, shared, family.bidirectional)
