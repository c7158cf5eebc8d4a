"""A tiny causal model with a LoRA adapter, and an SAE of its first layer."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from s3_retriever import Codebook, Host, TopKSAE

TARGETS = ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"]


@pytest.fixture(scope="session")
def tokenizer(tiny_llama):
    return AutoTokenizer.from_pretrained(tiny_llama)


@pytest.fixture
def base(tiny_llama, tokenizer):
    """The tiny Llama of the other tests, with an LM head."""
    torch.manual_seed(0)
    config = LlamaConfig.from_pretrained(tiny_llama)
    model = AutoModelForCausalLM.from_config(config)
    model.model.load_state_dict(AutoModel.from_pretrained(tiny_llama).state_dict())
    return model


@pytest.fixture
def make(base):
    """Puts a LoRA adapter on the model."""

    def put(**options):
        torch.manual_seed(1)
        settings = {"r": 4, "lora_alpha": 8, "target_modules": TARGETS, **options}
        return get_peft_model(base, LoraConfig(**settings))

    return put


@pytest.fixture(scope="session")
def sae(tiny_llama, sentences) -> TopKSAE:
    """An SAE of the tiny Llama's layer 0, fitted on its sentences."""
    codebook = Codebook.fit(
        Host.load(str(tiny_llama), device="cpu", dtype="float32"),
        sentences,
        taps=["hidden.0"],
        features=64,
        k=8,
        batch_size=256,
        buffer_tokens=2_048,
        reuse=4.0,
        progress=False,
    )
    return codebook.sae("hidden.0")


@pytest.fixture(scope="session")
def wanted(sentences) -> list[str]:
    return [text for text in sentences if text.startswith("A baker")][:40]


@pytest.fixture(scope="session")
def unwanted(sentences) -> list[str]:
    return [text for text in sentences if text.startswith("The night nurse")][:40]
