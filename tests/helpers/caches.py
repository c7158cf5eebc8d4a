"""Tiny models that generate, and codebooks of their keys and values that nobody has fitted."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto import CONFIG_MAPPING

from s3_retriever.kv import KVCodebook, LayerAtoms
from s3_retriever.kv.atoms import Atoms
from s3_retriever.kv.rotary import Rotary

HEAD = 8
# Of 90 tokens.
PROMPT = torch.arange(2, 92)[None]
SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": None,
    "pad_token_id": 1,
}
GROUPED = SIZES | {"num_key_value_heads": 2}
MODELS: dict[str, dict[str, Any]] = {
    "llama": GROUPED,
    "qwen3": GROUPED | {"head_dim": HEAD},
    "gpt2": SIZES,
}


def tiny_model(model_type: str, **options: Any) -> PreTrainedModel:
    """A causal model with random weights."""
    torch.manual_seed(0)
    config = CONFIG_MAPPING[model_type](**MODELS.get(model_type, SIZES) | options)
    return AutoModelForCausalLM.from_config(config).eval()


def random_codebook(model: PreTrainedModel, features: int = 64, **changes: Any) -> KVCodebook:
    """A codebook that fits a tiny model's caches in size, and not at all otherwise."""
    torch.manual_seed(1)
    config = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = changes.pop("size", HEAD)
    rotary_module = getattr(model.base_model, "rotary_emb", None)
    rotary = Rotary(torch.empty(0) if rotary_module is None else rotary_module.inv_freq.clone())

    def atoms() -> Atoms:
        dictionaries = functional.normalize(torch.randn(heads, features, size), dim=2)
        centres, scales = torch.randn(heads, size) * 0.1, torch.rand(heads) + 0.5
        return Atoms(dictionaries, centres, scales, torch.eye(size).repeat(heads, 1, 1))

    count = changes.pop("layers", config.num_hidden_layers)
    layers = [LayerAtoms(atoms(), atoms(), rotary) for _ in range(count)]
    return KVCodebook("tiny", "0" * 32, layers, config.max_position_embeddings, {})


def generate(model, ids, cache=None, **options):
    options = {"max_new_tokens": 8, "do_sample": False} | options
    options.setdefault("attention_mask", torch.ones_like(ids))
    given = {} if cache is None else {"cache": cache}
    return model.generate(ids, **given, **options)


def padded(*lengths):
    """Prompts of some lengths, padded on the left, and their mask."""
    longest = max(lengths)
    mask = torch.stack([torch.arange(longest) >= longest - length for length in lengths]).long()
    ids = torch.stack([PROMPT[0, :longest].roll(7 * row) for row in range(len(lengths))])
    return torch.where(mask > 0, ids, 1), mask


@torch.no_grad()
def logits(model, ids, cache, mask=None):
    mask = torch.ones(len(ids), cache.get_seq_length() + ids.shape[1]) if mask is None else mask
    positions = (mask.long().cumsum(1) - 1).clamp_min(0)[:, -ids.shape[1] :]
    output = model(ids, attention_mask=mask, position_ids=positions, cache=cache)
    return output.logits
