"""`AtomCache` as `generate` uses it."""

from __future__ import annotations

import pytest
import torch
from helpers.caches import MODELS, PROMPT, generate, logits, padded, random_codebook, tiny_model

from s3_retriever.kv import AtomCache
from s3_retriever.kv.layer import BLOCK


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return tiny_model(request.param)


@pytest.fixture(scope="module")
def llama():
    return tiny_model("llama")


@pytest.fixture(scope="module")
def codebook(llama):
    return random_codebook(llama)


def test_a_window_as_long_as_the_text_changes_nothing(model):
    cache = AtomCache(random_codebook(model), recent=98)
    assert torch.equal(generate(model, PROMPT, cache), generate(model, PROMPT))
    assert cache.get_seq_length() == 97


@pytest.mark.parametrize("options", [{"num_beams": 3}, {"num_beams": 2, "num_return_sequences": 2}])
def test_beams_and_padding_change_nothing_within_the_window(llama, codebook, options):
    ids, mask = padded(90, 60)
    options |= {"attention_mask": mask}
    exact = generate(llama, ids, **options)
    assert torch.equal(generate(llama, ids, AtomCache(codebook, recent=98), **options), exact)


def test_beams_reorder_codes_as_well(llama, codebook):
    """Whatever the beams are, what they look back on is the codes of their common prompt."""
    cache = AtomCache(codebook, recent=16)
    generate(llama, PROMPT, cache, num_beams=3)
    keys, _ = cache.layers[0].read()
    assert len(cache.layers[0].key_codes) >= 64
    assert torch.equal(keys[0, :, :64], keys[2, :, :64])


def test_first_and_last_tokens_stay_exact(model):
    cache, exact = AtomCache(random_codebook(model), recent=20, sinks=3), {}
    with torch.no_grad():
        exact = model(PROMPT, use_cache=True).cache
        model(PROMPT, cache=cache)
    for layer, reference in zip(cache.layers, exact.layers, strict=True):
        assert len(layer.key_codes) == 70
        for read, kept in zip(layer.read(), (reference.keys, reference.values), strict=True):
            assert torch.equal(read[:, :, :3], kept[:, :, :3])
            assert torch.equal(read[:, :, 70:], kept[:, :, 70:])
            assert not torch.allclose(read[:, :, 3:70], kept[:, :, 3:70])


def test_a_complete_dictionary_restores_what_leaves_the_window(model):
    """With as many atoms as a head has numbers, codes are exact but for their eight bits or so."""
    codebook = random_codebook(model, features=16)
    cache = AtomCache(codebook, key_k=8, value_k=8, recent=0, sinks=0)
    with torch.no_grad():
        exact = model(PROMPT, use_cache=True).cache
        model(PROMPT, cache=cache)
    for layer, reference in zip(cache.layers, exact.layers, strict=True):
        for read, kept in zip(layer.read(), (reference.keys, reference.values), strict=True):
            assert (read - kept).square().sum() < 1e-3 * kept.square().sum()


def test_padding_gives_the_codes_of_the_prompt_alone(llama, codebook):
    ids, mask = padded(90, 60)
    together = AtomCache(codebook, recent=10, sinks=2)
    logits(llama, ids, together, mask)
    alone = AtomCache(codebook, recent=10, sinks=2)
    logits(llama, ids[1:, 30:], alone)
    for padded_layer, layer in zip(together.layers, alone.layers, strict=True):
        for with_padding, without in zip(padded_layer.read(), layer.read(), strict=True):
            torch.testing.assert_close(with_padding[1:, :, 30:], without, atol=1e-2, rtol=1e-2)
            assert torch.allclose(with_padding[1:, :, 30:32], without[:, :, :2], atol=1e-5)


def test_the_sinks_of_a_prompt_shorter_than_the_padding_are_kept_when_they_leave(llama, codebook):
    """The short prompt stands in the window whole when the long one's first tokens leave it."""
    ids, mask = padded(90, 12)
    cache = AtomCache(codebook, recent=20, sinks=4)
    logits(llama, ids, cache, mask)
    first = cache.layers[0].read()[0][1, :, 78:82].clone()
    for _ in range(BLOCK + 8):
        mask = torch.cat([mask, torch.ones(2, 1, dtype=torch.long)], dim=1)
        logits(llama, torch.tensor([[5], [9]]), cache, mask)
    assert len(cache.layers[0].key_codes) > 82
    assert torch.equal(cache.layers[0].read()[0][1, :, 78:82], first)


def test_reading_in_parts_gives_the_same_codes(llama, codebook):
    whole, parts = (AtomCache(codebook, recent=8, sinks=4) for _ in range(2))
    with torch.no_grad():
        exact = llama(PROMPT, use_cache=True).cache
    for i, layer in enumerate(exact.layers):
        whole.update(layer.keys, layer.values, i)
        for start in range(0, 90, 9):
            stop = start + 9
            parts.layers[i].update(layer.keys[:, :, start:stop], layer.values[:, :, start:stop])
        coded = len(parts.layers[i].key_codes)
        assert coded >= 40
        for one, other in zip(whole.layers[i].read(), parts.layers[i].read(), strict=True):
            torch.testing.assert_close(one[:, :, :coded], other[:, :, :coded])


def test_several_prompts_in_turn(llama, codebook):
    cache = AtomCache(codebook, recent=16)
    first = generate(llama, PROMPT, cache)
    cache.reset()
    assert cache.get_seq_length() == 0
    assert cache.nbytes == 0
    ids, mask = padded(50, 40)
    generate(llama, ids, cache, attention_mask=mask)
    cache.reset()
    assert torch.equal(generate(llama, PROMPT, cache), first)


def test_a_cache_begun_in_inference_mode_is_used_outside_of_it(llama, codebook):
    cache = AtomCache(codebook, recent=30)
    with torch.inference_mode():
        logits(llama, PROMPT[:, :20], cache)
    logits(llama, PROMPT, cache)
    assert len(cache.layers[0].key_codes) == 80


def test_a_conversation_goes_on_in_the_same_cache(llama, codebook):
    cache = AtomCache(codebook, recent=120)
    reply = generate(llama, PROMPT, cache)
    longer = torch.cat([reply, PROMPT[:, :9]], dim=1)
    assert torch.equal(generate(llama, longer, cache), generate(llama, longer))


@pytest.mark.parametrize("removed", [0, 3, 20, 60, 90])
def test_crop_forgets_the_last_tokens(llama, codebook, removed):
    cache = AtomCache(codebook, recent=16)
    logits(llama, PROMPT, cache)
    before = cache.layers[1].read()
    cache.crop(-removed)
    assert cache.get_seq_length() == 90 - removed
    for kept, whole in zip(cache.layers[1].read(), before, strict=True):
        assert torch.equal(kept, whole[:, :, : 90 - removed])
    logits(llama, PROMPT[:, :40], cache)
    assert cache.get_seq_length() == 130 - removed


def test_sequences_are_repeated_and_selected(llama, codebook):
    ids, mask = padded(90, 60)
    cache = AtomCache(codebook, recent=16)
    logits(llama, ids, cache, mask)
    before = cache.layers[0].read()[0]
    cache.batch_repeat_interleave(2)
    assert torch.equal(cache.layers[0].read()[0], before.repeat_interleave(2, dim=0))
    cache.batch_select_indices(torch.tensor([3, 0]))
    assert torch.equal(cache.layers[0].read()[0], before.flip(0))
    cache.reorder_cache(torch.tensor([1, 1]))
    assert torch.equal(cache.layers[0].read()[0], before[[0, 0]])


def test_assisted_generation(llama, codebook):
    """The assistant's guesses are cropped away when they are wrong."""
    assistant = tiny_model("llama", num_hidden_layers=1)
    cache = AtomCache(codebook, recent=110)
    given = generate(llama, PROMPT, cache, assistant_model=assistant)
    assert torch.equal(given, generate(llama, PROMPT))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_are_those_of_the_tensors(codebook, dtype):
    model = tiny_model("llama").to(dtype)
    cache = AtomCache(codebook, key_k=3, value_k=5, recent=10, sinks=2)
    logits(model, PROMPT, cache)
    layers, heads, size, width = 2, 2, 8, dtype.itemsize
    exact = 2 * layers * heads * (10 + 2) * size * width
    assert cache.nbytes == exact + layers * heads * 80 * (2 * 3 + 2 + 2 * 5 + 2) + layers * 8
    assert all(tensor.dtype == dtype for tensor in cache.layers[0].read())


def test_a_saved_cache_goes_on_where_it_was(llama, codebook, tmp_path):
    cache = AtomCache(codebook, recent=16, key_k=4)
    ids, mask = padded(90, 60)
    logits(llama, ids, cache, mask)
    cache.save(tmp_path / "prompt.kv")
    loaded = AtomCache.load(tmp_path / "prompt.kv", codebook)
    assert loaded.nbytes == cache.nbytes
    assert loaded.settings == cache.settings
    mask = torch.cat([mask, torch.ones(2, 40, dtype=torch.long)], dim=1)
    following = PROMPT[:, :40].repeat(2, 1)
    expected = logits(llama, following, cache, mask)
    assert torch.equal(logits(llama, following, loaded, mask), expected)
    assert [path.name for path in tmp_path.iterdir()] == ["prompt.kv"]


def test_an_empty_cache_is_saved_as_well(codebook, tmp_path):
    AtomCache(codebook).save(tmp_path / "empty.kv")
    (tmp_path / "any").touch()
    # Who may read the folder's other files may read it.
    assert (tmp_path / "empty.kv").stat().st_mode == (tmp_path / "any").stat().st_mode
    assert AtomCache.load(tmp_path / "empty.kv", codebook).get_seq_length() == 0
