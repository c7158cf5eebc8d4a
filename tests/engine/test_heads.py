"""Retrieval heads: fitted, indexed, searched and explained."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from s3_retriever import Codebook, CodebookError, Document, Host, InputError, S3Index
from s3_retriever.encoder import Encoder
from s3_retriever.engine.s3index import new_store
from s3_retriever.errors import IndexStoreError
from s3_retriever.host.taps import Tap, read_marked
from s3_retriever.recipe import HeadsRecipe
from s3_retriever.search.pipeline import rank

HEADS = ("1.0", "1.1", "1.3")  # of key heads 1.0, 1.0 and 1.1


@pytest.fixture(scope="module")
def host(tiny_llama) -> Host:
    return Host.load(str(tiny_llama), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def plain(host, sentences) -> Codebook:
    sizes = {"features": 64, "k": 4, "tokens": 2_000, "batch_size": 256, "progress": False}
    return Codebook.fit(host, sentences, taps=["hidden.0"], **sizes)


@pytest.fixture(scope="module")
def book(host, plain, sentences) -> Codebook:
    return plain.with_heads(host, sentences[:200], HEADS, progress=False)


@pytest.fixture(scope="module")
def documents(sentences) -> list[Document]:
    texts = [" ".join(sentences[i::97][:5]) for i in range(9)]
    return [Document(text, f"d{i}") for i, text in enumerate(texts)]


def index_of(host, book, recipe, documents, path=None):
    encoder = Encoder(host, book)
    index = S3Index(new_store(path, encoder, recipe, None), encoder, recipe)
    for document in documents:
        index.add([document], progress=False)
    return index


def raw_scores(index, question):
    snapshot = index._store.snapshot()
    ranking = rank(snapshot, question, index.recipe, index.encoder, "s3", snapshot.live)
    return ranking.raw_scores["heads"]


def exact_scores(host, documents, question):
    """The definition: softmax of q . k over all tokens, the mean over queries and heads."""
    sites = [Tap("key", 1), Tap("query", 1)]

    def read(text):
        seen = read_marked(host, sites, list(host.windows([Document(text)])))
        return [seen[site].values[~seen[site].sinks].view(-1, n, 8) for site, n in
                zip(sites, (2, 4), strict=True)]  # fmt: skip

    keys = torch.cat([read(document.text)[0] for document in documents])
    queries = read(question)[1]
    tokens = torch.zeros(len(keys))
    for head, shared in ((0, 2), (1, 2), (3, 1)):
        logits = queries[:, head] @ keys[:, head // 2].T / 8**0.5
        tokens += logits.softmax(-1).mean(0) / shared
    lengths = [
        sentence.n_tokens for window in host.windows(documents) for sentence in window.sentences
    ]
    return np.array([float(p.sum()) / len(p) ** 0.5 for p in tokens.split(lengths)])


def test_scores_are_the_attention_before_the_rotary_embedding(host, book, documents):
    index = index_of(host, book, book.recipe, documents)
    question = "Who signs the blue ledger before dawn?"
    found, exact = raw_scores(index, question), exact_scores(host, documents, question)
    assert found.shape == exact.shape
    assert np.corrcoef(found, exact)[0, 1] > 0.97


def test_keys_stay_with_their_tokens(host, book, documents, tmp_path):
    question = "Who carries seven boats?"
    index = index_of(host, book, book.recipe, documents, tmp_path / "i")
    index.add([Document("A tired clerk sleeps.", "new")], progress=False)
    index.delete(["d0", "new"])
    index.compact()
    fresh = index_of(host, book, book.recipe, documents[1:])
    np.testing.assert_allclose(raw_scores(index, question), raw_scores(fresh, question), atol=1e-6)
    index.save(tmp_path / "copy")
    reopened = S3Index.open(tmp_path / "copy", host=host, codebook=book)
    assert reopened.search(question) == index.search(question)
    assert reopened.verify().files == index.verify().files


def test_a_sentence_of_attention_sinks_gets_no_attention(host, book, documents, monkeypatch):
    from s3_retriever.host import taps

    index = index_of(host, book, book.recipe, documents[:2])
    monkeypatch.setattr(taps, "find_sinks", lambda s, _: torch.ones(s.shape[:2], dtype=torch.bool))
    index.add([documents[2]], progress=False)
    monkeypatch.undo()
    scores = raw_scores(index, "Who paints?")
    sizes = [len(window.sentences) for window in host.windows(documents[:3])]
    assert not scores[sum(sizes[:2]) :].any()
    assert scores[: sum(sizes[:2])].all()


def test_only_the_best_candidates_of_a_large_index_are_scored(host, book, documents):
    recipe = book.recipe.changed("heads.candidates", 40)
    index = index_of(host, book, recipe, documents)
    scores = raw_scores(index, "Who mends warm bread?")
    lengths = np.array([s.n_tokens for w in host.windows(documents) for s in w.sentences])
    assert 0 < lengths[scores != 0].sum() <= 40
    assert index.search("Who mends warm bread?", k=3)


def test_the_explanation_says_what_looks_at_what(host, book, documents):
    index = index_of(host, book, book.recipe, documents)
    question = "Who forgets a broken clock?"
    (span, *_) = index.search(question, k=1)
    explanation = index.explain(question, span)
    assert explanation.contributions.keys() >= {"s3", "heads", "bm25"}
    shares = explanation.attention
    assert sum(share.share for share in shares) == pytest.approx(1)
    assert {share.head for share in shares} == {"1.0", "1.1"}
    assert all(share.span_token in span.text for share in shares)
    assert all(share.question_token.strip() in question for share in shares)
    assert [share.share for share in shares] == sorted((s.share for s in shares), reverse=True)
    assert (
        not index_of(host, book, book.recipe.changed("heads", None), documents)
        .explain(question, span)
        .attention
    )


def test_a_weight_decides_how_much_heads_count(host, book, documents):
    heavy = book.recipe.changed("heads.weight", 1_000.0)
    index = index_of(host, book, heavy, documents)
    question = "Who counts every release?"
    best = raw_scores(index, question).argmax()
    (span,) = index.search(question, k=1, mode="s3")
    sentences = [
        (document.id, s.start) for document in documents
        for w in host.windows([document]) for s in w.sentences
    ]  # fmt: skip
    assert (span.document_id, span.start) == sentences[best]
    assert "heads" in span.sources


def test_heads_are_saved_and_belong_to_the_identity(host, plain, book, tmp_path):
    book.save(tmp_path / "book")
    loaded = Codebook.load(tmp_path / "book")
    assert loaded.identity == book.identity != plain.identity
    assert loaded.recipe == book.recipe
    assert loaded.layout(loaded.recipe).key_bytes == {"1.0": 4, "1.1": 4}
    assert (plain.depth, loaded.depth) == (1, 2)
    loaded.check_host(host)
    assert not loaded.with_heads(host, ["Some text."], []).key_heads


def test_fit_takes_heads(host, sentences):
    sizes = {"features": 64, "k": 4, "tokens": 2_000, "batch_size": 256, "progress": False}
    fitted = Codebook.fit(host, iter(sentences), taps=["hidden.0"], heads=["1.2"], **sizes)
    assert fitted.recipe.heads == HeadsRecipe(query_heads=("1.2",))
    with pytest.raises(InputError, match=r"no head 5\.0.*layers 0 to 1"):
        Codebook.fit(host, sentences, taps=["hidden.0"], heads=["5.0"], **sizes)
    with pytest.raises(InputError, match="Unknown head 'x'"):
        Codebook.fit(host, sentences, taps=["hidden.0"], heads=["x"], **sizes)


def test_a_codebook_without_the_heads_of_a_recipe_is_refused(host, plain, book, documents):
    with pytest.raises(CodebookError, match=r"needs the query head 1\.0.*--head 1\.0"):
        plain.with_recipe(book.recipe)
    with pytest.raises(CodebookError, match=r"needs the query head 0\.3"):
        book.named_recipe(book.recipe.changed("heads.query_heads", ("0.3",)))


def test_an_index_without_keys_is_not_searched_with_heads(host, book, documents, tmp_path):
    without = book.recipe.changed("heads", None)
    index_of(host, book, without, documents, tmp_path / "i")
    encoder = Encoder(host, book)
    from s3_retriever.index import Store

    index = S3Index(Store.open(tmp_path / "i"), encoder, book.recipe)
    with pytest.raises(IndexStoreError, match="keys of the heads"):
        index.search("Who?")


def test_a_search_asks_only_for_heads_that_are_indexed(host, book, documents):
    index = index_of(host, book, book.recipe.changed("heads.query_heads", ("1.0",)), documents)
    assert index.search("Who paints?", recipe=book.recipe.changed("heads", None))
    with pytest.raises(CodebookError, match=r"needs key head 1\.1, which is not indexed"):
        index.search("Who paints?", recipe=book.recipe)


@pytest.mark.parametrize("what", ["missing", "scale", "size", "number"])
def test_damaged_heads_are_named(what, host, book, tmp_path):
    book.save(tmp_path / "book")
    file = tmp_path / "book" / "head.1.0" / "keys.safetensors"
    description = tmp_path / "book" / "codebook.json"
    tensors = load_file(file)
    if what == "missing":
        file.unlink()
    elif what == "number":
        fields = json.loads(description.read_text())
        (tmp_path / "book" / "head.1.7").mkdir()
        save_file(tensors, tmp_path / "book" / "head.1.7" / "keys.safetensors")
        fields["key_heads"].append("1.7")
        fields["identity"] = "x"
        description.write_text(json.dumps(fields))
    else:
        change = {"scale": {"scale": tensors["scale"] * 0}, "size": {"centre": torch.zeros(9)}}
        save_file({**tensors, **change[what]}, file)
    with pytest.raises(CodebookError, match="fetch or fit"):
        Codebook.load(tmp_path / "book")


def test_the_keys_of_an_index_are_checked(host, book, documents, tmp_path):
    index = index_of(host, book, book.recipe, documents, tmp_path / "i")
    index.compact()
    index.close()
    (file,) = (tmp_path / "i").glob("*/keys.1.1.npy")
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(IndexStoreError, match=r"keys\.1\.1\.npy"):
        S3Index.open(tmp_path / "i", host=host, codebook=book)


def test_an_explained_sentence_keeps_its_first_word(host, plain):
    # The token of a first word begins with the space before its sentence.
    index = index_of(host, plain, plain.recipe, [Document("One two. In winter. No.")])
    for span in index.search("In winter?", mode="s3"):
        tokens = index.explain("In winter?", span).tokens
        assert "".join(token.text for token in tokens) == span.text.replace(" ", "")
        assert tokens[0].start == span.start
