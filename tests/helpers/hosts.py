"""Tiny hosts and a codebook, made from nothing: no download, a second or two."""

from __future__ import annotations

import os
import re
import signal
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# A run in the background may have been started with interrupts ignored, which the processes that
# tests interrupt would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Nothing in the tests may ask the network.
os.environ["HF_HUB_OFFLINE"] = "1"
# Nor do they depend on the defaults that whoever runs them has set.
os.environ["XDG_CONFIG_HOME"] = os.devnull
# On such small models threads only wait for each other, most of all on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

_WHO = ["The release manager", "A baker", "The night nurse", "My neighbour", "The old captain"]
_DOES = ["signs", "mends", "carries", "paints", "counts", "forgets"]
_WHAT = ["every release", "warm bread", "the blue ledger", "seven boats", "a broken clock"]
_WHEN = ["on Friday", "before dawn", "in the harbour", "without a word", "after the storm"]


@pytest.fixture(scope="session")
def sentences() -> list[str]:
    """750 plain sentences, about 6,000 tokens of the tiny hosts."""
    return [" ".join(parts) + "." for parts in product(_WHO, _DOES, _WHAT, _WHEN)]


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory, sentences: list[str]) -> Path:
    """Folder of a BERT with two layers and WordPiece tokens."""
    from transformers import BertConfig

    folder = tmp_path_factory.mktemp("hosts") / "tiny-bert"
    backend = _wordpiece(sentences)
    config = BertConfig(
        vocab_size=backend.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    specials = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    return _save(folder, config, backend, specials)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory, sentences: list[str]) -> Path:
    """Folder of a Llama with two layers, four query heads on two key heads, byte-level BPE."""
    from transformers import LlamaConfig

    folder = tmp_path_factory.mktemp("hosts") / "tiny-llama"
    backend = _byte_bpe(sentences)
    config = LlamaConfig(
        vocab_size=backend.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=1,
    )
    return _save(folder, config, backend, {"bos_token": "<s>", "eos_token": "</s>"})


@pytest.fixture(scope="session")
def tiny_codebook(
    tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path, sentences: list[str]
) -> Path:
    """Folder of a codebook for `tiny_bert`, taps `key.1` and `hidden.1`."""
    from s3_retriever import Codebook, Host

    folder = tmp_path_factory.mktemp("codebooks") / "tiny"
    codebook = Codebook.fit(
        Host.load(str(tiny_bert), device="cpu", dtype="float32"),
        sentences,
        features=128,
        k=8,
        batch_size=256,
        buffer_tokens=2_048,
        progress=False,
    )
    codebook.save(folder)
    return folder


def _save(folder: Path, config: PretrainedConfig, backend: Any, specials: dict[str, str]) -> Path:
    """Write a model with random weights and its tokenizer as Hugging Face does."""
    import torch
    from transformers import AutoModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    model = AutoModel.from_config(config)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "position_embeddings" in name:
                # As in a trained model: what a token is outweighs where it stands.
                weights *= 0.1
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=backend, **specials).save_pretrained(folder)
    return folder


def _wordpiece(sentences: list[str]) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    # Listed, not trained: the trainer's choice among equals differs from run to run, and with it
    # what a host of random weights finds.
    letters = [chr(i) for i in range(33, 127)]
    words = sorted(set(re.findall(r"\w+", " ".join(sentences).lower())))
    listed = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    listed += [f"##{letter}" for letter in letters] + [word for word in words if len(word) > 1]
    vocabulary = {piece: number for number, piece in enumerate(listed)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(listed[:5])
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    return tokenizer


def _byte_bpe(sentences: list[str]) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    return tokenizer
