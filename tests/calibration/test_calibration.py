"""Calibration: questions without labels, the search for a recipe, `s3r calibrate`."""

from __future__ import annotations

import json
import re
from itertools import chain, combinations

import pytest
import torch
from tqdm.auto import tqdm
from typer.testing import CliRunner

from s3_retriever import (
    Advanced,
    Codebook,
    Document,
    GoldSpan,
    Host,
    InputError,
    Interleave,
    LabelledQuestion,
    MaxToken,
    Recipe,
    S3Index,
    Tap,
    TapRecipe,
    calibrate,
)
from s3_retriever.calibration import Gain, Sample, questions_from
from s3_retriever.calibration.calibrate import CoordinateSearch
from s3_retriever.calibration.evaluation import Evaluator, split
from s3_retriever.calibration.settings import settings
from s3_retriever.cli.app import app
from s3_retriever.encoder import OnceEncoder

TOKEN_BUDGET = 32
SIGNS = [" ".join(signs) for signs in list(combinations("#%&*+=@~^|", 3))[::6]]


@pytest.fixture(scope="module")
def host(tiny_llama):
    return Host.load(str(tiny_llama), device="cpu", dtype="float32", layers=1)


@pytest.fixture(scope="module")
def useless(host, documents):
    """A codebook that reads a tap on whose tokens always the same features fire."""
    book = Codebook.fit(
        host,
        [document.text for document in documents],
        taps=["key.0", "hidden.0"],
        features=128,
        k=8,
        batch_size=256,
        buffer_tokens=2_048,
        progress=False,
    )
    sae = book.saes[Tap("key", 0)]
    with torch.no_grad():
        sae.W_enc.zero_()
        sae.b_enc.copy_(torch.arange(sae.features))
    recipe = Recipe(name="useless", taps={"key.0": TapRecipe()}, advanced=Advanced(doc_top_k=4))
    return book.with_recipe(recipe)


@pytest.fixture(scope="module")
def documents(sentences):
    """Twenty documents of five paragraphs with five sentences each; each begins with its sign."""
    paragraphs = [" ".join(sentences[n : n + 5]) for n in range(0, 750, 5)]
    return [
        Document(f"{sign} " + "\n\n".join(paragraphs[n * 5 : n * 5 + 5]), f"d{n}", {"title": ""})
        for n, sign in enumerate(SIGNS)
    ]


@pytest.fixture(scope="module")
def questions(documents):
    """Each asks for a document's first sentence by its sign, which has no words for BM25."""
    return [
        LabelledQuestion(sign, (GoldSpan(document.id, 0, document.text.index(".") + 1),))
        for sign, document in zip(SIGNS, documents, strict=True)
    ]


@pytest.fixture(scope="module")
def done(host, useless, documents, questions):
    return calibrate(
        documents, questions, host=host, codebook=useless, token_budget=TOKEN_BUDGET, progress=False
    )


def s3r(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


# Questions without labels


def test_a_question_is_removed_from_its_document_and_its_neighbours_are_the_evidence():
    text = "Ann mends seven old boats. Bob paints the harbour wall. Cem counts every white gull."
    sample = questions_from([Document(text, "a", {"title": "T"})], count=1)
    (question,), (document,) = sample.questions, sample.documents
    assert (document.id, document.title) == ("a", "T")
    assert question.text in text
    assert question.text not in document.text
    parts = [document.text[part.start : part.end] for part in question.evidence]
    whole = text.replace(". ", ".|").split("|")
    asked = next(number for number, sentence in enumerate(whole) if question.text in sentence)
    assert parts == [whole[number] for number in (asked - 1, asked + 1) if 0 <= number < 3]
    assert document.text == " ".join(sentence for n, sentence in enumerate(whole) if n != asked)


def test_made_questions_are_rows_where_rows_are_evidence():
    rows = [f"{n}, Mr. Lee no. {n} repairs. blue boats, harbour {n}" for n in range(9)]
    document = Document("\n".join(rows), "log", unit="line")
    sample = questions_from([document], count=3)
    (left,) = sample.documents
    assert sample.questions and left.unit == "line"
    assert set(left.text.split("\n")) < set(rows)
    found = [left.text[p.start : p.end] for q in sample.questions for p in q.evidence]
    assert set(found) < set(rows)


def test_made_questions_read_the_language_of_a_document():
    text = "Es ist nicht so. Der Hund und die Katze sind bei uns. Das war es nicht."
    assert not questions_from([Document(text, metadata={"language": "de"})]).questions
    assert questions_from([Document(text, metadata={"language": "en"})]).questions


def test_evidence_of_made_questions_are_whole_neighbours(documents):
    whole = {document.id: document.text for document in documents}
    sample = questions_from(documents, count=1_000)
    left = {document.id: document.text for document in sample.documents}
    assert len(sample.questions) > 100
    for question in sample.questions:
        for part in question.evidence:
            sentence = left[part.document_id][part.start : part.end]
            assert sentence.endswith(".") and "\n" not in sentence
            assert sentence in whole[part.document_id]
            paragraph = next(p for p in whole[part.document_id].split("\n\n") if sentence in p)
            assert question.text in paragraph
    # What is left is the documents without one sentence for each question.
    gone = sum(t.count(".") for t in whole.values()) - sum(t.count(".") for t in left.values())
    assert gone == len(sample.questions)
    assert [text.count("\n\n") for text in left.values()] == [4] * len(documents)


def test_made_questions_depend_on_the_seed_alone(documents):
    assert questions_from(documents, 20, 1) == questions_from(documents, 20, 1)
    assert questions_from(documents, 20, 1) != questions_from(documents, 20, 2)
    assert len(questions_from(documents, 20, 1).questions) == 20


def test_texts_that_say_too_little_give_no_questions():
    for text in ("", "Yes. No. Yes.", "One lonely sentence about seven boats.", "# A\n\n# B"):
        assert questions_from([text]).questions == ()


def test_documents_that_come_twice_count_once(documents):
    sample = questions_from([*documents, *documents], 20)
    assert sample == questions_from(documents, 20)


# Labels


@pytest.mark.parametrize(
    ("evidence", "problem"),
    [
        (GoldSpan("other", 0, 5), "not in the documents"),
        (GoldSpan("a", 0, 500), "0:500 of document 'a'"),
        (GoldSpan("a", 5, 5), "5:5 of document 'a'"),
    ],
)
def test_labels_outside_the_documents_are_refused(evidence, problem):
    with pytest.raises(InputError, match=problem):
        Sample((Document("A short text.", "a"),), (LabelledQuestion("What?", (evidence,)),))


def test_questions_without_text_or_evidence_are_refused():
    with pytest.raises(InputError, match="has no evidence"):
        LabelledQuestion("What?", ())
    with pytest.raises(InputError, match="is empty"):
        LabelledQuestion(" ", (GoldSpan("a", 0, 1),))


@pytest.mark.parametrize("made", [True, False])
def test_too_few_questions(made, documents, questions):
    few = None if made else questions[:19]
    with pytest.raises(InputError, match=r"at least 20 questions.* there are \d+"):
        # Refused before the host is looked for.
        calibrate(documents[: 1 if made else 20], few, host="no/such-host")


def test_a_single_text_is_one_document(documents):
    made = len(questions_from([documents[0]]).questions)
    assert 0 < made < 20
    with pytest.raises(InputError, match=f"at least 20 questions.* there are {made};"):
        calibrate(documents[0].text, host="no/such-host")


def test_a_token_budget_is_at_least_one_token(documents, questions, host, useless):
    with pytest.raises(InputError, match="token_budget must be a whole number of at least 1"):
        calibrate(documents, questions, host=host, codebook=useless, token_budget=0)


# The search


def test_both_halves_of_a_split_share_no_question_and_do_not_depend_on_order(documents, questions):
    first, second = split([Sample(tuple(documents), tuple(questions))], seed=0)
    assert len(first) == len(second) == 10
    assert not set(first) & set(second)
    assert {asked.question for asked in first + second} == set(questions)
    turned = split([Sample(tuple(documents), tuple(questions[::-1]))], seed=0)
    assert turned == (first, second)
    assert split([Sample(tuple(documents), tuple(questions))], seed=1) != (first, second)


def test_a_useless_tap_is_replaced(done):
    assert list(done.recipe.taps) == ["hidden.0"]
    assert done.recipe.name == "calibrated"
    assert done.start.name == "useless"
    assert done.after > done.before
    assert done.gain.low > 0
    assert done.gain.mean == pytest.approx(done.after - done.before)
    assert done.questions == (10, 10)
    assert done.token_budgets == (16, 32, 64)


def test_a_useless_tap_is_dropped(documents, questions, host, useless):
    taps = {"key.0": TapRecipe(weight=2.0), "hidden.0": TapRecipe()}
    both = useless.with_recipe(useless.recipe.changed("taps", taps))
    calibration = calibrate(
        documents, questions, host=host, codebook=both, token_budget=TOKEN_BUDGET
    )
    assert list(calibration.recipe.taps) == ["hidden.0"]


def test_every_trial_is_recorded(done):
    tried = {trial.setting for trial in done.trials}
    assert tried >= {
        *("taps", "scoring", "advanced.weight_power", "advanced.idf_power", "fusion.bm25_weight"),
        *("hop", "advanced.document_boost", "advanced.doc_top_k"),
    }
    values = [trial.value for trial in done.trials if trial.setting == "taps"][:3]
    assert values == ["key.0 alone, query", "key.0 alone, decoder", "hidden.0 alone, same"]
    kept = [trial for trial in done.trials if trial.kept]
    assert kept and all(trial.gain.mean > 2 * trial.gain.error for trial in kept)
    # Each change is a gain over the one before it.
    recalls = [trial.recall for trial in kept]
    assert recalls == sorted(recalls)
    first = kept[0]
    assert first.recall - first.gain.mean == pytest.approx(
        done.trials[0].recall - done.trials[0].gain.mean
    )


def test_the_report_is_json(done):
    report = json.loads(json.dumps(done.report()))
    assert Recipe.model_validate(report["recipe"]) == done.recipe
    assert len(report["trials"]) == len(done.trials)
    assert report["questions"] == {"deciding": 10, "held_out": 10}
    low, high = report["held_out"]["interval"]
    assert low <= report["held_out"]["gain"] <= high


def test_the_same_seed_gives_the_same(done, documents, questions, host, useless):
    again = calibrate(
        documents, questions[::-1], host=host, codebook=useless, token_budget=TOKEN_BUDGET
    )
    assert again.report() == done.report()


def test_a_recipe_that_is_best_stays(done, documents, questions, host):
    again = calibrate(
        documents, questions, host=host, codebook=done.codebook, token_budget=TOKEN_BUDGET
    )
    assert again.recipe is done.codebook.recipe
    assert (again.after, again.gain) == (done.after, Gain(0.0, 0.0))
    assert not any(trial.kept for trial in again.trials)


def test_documents_alone_will_do(documents, host, useless):
    calibration = calibrate(
        documents, host=host, codebook=useless, token_budget=TOKEN_BUDGET, count=40
    )
    assert calibration.questions == (20, 20)
    assert calibration.trials
    for trial in calibration.trials:
        hard = trial.setting.startswith(("fusion", "hop")) or trial.setting in (
            *("advanced.document_boost", "redundancy"),
        )
        if trial.kept and hard:
            assert trial.gain.mean > 4 * trial.gain.error


def test_interleaved_signals_have_no_weights_to_try(documents, questions, host, useless):
    book = useless.with_recipe(useless.named_recipe("paper"))
    calibration = calibrate(
        documents, questions, host=host, codebook=book, token_budget=TOKEN_BUDGET
    )
    tried = {trial.setting for trial in calibration.trials}
    assert tried.isdisjoint({"fusion.bm25_weight", "hop", "advanced.document_boost", "redundancy"})
    assert isinstance(calibration.recipe.fusion, Interleave)


def test_every_variant_is_a_recipe_that_could_be_written():
    book = Codebook.from_pretrained("minilm")
    max_token = book.recipe.changed("redundancy", None).changed("scoring", MaxToken())
    for recipe in (book.recipe, max_token, book.named_recipe("paper")):
        tried = {
            setting.name: [variant for _, variant in setting.variants(recipe)]
            for setting in settings(book, labelled=True)
        }
        for variant in chain.from_iterable(tried.values()):
            assert Recipe.model_validate(variant.model_dump()) == variant
        redundancies = [variant.redundancy for variant in tried["redundancy"]]
        assert (None in redundancies and len(redundancies) > 1) is (recipe is book.recipe)


def test_samples_are_searched_apart(host, done, documents, questions):
    together = [Sample(tuple(documents), tuple(questions))]
    apart = [Sample((d,), (q,)) for d, q in zip(documents, questions, strict=True)]
    recalls = []
    for samples in (together, apart):
        asked = [question for half in split(samples, 0) for question in half]
        encoder = OnceEncoder(host, done.codebook)
        with Evaluator(encoder, samples, [TOKEN_BUDGET], tqdm(disable=True)) as evaluator:
            recipe = done.recipe.changed("sentence", None)
            recalls.append(evaluator.recalls(recipe, asked).mean())
    assert recalls[0] < recalls[1] == 1.0


# What is chosen is used


def test_an_index_uses_the_stored_recipe(tmp_path, done, documents, host):
    done.codebook.save(tmp_path / "book")
    book = Codebook.load(tmp_path / "book")
    assert book.recipe == done.recipe
    assert book.identity == done.codebook.identity
    with S3Index.create(host=host, codebook=tmp_path / "book") as index:
        assert index.recipe == done.recipe
        index.add(documents[:2], progress=False)
        assert index.search("warm bread", 1)[0].document_id in ("d0", "d1")


def write_questions(folder, documents, questions):
    """As `s3r bench quality` reads them: questions of a shared corpus."""
    corpus = [
        {"doc_id": d.id, "title": d.title, "sents": re.split(r"(?<=\.)\s+", d.text)}
        for d in documents
    ]
    rows = [
        {"id": str(n), "question": q.text, "support": [[q.evidence[0].document_id, 0]]}
        for n, q in enumerate(questions)
    ]
    for name, lines in (("mine_claims", rows), ("mine_corpus", corpus)):
        text = "\n".join(json.dumps(line) for line in lines)
        (folder / f"{name}.jsonl").write_text(text)
    return folder / "mine_claims.jsonl"


@pytest.fixture
def book(tmp_path, useless):
    useless.save(tmp_path / "before")
    return tmp_path / "before"


def test_command_with_labels(tmp_path, tiny_llama, book, documents, questions):
    data = write_questions(tmp_path, documents, questions)
    out, recipe = tmp_path / "after", tmp_path / "recipe.json"
    model = [tiny_llama, "--codebook", book, "--token-budget", TOKEN_BUDGET, "--device", "cpu"]
    result = s3r("calibrate", *model, "--questions", data, "--out", out, "--recipe-only", recipe)
    assert result.exit_code == 0, result.stderr
    heading, *lines = result.stdout.splitlines()
    assert heading.split() == ["setting", "value", "recall", "gain", "error"]
    assert any(line.startswith("taps") and line.endswith("kept") for line in lines)
    assert "above for the 10 questions that decided, below for the 10 held out" in result.stdout
    assert "The new recipe finds more." in result.stdout
    chosen = Codebook.load(out).recipe
    assert list(chosen.taps) == ["hidden.0"]
    assert Recipe.model_validate_json(recipe.read_bytes()) == chosen
    assert Codebook.load(book).recipe.name == "useless"


def test_command_without_labels(tmp_path, tiny_llama, book, documents):
    (tmp_path / "texts").mkdir()
    for document in documents[:15]:
        (tmp_path / f"texts/{document.id}.txt").write_text(document.text)
    lines = [json.dumps({"text": document.text}) for document in documents[15:]]
    (tmp_path / "more.jsonl").write_text("\n".join(lines))
    model = [tiny_llama, "--codebook", book, "--token-budget", TOKEN_BUDGET, "--device", "cpu"]
    texts = ["--text", tmp_path / "texts", "--text", tmp_path / "more.jsonl", "--count", "40"]
    # The codebook may take the place of the one it was made from.
    result = s3r("calibrate", *model, *texts, "--out", book, "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["questions"] == {"deciding": 20, "held_out": 20}
    assert Codebook.load(book).recipe.model_dump() == report["recipe"]


def test_command_fails_before_it_begins(tmp_path, book, documents):
    text, other = tmp_path / "a.txt", tmp_path / "other.json"
    text.write_text("Too little text.")
    other.write_text("{}")
    for arguments, code, problem in (
        (["--text", text, "--out", tmp_path], 1, "other than a codebook"),
        (["--text", text, "--recipe-only", other], 1, "is not a valid recipe"),
        (["--text", tmp_path / "none", "--out", book], 1, "no file or folder"),
        (["--questions", tmp_path / "none.jsonl", "--out", book], 1, "cannot be read"),
        (["--text", text, "--out", book], 1, "at least 20 questions"),
        (["--text", text], 2, "--recipe-only"),
        (["--out", book], 2, "--questions or --text"),
        (["--text", text, "--questions", text, "--out", book], 2, "either --questions or --text"),
    ):
        result = s3r("calibrate", "no/such-host", *arguments)
        assert result.exit_code == code, result.stderr
        assert problem in result.stderr
    assert other.read_text() == "{}"


def test_an_interruption_writes_nothing(
    tmp_path, tiny_llama, book, documents, questions, monkeypatch
):
    def interrupted(self, settings):
        self._try(settings[0])
        raise KeyboardInterrupt

    monkeypatch.setattr(CoordinateSearch, "run", interrupted)
    data = write_questions(tmp_path, documents, questions)
    before = {path: path.read_bytes() for path in book.rglob("*") if path.is_file()}
    model = [tiny_llama, "--codebook", book, "--device", "cpu"]
    result = s3r("calibrate", *model, "--questions", data, "--out", book)
    assert result.exit_code == 130
    assert "Interrupted. Nothing was written." in result.stderr
    assert {path: path.read_bytes() for path in book.rglob("*") if path.is_file()} == before
