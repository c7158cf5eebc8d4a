"""A tiny model of every family, with random weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel

from s3_retriever.document import Document
from s3_retriever.host import FAMILIES, Host, Window
from s3_retriever.host.taps import Tap

LAYERS = 4
COMMON = {
    "vocab_size": 500,
    "hidden_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 6,
    "intermediate_size": 40,
    "max_position_embeddings": 128,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
GROUPED = COMMON | {"num_key_value_heads": 2}
# Heads that do not add up to the hidden size.
WIDE = GROUPED | {"head_dim": 10}
SLIDING = {"sliding_window": 5}
ALTERNATING = SLIDING | {"layer_types": ["sliding_attention", "full_attention"] * (LAYERS // 2)}
LATE_SLIDING = SLIDING | {"use_sliding_window": True, "max_window_layers": 2}
PARTIAL = {"partial_rotary_factor": 0.5}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
CASES: dict[str, dict[str, Any]] = {
    "bert": COMMON,
    "electra": COMMON | {"embedding_size": 16},
    "roberta": COMMON,
    "xlm-roberta": COMMON,
    "mpnet": COMMON,
    "distilbert": COMMON | {"hidden_dim": 40},
    "modernbert": COMMON | {"local_attention": 8, "global_attn_every_n_layers": 2},
    "llama": WIDE,
    "mistral": WIDE | SLIDING,
    "mixtral": GROUPED | SLIDING | {"num_local_experts": 4},
    "qwen2": GROUPED | LATE_SLIDING,
    "qwen2_moe": GROUPED | LATE_SLIDING | EXPERTS | {"shared_expert_intermediate_size": 32},
    "qwen3": WIDE,
    "qwen3_moe": WIDE | EXPERTS,
    "gemma": WIDE,
    "gemma2": WIDE | SLIDING,
    "gemma3_text": WIDE | ALTERNATING,
    "granite": GROUPED,
    "smollm3": GROUPED | {"no_rope_layer_interval": 2},
    "starcoder2": GROUPED | SLIDING,
    "olmo2": GROUPED,
    "olmo3": GROUPED | ALTERNATING,
    "phi": GROUPED | PARTIAL,
    "phi, normed": GROUPED | PARTIAL | {"qk_layernorm": True},
    "phi3": GROUPED | PARTIAL | SLIDING,
    "stablelm": GROUPED | PARTIAL,
    "stablelm, normed": GROUPED | PARTIAL | {"qk_layernorm": True},
    "gpt2": COMMON | {"n_inner": 40},
    "gpt_neox": COMMON | {"rotary_pct": 0.5},
    "falcon, all heads": COMMON | {"multi_query": False},
    "falcon, one key head": COMMON | {"multi_query": True},
    "falcon, grouped": COMMON | {"new_decoder_architecture": True, "num_kv_heads": 2},
    "falcon, alibi": COMMON | {"multi_query": False, "alibi": True},
    "opt": COMMON | {"ffn_dim": 40, "word_embed_proj_dim": 48},
}
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def model_type(case: str) -> str:
    return case.partition(",")[0]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory, tiny_bert, tiny_llama) -> Callable[[str], Path]:
    """Makes (once) the folder of a tiny model with random weights."""
    root = tmp_path_factory.mktemp("families")

    def make(case: str) -> Path:
        if model_type(case) not in CONFIG_MAPPING:
            pytest.skip("this transformers is too old for it")
        folder = root / case
        if not folder.exists():
            torch.manual_seed(1)
            model = AutoModel.from_config(AutoConfig.for_model(model_type(case), **CASES[case]))
            scramble(model)
            model.save_pretrained(folder)
            donor = tiny_bert if FAMILIES[model_type(case)].bidirectional else tiny_llama
            for path in donor.glob("tokenizer*"):
                shutil.copy(path, folder)
        return folder

    return make


@torch.no_grad()
def scramble(model: torch.nn.Module) -> None:
    """Make every weight count: fresh norms and biases do nothing, and attention is nearly even."""
    for weight in model.parameters():
        if weight.dim() == 1:
            weight.add_(torch.empty_like(weight).uniform_(-0.5, 0.5))
        else:
            weight.mul_(5)


@pytest.fixture(scope="module")
def host_of(folder_of) -> Callable[[str], Host]:
    hosts: dict[str, Host] = {}

    def load(case: str) -> Host:
        if case not in hosts:
            hosts[case] = Host.load(str(folder_of(case)), device="cpu", dtype="float32")
        return hosts[case]

    return load


def window(length: int, start: int = 0, stop: int | None = None, seed: int = 0) -> Window:
    ids = np.random.default_rng(seed).integers(5, 400, length)
    keep = slice(start, length if stop is None else stop)
    starts = np.arange(keep.stop - keep.start, dtype=np.uint32)
    return Window(Document(""), ids, keep, starts, (), last=True)


def taps_of(layers: int) -> list[Tap]:
    return [Tap(site, layer) for layer in range(layers) for site in ("key", "query", "hidden")]
