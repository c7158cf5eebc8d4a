"""The mean states of sentences: pooled, coded, kept, scored."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from s3_retriever import Codebook, Document, Host, S3Index
from s3_retriever.calibration.evaluation import OnceEncoder
from s3_retriever.encoder import CachingEncoder, Encoder
from s3_retriever.errors import CodebookError, IndexStoreError, InputError
from s3_retriever.host.pooling import SentencePooler
from s3_retriever.host.taps import Tap, read
from s3_retriever.index import Store, TokenChunk
from s3_retriever.quantization import code_bytes, encode, random_axes, weights_of
from s3_retriever.recipe import Recipe, SentenceRecipe, TapRecipe
from s3_retriever.text.sentences import SentenceCutter

TAP = "sentence.1"


@pytest.fixture(scope="module")
def host(tiny_bert):
    return Host.load(str(tiny_bert), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def book(host, sentences):
    return Codebook.fit(
        host,
        [" ".join(sentences)] * 4,
        taps=["hidden.1"],
        features=96,
        k=12,
        tokens=4_000,
        batch_size=256,
        progress=False,
    )


@pytest.fixture(scope="module")
def encoder(host, book):
    return Encoder(host, book)


def long_text(sentences, count=40):
    return " ".join(sentences[i % len(sentences)] for i in range(count))


def exact_means(host, text):
    """Mean states of the sentences, from all tokens at once."""
    windows = list(host.windows([("A title", text)]))
    states = torch.cat([read(host, [Tap("hidden", 1)], [one])[Tap("hidden", 1)] for one in windows])
    cutter = SentenceCutter(text)
    starts = np.concatenate([one.starts for one in windows]).astype(np.uint32)
    cut = [*cutter.push(starts), *cutter.finish()]
    return torch.stack([part.mean(0) for part in torch.split(states, [s.n_tokens for s in cut])])


def mapped(book, means):
    """What the sentences with these mean states would be alone, as the codebook tells it."""
    (found,) = book.standalone.values()
    return means @ found.weights + found.bias


def codes_of(encoder, recipe, text):
    found = list(encoder.documents([("A title", text)], recipe))
    return np.concatenate([part.codes[TAP] for part in found])


def index_of(encoder, recipe, documents):
    index = S3Index(Store.create(None, {}), encoder, recipe)
    index.add(documents, progress=False)
    return index


def likeness(index, direction):
    segments = index._store.snapshot().segments
    return np.concatenate([segment.likeness(TAP, direction) for segment in segments])


def test_an_encoders_sentences_are_scored(book):
    assert book.recipe.sentence == SentenceRecipe(tap=TAP)
    assert list(book.recipe.taps) == ["hidden.1"]


@pytest.mark.parametrize(("width", "bound"), [(33, 0.1), (384, 0.04), (1_000, 0.15)])
def test_codes_tell_the_cosine_of_directions(width, bound):
    generator = np.random.default_rng(0)
    # A few coordinates are much larger than the others, as in the states of large models.
    spread = np.where(np.arange(width) < 3, 20.0, 1.0)
    states = generator.normal(size=(500, width)) * spread
    asked = generator.normal(size=width) * spread + states[7]
    cosines = states @ asked / np.linalg.norm(states, axis=1) / np.linalg.norm(asked)
    axes = random_axes(width)
    np.testing.assert_allclose(axes.T @ axes @ axes.T, axes.T, atol=1e-5)
    codes = encode((states @ axes).astype(np.float32))
    turned = asked @ axes
    weights, offset = weights_of((turned / np.linalg.norm(turned)).astype(np.float32))
    found = (codes & 15) @ weights[0] + (codes >> 4) @ weights[1] + offset
    assert codes.shape == (500, code_bytes(width))
    assert np.abs(found - cosines).max() < bound
    # Of wider states the axes tell less than all, and take no more room.
    assert code_bytes(width) <= 192


def test_axes_are_the_same_ones_everywhere():
    # Indexes are read with the axes they were made with: these numbers must never change.
    expected = [[0.5868, -0.4854, 0.6481], [0.7455, 0.6363, -0.1985], [0.3161, -0.5996, -0.7353]]
    np.testing.assert_allclose(random_axes(3)[:, :3], expected, atol=1e-3)


def test_codes_tell_the_mean_state_of_each_sentence(host, book, encoder, sentences):
    text = long_text(sentences)
    assert len(list(host.windows([("A title", text)]))) > 1, "sentences run across windows"
    means = mapped(book, exact_means(host, text))
    expected = encode(means.detach().numpy() @ random_axes(32))
    codes = codes_of(encoder, book.recipe, text)
    assert codes.shape == expected.shape == (len(means), 16)
    # Where a coordinate lies on a border, a rounding error decides.
    assert (codes == expected).mean() > 0.98


def test_likeness_is_the_cosine_of_question_and_sentence(host, book, encoder, sentences):
    text, question = long_text(sentences), sentences[3]
    index = index_of(encoder, book.recipe, [Document(text, "d", {"title": "A title"})])
    (direction,) = encoder.question(question, book.recipe)[TAP].values
    centre = book.sae("hidden.1").b_dec
    asked = exact_means(host, question).mean(0) - centre
    means = mapped(book, exact_means(host, text))
    cosine = torch.cosine_similarity(means, asked[None]).detach().numpy()
    found = likeness(index, direction)
    # One window or several, a title or none: states differ a little with what surrounds them.
    np.testing.assert_allclose(found, cosine, atol=0.12)
    assert np.corrcoef(cosine, found)[0, 1] > 0.98


@pytest.mark.parametrize("change", ["compact", "merge", "replace"])
def test_codes_stay_with_their_sentences(change, book, encoder, sentences):
    documents = [Document(long_text(sentences[i:], 6), f"d{i}") for i in range(12)]
    direction = np.random.default_rng(0).normal(size=32).astype(np.float32)
    index = index_of(encoder, book.recipe, documents[:4])
    kept = documents[1:]
    if change == "merge":
        for one in documents[4:]:
            index.add([one], progress=False)
        index.delete("d0")
        assert len(index._store.snapshot().segments) < 9
    else:
        index.add(documents[4:], progress=False)
        index.delete("d0")
    if change == "replace":
        index.add([documents[5]], replace=True, progress=False)
        kept = [one for one in kept if one.id != "d5"] + [documents[5]]
    index.compact()
    np.testing.assert_allclose(
        likeness(index, direction),
        likeness(index_of(encoder, book.recipe, kept), direction),
        atol=0.1,
    )


def test_what_a_sentence_says_as_a_whole_counts(book, encoder, sentences):
    documents = [Document(text, f"d{i}") for i, text in enumerate(sentences)]
    index = index_of(encoder, book.recipe, documents)
    without = book.recipe.model_copy(update={"sentence": None, "second_hop": None})
    with_it = book.recipe.model_copy(
        update={"sentence": SentenceRecipe(tap=TAP, weight=1e6), "second_hop": None}
    )
    question = sentences[7]
    (direction,) = encoder.question(question, with_it)[TAP].values
    order = np.argsort(-likeness(index, direction), kind="stable")
    found = index.search(question, 3, mode="s3", recipe=with_it)
    assert [span.document_id for span in found] == [f"d{i}" for i in order[:3]]
    assert "sentence" in found[0].sources
    assert "sentence" in index.explain(question, found[0]).parts
    plain = index.search(question, 3, mode="s3", recipe=without)
    assert all("sentence" not in span.sources for span in plain)


def test_blank_documents_have_no_codes(book, encoder, sentences):
    index = index_of(
        encoder, book.recipe, [Document(" \n ", "blank"), Document(sentences[0], "full")]
    )
    assert [span.document_id for span in index.search(sentences[0], 2)] == ["full"]


def test_an_index_without_codes_says_so(book, encoder, sentences):
    plain = book.recipe.model_copy(update={"sentence": None})
    index = index_of(encoder, plain, [Document(sentences[0], "d")])
    with pytest.raises(CodebookError, match=r"sentence\.1, which is not indexed"):
        index.search("where", recipe=book.recipe)
    with (
        pytest.raises(IndexStoreError, match="has the taps"),
        index._store.append({"hidden.1": 96}, {TAP: 12}),
    ):
        pass


@pytest.mark.parametrize(
    ("codes", "problem"),
    [
        ({}, "has no codes"),
        ({TAP: np.zeros((0, 4), np.uint8)}, "another number of sentences"),
        ({TAP: np.zeros((1, 5), np.uint8)}, "gave 5 bytes"),
    ],
)
def test_codes_that_do_not_fit_are_refused(codes, problem):
    store = Store.create(None, {})
    chunk = TokenChunk(np.array([0], dtype=np.uint32), {"hidden.1": np.array([[3]])}, codes)
    with (
        pytest.raises(InputError, match=problem),
        store.append({"hidden.1": 96}, {TAP: 4}) as writer,
    ):
        writer.add(Document("Word.", "d"), [chunk])
    assert store.snapshot().n_documents == 0


def test_damaged_codes_are_found_by_verifying(book, encoder, sentences, tmp_path):
    store = Store.create(tmp_path / "index", {})
    with S3Index(store, encoder, book.recipe) as index:
        index.add([Document(long_text(sentences, 30), "d")], progress=False)
        (file,) = (tmp_path / "index").glob(f"*/{TAP}.codes.npy")
        content = bytearray(file.read_bytes())
        content[-200:] = b"\xff" * 200
        file.write_bytes(bytes(content))
    with S3Index(Store.open(tmp_path / "index"), encoder, book.recipe) as index:
        assert index.search(sentences[0], 3)
        with pytest.raises(IndexStoreError, match=r"sentence\.1\.codes\.npy"):
            index.verify(progress=False)


def test_recipes_that_mix_up_taps_are_refused(book):
    for recipe in (
        Recipe(taps={TAP: TapRecipe()}),
        Recipe(taps={"hidden.1": TapRecipe()}, sentence=SentenceRecipe(tap="hidden.1")),
        Recipe(taps={"hidden.1": TapRecipe(), TAP: TapRecipe()}, sentence=SentenceRecipe(tap=TAP)),
    ):
        with pytest.raises(CodebookError, match="in the wrong place"):
            book.check(recipe)
    with pytest.raises(
        CodebookError, match=r"needs the tap hidden\.0, which this codebook does not"
    ):
        book.check(
            Recipe(taps={"hidden.1": TapRecipe()}, sentence=SentenceRecipe(tap="sentence.0"))
        )


def test_a_tap_of_sentences_is_never_fitted(host, book, sentences):
    with pytest.raises(InputError, match=r"it comes with hidden\.1; name that instead"):
        Codebook.fit(host, sentences, taps=["hidden.1", TAP], tokens=4_000, batch_size=256)
    saes = {**book.saes, Tap.parse(TAP): book.sae("hidden.1")}
    with pytest.raises(CodebookError, match="lists an SAE of sentence"):
        Codebook("host", "print", saes, book.recipe)


def test_a_cache_keeps_scans_with_and_without_codes_apart(host, book, sentences):
    encoder = CachingEncoder(host, book)
    plain = book.recipe.model_copy(update={"sentence": None})
    for recipe in (plain, book.recipe, plain):
        (found,) = encoder.documents([("", sentences[0])], recipe)
        assert (TAP in found.codes) == (recipe is book.recipe)
        assert (TAP in encoder.question(sentences[0], recipe)) == (recipe is book.recipe)


def test_pooling_does_not_depend_on_how_tokens_arrive(sentences):
    text = long_text(sentences, 8)
    starts = np.array([i for i in range(len(text)) if i % 3 == 0])
    states = torch.randn(len(starts), 5)
    whole = SentencePooler(text).push(starts, states, last=True)
    pooler, parts = SentencePooler(text), []
    for first in range(0, len(starts), 7):
        part = slice(first, first + 7)
        last = first + 7 >= len(starts)
        parts.append(pooler.push(starts[part], states[part], last=last))
    torch.testing.assert_close(torch.cat(parts), whole)


def test_a_question_without_tokens_is_like_no_sentence(book, encoder, sentences):
    blank = "\u200b"
    assert not len(encoder.question(blank, book.recipe)["hidden.1"].indices)
    (direction,) = encoder.question(blank, book.recipe)[TAP].values
    assert not direction.any()
    index = index_of(encoder, book.recipe, [Document(sentences[0], "d")])
    assert index.search(blank) == []


@pytest.mark.parametrize("layer", [0, 1])
def test_calibration_keeps_to_the_recipes_own_tap(host, sentences, layer):
    taps = ["hidden.0", "hidden.1"]
    sizes = {"features": 64, "k": 4, "tokens": 2_000, "batch_size": 256, "progress": False}
    book = Codebook.fit(host, sentences * 4, taps=taps, **sizes)
    chosen = SentenceRecipe(tap=f"sentence.{layer}")
    encoder = OnceEncoder(host, book)
    recipe = book.recipe.model_copy(update={"sentence": chosen})
    (found,) = encoder.documents([("", sentences[0])], recipe)
    assert list(found.codes) == [chosen.tap]
    assert chosen.tap in encoder.question(sentences[0], recipe)


def test_a_fit_of_query_taps_has_a_recipe(host, sentences):
    sizes = {"features": 64, "k": 4, "tokens": 2_000, "batch_size": 256, "progress": False}
    book = Codebook.fit(host, sentences * 4, taps=["query.1"], **sizes)
    assert list(book.recipe.taps) == ["query.1"]


def test_one_encoder_reads_the_tap_that_each_recipe_names(host, sentences):
    sizes = {"features": 64, "k": 4, "tokens": 2_000, "batch_size": 256, "progress": False}
    book = Codebook.fit(host, sentences * 4, taps=["hidden.0", "hidden.1"], **sizes)
    encoder = OnceEncoder(host, book)
    for tap in (TAP, "sentence.0"):
        recipe = book.recipe.model_copy(update={"sentence": SentenceRecipe(tap=tap)})
        assert tap in encoder.question(sentences[0], recipe)


def test_documents_without_sentences_are_read_a_few_at_a_time(book, encoder):
    taken = 0

    def blanks():
        nonlocal taken
        while True:
            taken += 1
            yield "", "\u200b"

    next(encoder.documents(blanks(), book.recipe))
    assert taken < 50_000
