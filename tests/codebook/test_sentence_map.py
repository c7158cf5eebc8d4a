"""The map from what sentences say in their context to what they would say alone."""

from __future__ import annotations

import json
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cosine_similarity

from s3_retriever import Codebook, Host
from s3_retriever.codebook import sentence_map
from s3_retriever.codebook.sentence_map import SentenceMap, first_texts
from s3_retriever.document import Document
from s3_retriever.encoder import Encoder
from s3_retriever.errors import CodebookError
from s3_retriever.host.taps import Tap, read
from s3_retriever.quantization import quantize, random_axes
from s3_retriever.recipe import SentenceRecipe

LAYER = 1
STATES = Tap("hidden", LAYER)


@pytest.fixture(scope="module")
def host(tiny_bert):
    return Host.load(str(tiny_bert), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def texts(sentences):
    """Texts of six sentences each, which have little to do with each other."""
    mixed = [sentences[i * 37 % len(sentences)] for i in range(len(sentences))]
    return [" ".join(mixed[i : i + 6]) for i in range(0, len(mixed), 6)]


def fit(host, texts, taps=("hidden.1",), **settings):
    return Codebook.fit(
        host,
        texts,
        taps=list(taps),
        features=64,
        k=4,
        tokens=4_000,
        batch_size=256,
        progress=False,
        **settings,
    )


@pytest.fixture(scope="module")
def book(host, texts):
    return fit(host, texts)


def without_map(book):
    return Codebook(book.host_name, book.fingerprint, book.saes, book.recipe)


def mean_state(host, text):
    (window,) = host.windows([Document(text)])
    return read(host, [STATES], [window])[STATES].mean(0)


def in_context(host, text, n):
    """Mean states of the n sentences of a text, which are all ended by a full stop."""
    (window,) = host.windows([Document(text)])
    states = read(host, [STATES], [window])[STATES]
    ends = [i + 1 for i, start in enumerate(window.starts.tolist()) if text[start] == "."]
    assert len(ends) == n
    return torch.stack([part.mean(0) for part in torch.tensor_split(states, ends[:-1])])


def test_mapped_states_point_where_sentences_point_alone(host, book, texts, sentences):
    found = book.sentence_maps[LAYER]
    centre = book.centre(LAYER)
    said = [sentences[i] for i in (5, 123, 321, 444, 600, 17)]
    states = in_context(host, " ".join(said), len(said))
    alone = torch.stack([mean_state(host, one) for one in said]) - centre
    before = cosine_similarity(states - centre, alone).mean()
    after = cosine_similarity(states @ found.weights + found.bias, alone).mean()
    assert before < 0.99, "there is something to be done"
    assert 1 - after < 0.7 * (1 - before)


def test_the_report_says_what_the_map_is_worth(book, sentences):
    worth = book.report["sentence_maps"]["1"]
    # Of as much text as the SAEs were trained on, 4,000 tokens, with one in ten held out.
    length = len(" ".join(sentences)) / len(sentences)
    assert worth["sentences"] == pytest.approx(0.9 * 16_000 / length, rel=0.05)
    assert worth["cosine_in_context"] < worth["cosine"] <= 1


def test_sentence_vectors_are_of_mapped_states(host, book, sentences):
    text = " ".join(sentences[i] for i in (5, 123, 321, 444, 600, 17))
    (part,) = Encoder(host, book).documents([Document(text)], book.recipe)
    found = book.sentence_maps[LAYER]
    mapped = in_context(host, text, 6) @ found.weights + found.bias
    expected = quantize(mapped.numpy() @ random_axes(32))
    # Where a coordinate lies on a border, a rounding error decides.
    assert (part.vectors == expected).mean() > 0.97


def test_questions_are_not_mapped(host, book, sentences):
    # A question is read alone.
    asked = [
        Encoder(host, one).question(sentences[7], book.recipe).direction
        for one in (book, without_map(book))
    ]
    np.testing.assert_array_equal(*asked)


@pytest.mark.parametrize("text", ["", " \n", "One sentence.", "Two of them. That is all."])
def test_little_text_changes_little(host, book, text):
    (found,) = (
        without_map(book).with_sentence_map(host, [text], progress=False).sentence_maps.values()
    )
    states = torch.randn(50, 32, generator=torch.Generator().manual_seed(0))
    centre = book.centre(LAYER)
    mapped = states @ found.weights + found.bias
    assert cosine_similarity(mapped, states - centre).min() > 0.9


def test_a_text_that_can_be_read_only_once(host, book, texts):
    once = fit(host, iter(texts), buffer_tokens=2_000)
    again = fit(host, texts, buffer_tokens=2_000)
    assert once.report["sentence_maps"] == again.report["sentence_maps"]
    assert once.identity == again.identity


def test_of_much_text_the_first_is_read():
    read_so_far = []

    def endless():
        while True:
            read_so_far.append("word " * 2_000)
            yield read_so_far[-1]

    assert sum(map(len, first_texts(endless()))) == 2_000_000
    assert len(read_so_far) == 200
    assert sum(map(len, first_texts(endless(), 15_000))) == 20_000
    assert sum(map(len, first_texts(endless(), 5_000))) == 5_000


def test_without_hidden_states_there_are_no_sentences(host, texts):
    keys = fit(host, texts, taps=["key.1"])
    assert not keys.sentence_maps
    with pytest.raises(CodebookError, match="no hidden tap"):
        keys.with_sentence_map(host, texts, progress=False)


def test_another_host_is_refused(book, tiny_llama, texts):
    other = Host.load(str(tiny_llama), device="cpu", dtype="float32")
    with pytest.raises(CodebookError, match="has other weights"):
        book.with_sentence_map(other, texts, progress=False)


def test_the_map_is_of_the_layer_that_the_recipe_scores(host, texts):
    both = fit(host, texts, taps=["hidden.0", "hidden.1"])
    recipe = both.recipe.changed("sentence", SentenceRecipe(layer=0))
    found = both.with_recipe(recipe).with_sentence_map(host, texts[:9], progress=False)
    assert set(found.sentence_maps) == {0, 1}
    assert set(found.report["sentence_maps"]) == {"0", "1"}


class TestOnDisk:
    @pytest.fixture
    def saved(self, book, tmp_path):
        book.save(tmp_path / "book")
        return tmp_path / "book"

    def test_round_trip(self, book, saved):
        again = Codebook.load(saved)
        (found,) = again.sentence_maps.values()
        torch.testing.assert_close(found.bias, book.sentence_maps[LAYER].bias)
        torch.testing.assert_close(
            found.weights, book.sentence_maps[LAYER].weights, atol=1e-3, rtol=1e-3
        )
        assert again.identity == book.identity
        assert again.with_recipe(again.recipe).identity == book.identity

    def test_identity_tells_maps_apart(self, book):
        # An index has codes of one map; another codebook must not search it.
        assert without_map(book).identity != book.identity

    def test_a_map_that_is_no_longer_listed_is_missed(self, saved):
        path = saved / "codebook.json"
        content = json.loads(path.read_text())
        assert content["sentence_maps"] == [LAYER]
        path.write_text(json.dumps({**content, "sentence_maps": []}))
        with pytest.raises(CodebookError, match="weights are not those that were saved"):
            Codebook.load(saved)

    @pytest.mark.parametrize("damage", ["missing", "cut", "oblong", "nameless", "flat"])
    def test_a_damaged_map_is_named(self, saved, damage):
        path = saved / "sentence.1" / "map.safetensors"
        tensors = load_file(path)
        if damage == "missing":
            path.unlink()
        elif damage == "cut":
            path.write_bytes(path.read_bytes()[:-100])
        else:
            tensors["weights"] = {
                "oblong": tensors["weights"][:, :5].contiguous(),
                "flat": tensors["weights"][0].contiguous(),
                "nameless": tensors["weights"],
            }[damage]
            if damage == "nameless":
                tensors.pop("bias")
            save_file(tensors, path)
        with pytest.raises(CodebookError, match=r"sentence map .*map\.safetensors"):
            Codebook.load(saved)

    @pytest.mark.parametrize(("layer", "width"), [(1, 16), (0, 32)])
    def test_a_map_that_does_not_belong_is_refused(self, book, layer, width):
        strange = SentenceMap(torch.eye(width), torch.zeros(width))
        with pytest.raises(CodebookError, match=f"a sentence map for layer {layer}, but no tap"):
            Codebook(
                book.host_name,
                book.fingerprint,
                book.saes,
                book.recipe,
                sentence_maps={layer: strange},
            )


def test_the_bar_moves_with_every_batch(tiny_bert, book, texts, monkeypatch):
    class Noting:
        def __init__(self):
            self.moves = []

        def update(self, n):
            self.moves.append(n)

    bar = Noting()
    monkeypatch.setattr(sentence_map, "progress_bar", lambda *_, **options: nullcontext(bar))
    host = Host.load(str(tiny_bert), device="cpu", dtype="float32", batch_tokens=256)
    book.with_sentence_map(host, texts)
    assert len(bar.moves) > 50
    # Everything but the white space between sentences, twice.
    characters = 2 * sum(map(len, texts))
    assert 0.97 * characters < sum(bar.moves) <= characters
