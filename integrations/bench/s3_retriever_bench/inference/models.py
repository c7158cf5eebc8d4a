"""The model that `inference` measures: a host, or a decoder of a known shape with random weights.

Speed and memory do not depend on the values of weights and of SAE directions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from s3_retriever import Codebook, Document, Host, TopKSAE
from s3_retriever.codebook.recipes import default_recipe
from s3_retriever.host.device import find_device, find_dtype
from s3_retriever.host.taps import Tap, read
from s3_retriever_bench.shared.corpus import documents
from s3_retriever_bench.shared.storage import check_names

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

BOS, EOS = 0, 1
_SPECIALS = {"bos_token": "<s>", "eos_token": "</s>"}
# Only a limit: rotary positions take no memory.
_POSITIONS = 1 << 18
# Enough for three to four characters per token, as real tokenizers have, trained in seconds.
_VOCABULARY = 8_192
_CHARACTERS = 2_000_000
# Defaults of `Codebook.fit`.
_FEATURES_PER_WIDTH = 16
_K = 32


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a decoder.

    Attributes:
        family: Model type of transformers.
        layers: Number of layers.
        width: Width of the hidden states.
        query_heads: Number of query heads.
        key_heads: Number of key and value heads.
        head_size: Width of a head.
        intermediate: Width inside the feed-forward networks.
        vocabulary: Rows of the embeddings, shared with the LM head.
        lengths: Tokens of the contexts to measure by default.
    """

    family: str
    layers: int
    width: int
    query_heads: int
    key_heads: int
    head_size: int
    intermediate: int
    vocabulary: int
    lengths: tuple[int, ...]

    def config(self) -> PretrainedConfig:
        """The configuration of a model of this shape."""
        from transformers import AutoConfig

        return AutoConfig.for_model(
            self.family,
            num_hidden_layers=self.layers,
            hidden_size=self.width,
            num_attention_heads=self.query_heads,
            num_key_value_heads=self.key_heads,
            head_dim=self.head_size,
            intermediate_size=self.intermediate,
            vocab_size=self.vocabulary,
            max_position_embeddings=_POSITIONS,
            tie_word_embeddings=True,
            bos_token_id=BOS,
            eos_token_id=EOS,
        )


DEFAULT_SHAPE = "135m"
SHAPES = {
    DEFAULT_SHAPE: Shape("llama", 30, 576, 9, 3, 64, 1536, 49_152, (4096, 8192, 16_384, 32_768)),
    "0.6b": Shape("qwen3", 28, 1024, 16, 8, 128, 3072, 151_936, (4096, 8192)),
}


def shape_named(name: str) -> Shape:
    """A shape by its name.

    Raises:
        InputError: There is no such shape.
    """
    check_names([name], SHAPES, "shape")
    return SHAPES[name]


def random_model(name: str, tokenizer: Path) -> Host:
    """A decoder of a known shape with random weights, on the default device.

    Args:
        name: Name of the shape.
        tokenizer: Folder of its tokenizer.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device = find_device()
    models: Any = AutoModelForCausalLM
    torch.manual_seed(0)
    with _default_dtype(find_dtype("auto", device)), device:
        model = models.from_config(shape_named(name).config(), attn_implementation="sdpa")
    return Host.of(model, AutoTokenizer.from_pretrained(tokenizer), name=name)


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Create tensors in a dtype; the argument for it differs between versions of transformers."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def random_codebook(host: Host, tap: str | None, sample: str) -> Codebook:
    """A codebook of one tap with random directions, of the size and recipe of a fitted one.

    Args:
        host: Its host.
        tap: A tap such as `key.15`; None for the keys of the middle layer.
        sample: A text whose mean activation is the SAE's centre. Without it all tokens would have
            the same features, whose postings would be longer than those of a fitted codebook.

    Raises:
        InputError: The host has no such tap.
    """
    config = host.model.config
    site = Tap("key", config.num_hidden_layers // 2) if tap is None else Tap.parse(tap)
    windows = list(host.windows([Document(sample)]))
    centre = read(host, [site], windows[:1])[site].float().mean(0).cpu().clone()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sae = TopKSAE(len(centre), _FEATURES_PER_WIDTH * config.hidden_size, _K)
    sae.b_dec = nn.Parameter(centre)
    sae.requires_grad_(requires_grad=False)
    saes = {site: sae}
    return Codebook(host.name, host.fingerprint(site.layer + 1), saes, default_recipe(host, saes))


def make_tokenizer(files: Sequence[Path], vocabulary: int) -> PreTrainedTokenizerBase:
    """Train byte-level pairs on the first two million characters of the texts.

    Args:
        files: Texts, as `corpus.documents` reads them.
        vocabulary: Maximum number of tokens.
    """
    from tokenizers import ByteLevelBPETokenizer, Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(
        _beginning(files),
        vocab_size=min(vocabulary, _VOCABULARY),
        min_frequency=0,
        show_progress=False,
        special_tokens=list(_SPECIALS.values()),
    )
    backend = Tokenizer.from_str(trained.to_str())
    assert [backend.token_to_id(token) for token in _SPECIALS.values()] == [BOS, EOS]
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", BOS)]
    )
    wrapper: Any = PreTrainedTokenizerFast
    tokenizer: PreTrainedTokenizerBase = wrapper(tokenizer_object=backend, **_SPECIALS)
    return tokenizer


def _beginning(files: Sequence[Path]) -> Iterator[str]:
    characters = 0
    for document in documents(files):
        yield document.text
        characters += len(document.text)
        if characters >= _CHARACTERS:
            return
