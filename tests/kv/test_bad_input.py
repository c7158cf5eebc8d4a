"""Caches used with what they were not made for: one sentence each."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from helpers.caches import random_codebook, tiny_model
from safetensors.torch import load_file, save_file

from s3_retriever.errors import CodebookError, InputError
from s3_retriever.kv import AtomCache

PROMPT = torch.arange(2, 82)[None]


@pytest.fixture(scope="module")
def llama():
    return tiny_model("llama")


@pytest.fixture(scope="module")
def codebook(llama):
    return random_codebook(llama)


@pytest.fixture
def cache(codebook):
    return AtomCache(codebook, recent=16)


@torch.no_grad()
def read(model, ids, cache):
    return model(ids, cache=cache).logits


def test_a_model_with_other_heads(llama, cache):
    other = tiny_model("llama", num_key_value_heads=4)
    with pytest.raises(CodebookError, match="2 key heads of size 8, but the model has 4 of size 8"):
        read(other, PROMPT, cache)


@pytest.mark.parametrize(("layers", "word"), [(1, "fewer"), (3, "more")])
def test_a_model_of_another_depth(cache, layers, word):
    other = tiny_model("llama", num_hidden_layers=layers)
    with pytest.raises(CodebookError, match=f"with 2 layers, and this model has {word}"):
        read(other, PROMPT, cache)
        read(other, PROMPT[:, :1], cache)


def test_a_model_that_changed_its_dtype(llama, cache):
    read(llama, PROMPT, cache)
    with pytest.raises(
        InputError, match="float32 on cpu, but the model now gives 1 sequences in b"
    ):
        read(tiny_model("llama").bfloat16(), PROMPT[:, :1], cache)
    assert cache.get_seq_length() == 80
    cache.reset()
    read(tiny_model("llama").bfloat16(), PROMPT, cache)


def test_another_batch_without_a_reset(llama, cache):
    read(llama, PROMPT, cache)
    with pytest.raises(InputError, match=r"holds 1 sequences.*call reset\(\)"):
        read(llama, PROMPT[:, :1].repeat(2, 1), cache)


def test_positions_beyond_the_models(llama, cache):
    for _ in range(3):
        read(llama, PROMPT, cache)
    read(llama, PROMPT[:, :16], cache)
    with pytest.raises(InputError, match="has 256 positions, and the cache would hold 257"):
        read(llama, PROMPT[:, :1], cache)
    assert cache.get_seq_length() == 256


def test_padding_takes_no_positions(llama, codebook):
    cache = AtomCache(codebook)
    mask = (torch.arange(270) >= 20).long()[None]
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    ids = torch.full((1, 270), 5)
    with torch.no_grad():
        llama(ids, attention_mask=mask, position_ids=positions, cache=cache)
    assert cache.get_seq_length() == 270


@pytest.mark.parametrize("removed", [1, -81])
def test_cropping_by_what_cannot_be_removed(llama, cache, removed):
    read(llama, PROMPT, cache)
    with pytest.raises(InputError, match="80 tokens cannot be cropped"):
        cache.crop(removed)


@pytest.fixture
def saved(llama, cache, tmp_path):
    read(llama, PROMPT, cache)
    cache.save(tmp_path / "prompt.kv")
    return tmp_path / "prompt.kv"


def rewrite(path, about=None, **changes):
    """Write a saved cache again with other tensors (None leaves one out)."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path) | changes
    if about is not None:
        metadata = {"cache": json.dumps(json.loads(metadata["cache"]) | about)}
    save_file({n: t for n, t in tensors.items() if t is not None}, path, metadata=metadata)


def test_a_cache_of_no_codebook(saved):
    with pytest.raises(InputError, match="must be a KVCodebook, not str"):
        AtomCache.load(saved, "smollm2")


def test_a_device_that_is_not_there(codebook, saved):
    with pytest.raises(InputError, match="Device 'xpu' is not available here"):
        AtomCache.load(saved, codebook, "xpu")


def test_a_file_that_cannot_be_written(codebook, saved):
    with pytest.raises(InputError, match="cannot be written"):
        AtomCache(codebook).save(saved / "cache")


def test_sizes_from_numpy(llama, codebook, tmp_path):
    cache = AtomCache(codebook, key_k=np.int64(4), value_k=np.int32(8), recent=np.int64(16))
    read(llama, PROMPT, cache)
    cache.save(tmp_path / "cache")
    assert AtomCache.load(tmp_path / "cache", codebook).settings == cache.settings


def test_a_cache_of_another_codebook(llama, saved):
    with pytest.raises(CodebookError, match="made with another codebook"):
        AtomCache.load(saved, random_codebook(llama, features=32))


@pytest.mark.parametrize(
    "changes",
    [
        {"0.keys": None},
        {"1.padding": torch.zeros(2, dtype=torch.long)},
        {"0.key_atoms": torch.zeros(1, 2, 64, 8, dtype=torch.int32)},
        {"0.key_atoms": torch.zeros(1, 2, 64, 9, dtype=torch.int16)},
        {"0.value_atoms": torch.zeros(1, 2, 63, 16, dtype=torch.int16)},
        {"1.keys": torch.zeros(1, 2, 15, 8), "1.values": torch.zeros(1, 2, 15, 8)},
        {"0.keys": torch.zeros(1, 2, 15, 8)},
        {"0.keys": torch.zeros(16)},
        {"0.values": torch.zeros(1, 1, 2, 16, 8)},
        {"0.sink_keys": torch.zeros(1, 2, 5, 8)},
        {"about": {"settings": {"more": 3}}},
        {"about": {"settings": {"key_k": 8, "value_k": 16, "recent": -3, "sinks": 4}}},
        {"about": {"settings": [1]}},
    ],
)
def test_a_damaged_file(codebook, saved, changes):
    rewrite(saved, **changes)
    with pytest.raises(InputError, match="cannot be read"):
        AtomCache.load(saved, codebook)


def test_a_file_that_names_atoms_beyond_the_dictionary(llama, tmp_path):
    codebook = random_codebook(llama, features=50)
    cache = AtomCache(codebook, recent=16)
    read(llama, PROMPT, cache)
    path = tmp_path / "prompt.kv"
    cache.save(path)
    rewrite(path, **{"0.key_atoms": torch.full((1, 2, 64, 8), 55, dtype=torch.int16)})
    with pytest.raises(InputError, match="atoms beyond"):
        AtomCache.load(path, codebook)


@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"no cache"])
def test_a_file_that_is_no_cache(codebook, tmp_path, content):
    path = tmp_path / "prompt.kv"
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read"):
        AtomCache.load(path, codebook)
    with pytest.raises(InputError, match="cannot be read"):
        AtomCache.load(tmp_path / "missing.kv", codebook)


def test_a_folder_that_cannot_take_a_cache(cache, tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        cache.save(tmp_path / "missing" / "prompt.kv")
