"""A tiny causal model that answers, with its codebook beside it."""

from __future__ import annotations

from pathlib import Path

import torch

from s3_retriever import Codebook, Host

CPU = {"device": "cpu", "dtype": "float32"}


def make_answerer(folder: Path, tiny_llama: Path, sentences: list[str], **config) -> Path:
    """Folder of a Llama with three layers and an LM head, with its codebook in it."""
    from tokenizers.decoders import ByteLevel
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    tokenizer.backend_tokenizer.decoder = ByteLevel()
    torch.manual_seed(0)
    settings = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 512,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    LlamaForCausalLM(LlamaConfig(**settings | config)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    codebook = Codebook.fit(
        Host.load(str(folder), window=64, **CPU),
        sentences,
        taps=["key.1"],
        features=128,
        k=8,
        batch_size=256,
        buffer_tokens=2_048,
        progress=False,
    )
    codebook.save(folder / "s3-codebook")
    return folder
