"""The whitening of a decoder's mean states."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from s3_retriever import Codebook, CodebookError, Document, Host
from s3_retriever.codebook.whitening import token_idf, whitening_of
from s3_retriever.encoder import Encoder
from s3_retriever.quantization import random_axes
from s3_retriever.recipe import SentenceRecipe


@pytest.fixture(scope="module")
def host(tiny_llama) -> Host:
    return Host.load(str(tiny_llama), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def book(host, sentences) -> Codebook:
    sizes = {"features": 64, "k": 4, "tokens": 2_000, "batch_size": 256, "progress": False}
    fitted = Codebook.fit(host, sentences, taps=["hidden.1"], **sizes)
    fitted = fitted.with_sentence_map(host, sentences[:200], progress=False)
    return fitted.with_recipe(fitted.recipe.changed("sentence", SentenceRecipe(layer=1)))


def test_it_evens_variances_out():
    generator = torch.Generator().manual_seed(0)
    scales = torch.tensor([30.0, 10.0, 1.0, 0.0])
    means = torch.randn(500, 4, generator=generator) * scales + 50
    found = whitening_of(means, torch.ones(3))
    mapped = means @ found.weights + found.bias
    torch.testing.assert_close(mapped.mean(0), torch.zeros(4), atol=0.02, rtol=0)
    # Half-way: a spread becomes its square root.
    ratios = mapped.std(0)[:3] / scales[:3].sqrt()
    torch.testing.assert_close(ratios, torch.ones(3), atol=0.1, rtol=0)
    assert mapped.isfinite().all()


def test_tokens_count_by_their_rarity_over_sentences(host):
    text = "The baker signs. The baker mends. A captain paints. The nurse."
    (window,) = host.windows([Document(text)])
    idf = token_idf(host, [Document(text)])
    assert len(idf) == host.tokenizer.backend.get_vocab_size()
    (the,) = {int(window.ids[window.keep][0])}
    sentence_of = np.repeat(np.arange(4), [s.n_tokens for s in window.sentences])
    n = len(set(sentence_of[window.ids[window.keep] == the]))
    assert idf[the] == pytest.approx(math.log(5 / (n + 1)))
    unseen = set(range(len(idf))) - set(window.ids.tolist())
    assert all(idf[i] == pytest.approx(math.log(5)) for i in unseen)


def test_it_maps_questions_as_it_maps_sentences(host, book, sentences):
    encoder = Encoder(host, book)
    question = encoder.question(sentences[5], book.recipe)
    (found,) = book.sentence_maps.values()
    (window,) = host.windows([Document(sentences[5])])
    ids = torch.from_numpy(window.ids[window.keep])
    weights = found.token_weights[ids]
    assert weights.std() > 0
    from s3_retriever.host.taps import Tap, read

    states = read(host, [Tap("hidden", 1)], [window])[Tap("hidden", 1)]
    mean = (states * weights[:, None]).sum(0) / weights.sum()
    expected = (mean @ found.weights + found.bias).numpy() @ random_axes(32)
    np.testing.assert_allclose(
        question.direction, expected / np.linalg.norm(expected), rtol=1e-2, atol=1e-3
    )
    # A document that is the question lies in its direction.
    (chunk,) = encoder.documents([Document(sentences[5])], book.recipe)
    (vector,) = np.stack([chunk.vectors & 15, chunk.vectors >> 4], 2).reshape(1, -1) - 7.5
    assert vector @ question.direction / np.linalg.norm(vector) > 0.97


def test_it_is_saved_and_checked(host, book, tmp_path):
    book.save(tmp_path / "book")
    again = Codebook.load(tmp_path / "book")
    assert again.identity == book.identity
    path = tmp_path / "book" / "sentence.1" / "map.safetensors"
    tensors = load_file(path)
    for damaged, message in [
        (tensors["token_weights"][:, None], r"no tensor token_weights of shape"),
        (tensors["token_weights"] * math.nan, "token_weights .* not finite numbers"),
        (tensors["token_weights"] - 100, "negative token weights"),
        (tensors["token_weights"] * 2, "not those that were saved"),
    ]:
        save_file(tensors | {"token_weights": damaged.contiguous()}, path)
        with pytest.raises(CodebookError, match=message):
            Codebook.load(tmp_path / "book")
    save_file(tensors | {"token_weights": tensors["token_weights"][:9].contiguous()}, path)
    description = tmp_path / "book" / "codebook.json"
    with pytest.raises(CodebookError, match="not those that were saved"):
        Codebook.load(tmp_path / "book")
    content = json.loads(description.read_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Codebook, "identity", content["identity"])
        short = Codebook.load(tmp_path / "book")
    with pytest.raises(CodebookError, match="weighs 9 tokens and the host has"):
        short.check_host(host)
