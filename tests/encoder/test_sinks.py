"""Attention sinks have no features and do not count in means."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from s3_retriever import Codebook, Document, Host
from s3_retriever.codebook.sentence_map import SentenceMap
from s3_retriever.encoder import Encoder
from s3_retriever.host.taps import Tap, read
from s3_retriever.recipe import Recipe, SentenceRecipe, TapRecipe
from s3_retriever.sae import SAETrainer
from s3_retriever.sae.training import SAEReport

TEXT = "The old captain paints seven boats in the harbour. A baker mends the blue ledger."
SIZES = {"features": 64, "k": 4, "tokens": 3_000, "batch_size": 256, "progress": False}


@pytest.fixture(scope="module")
def host(tiny_llama) -> Host:
    """A decoder to which one token of the text is a sink, which is not the first."""
    host = Host.load(str(tiny_llama), device="cpu", dtype="float32")
    with torch.no_grad():
        host.model.get_input_embeddings().weight[sink_of(host), 3] = 1e4
    return host


def sink_of(host: Host) -> int:
    return host.tokenizer.ids(TEXT)[4]


@pytest.fixture(scope="module")
def trained(host, sentences) -> tuple[Codebook, list[torch.Tensor]]:
    batches = []
    train = SAETrainer.train

    def noting(self, batch):
        batches.append(batch.norm(dim=1).max())
        return train(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SAETrainer, "train", noting)
        book = Codebook.fit(host, [*sentences, TEXT], taps=["hidden.1", "key.1"], **SIZES)
    return book, batches


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return Recipe(
        taps={"hidden.1": TapRecipe(), "key.1": TapRecipe()}, sentence=SentenceRecipe(layer=1)
    )


def test_a_fit_leaves_them_out(host, sentences, trained):
    book, batches = trained
    text = " ".join(sentences[:40])
    assert sink_of(host) in host.tokenizer.ids(text)
    states = read(host, [Tap("hidden", 1)], list(host.windows([Document(text)])))
    assert states[Tap("hidden", 1)].norm(dim=1).max() > 9_000
    assert max(batches) < 1_000
    assert book.centre(1).norm() < 1_000


def test_they_have_no_features(host, trained, recipe):
    encoder = Encoder(host, trained[0])
    (chunk,) = encoder.documents([Document(TEXT)], recipe)
    question = encoder.question(TEXT, recipe)
    ids = host.tokenizer.ids(TEXT)
    sinks = np.array(ids) == sink_of(host)
    assert 0 < sinks.sum() < len(ids) / 2
    for tap in recipe.taps:
        assert (chunk.features[tap][sinks] == -1).all()
        assert (chunk.features[tap][~sinks] >= 0).any(axis=1).all()
        assert (question.features[tap].indices[sinks] == -1).all()
        assert (question.features[tap].values[sinks] == 0).all()
        assert (question.features[tap].values[~sinks] > 0).any(axis=1).all()


def test_they_do_not_count_in_means(host, trained, recipe):
    encoder = Encoder(host, trained[0])
    (window,) = host.windows([Document(TEXT)])
    content = window.ids[window.keep] != sink_of(host)
    states = read(host, [Tap("hidden", 1)], [window])[Tap("hidden", 1)]
    mean = states[torch.from_numpy(content)].mean(0)
    expected = encoder._sentence_encoder(1).direction(mean[None], torch.ones(1))
    np.testing.assert_allclose(
        encoder.question(TEXT, recipe).direction, expected, rtol=1e-3, atol=1e-4
    )


def test_unknown_words_of_a_question_are_left_out_too(host, trained, recipe, monkeypatch):
    encoder = Encoder(host, trained[0])
    (window,) = host.windows([Document(TEXT)])
    ids = window.ids[window.keep]
    unknown = ids[7]
    monkeypatch.setattr(host.tokenizer, "unknown_id", int(unknown))
    ignored = (ids == sink_of(host)) | (ids == unknown)
    assert unknown != sink_of(host) and not ignored.all()
    question = encoder.question(TEXT, recipe)
    for features in question.features.values():
        assert (features.indices[ignored] == -1).all() and not features.values[ignored].any()
        assert (features.values[~ignored] > 0).any(axis=1).all()
    states = read(host, [Tap("hidden", 1)], [window])[Tap("hidden", 1)]
    mean = states[torch.from_numpy(~ignored)].mean(0)
    expected = encoder._sentence_encoder(1).direction(mean[None], torch.ones(1))
    np.testing.assert_allclose(question.direction, expected, rtol=1e-3, atol=1e-4)


def test_a_question_of_sinks_alone_is_like_no_sentence(host, trained, recipe):
    book = trained[0]
    vocabulary = host.tokenizer.backend.get_vocab_size()
    still = SentenceMap(torch.eye(32), torch.ones(32), torch.zeros(vocabulary))
    whitened = Codebook(book.host_name, book.fingerprint, book.saes, book.recipe, None, {1: still})
    encoder = Encoder(host, whitened)
    assert not encoder.question(TEXT, recipe).direction.any()
    (chunk,) = encoder.documents([Document(TEXT)], recipe)
    assert len(set(chunk.vectors.ravel().tolist())) == 1


@pytest.mark.parametrize(
    ("measured", "warnings"),
    [
        ({"dead_share": 0.2, "frequent": 0}, []),
        ({"dead_share": 0.62, "frequent": 0}, ["62 % of the features at hidden.1 never fire"]),
        ({"dead_share": 0.0, "frequent": 2}, ["2 features at hidden.1 fire on more than half"]),
    ],
)
def test_a_fit_warns_of_features_that_say_nothing(
    host, sentences, monkeypatch, caplog, measured, warnings
):
    import s3_retriever.codebook.fit as fit_module

    fixed = {"unexplained_variance": 0.1, "active": 4.0, "frequency": (0, 0, 0, 0), "tokens": 9}
    monkeypatch.setattr(fit_module, "report", lambda sae, sample: SAEReport(**fixed, **measured))
    with caplog.at_level(logging.WARNING):
        fit_module.fit(host, sentences, taps=["hidden.1"], **SIZES | {"tokens": 1_000})
    assert len(caplog.messages) == len(warnings)
    for message, expected in zip(caplog.messages, warnings, strict=True):
        assert message.startswith(expected)
