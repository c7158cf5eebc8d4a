"""`s3r bench longcontext` measures what it says, on tiny hosts and a few thousand tokens."""

from __future__ import annotations

import json
import random
import zipfile
from itertools import groupby

import pytest
import torch
from helpers.answering import make_answerer
from transformers import AutoTokenizer, MistralConfig, MistralForCausalLM
from typer.testing import CliRunner

from s3_retriever import Document, Host, InputError, LongContext
from s3_retriever.calibration.question_sets import Choice
from s3_retriever.cli.app import app
from s3_retriever.engine import find_codebook
from s3_retriever_bench.longcontext import longbench, report
from s3_retriever_bench.longcontext.answering import Answerer, Asked
from s3_retriever_bench.longcontext.evidence import METHODS, ReadContext, Tools
from s3_retriever_bench.longcontext.longbench import TASKS, choose, parse_sample, read_samples
from s3_retriever_bench.longcontext.needles import make_haystack, probe
from s3_retriever_bench.longcontext.report import (
    LongContextSummary,
    longcontext_claims,
    longcontext_tables,
)
from s3_retriever_bench.longcontext.run import Plan, run_longcontext
from s3_retriever_bench.shared.corpus import text_of
from s3_retriever_bench.shared.report import check, signed
from s3_retriever_bench.shared.scoring import holds_answer, normalise
from s3_retriever_bench.shared.statistics import Estimate

QUESTION = "What does the old captain paint after the storm?"
EVIDENCE = "The old captain paints an orange door after the storm."


@pytest.fixture(scope="module")
def answerer_folder(tmp_path_factory, tiny_llama, sentences):
    """A Llama of three layers with LM head, codebook and 1,024 positions."""
    folder = tmp_path_factory.mktemp("answerers") / "llama"
    return make_answerer(folder, tiny_llama, sentences, max_position_embeddings=1_024)


@pytest.fixture(scope="module")
def tools(answerer_folder):
    book = find_codebook(str(answerer_folder), None)
    return Tools(LongContext(str(answerer_folder), device="cpu", dtype="float32"), book)


def read(text, tools):
    return ReadContext([Document(text)], tools)


def story(sentences, count):
    """So many sentences in paragraphs, with the evidence in the middle."""
    told = [*sentences[: count // 2], EVIDENCE, *sentences[count // 2 : count]]
    return "\n\n".join(" ".join(told[i : i + 5]) for i in range(0, len(told), 5))


def row(context, dataset="multifieldqa_en", answers=("an orange door",), **fields):
    asked = {"dataset": dataset, "context": context, "input": QUESTION, "answers": list(answers)}
    return asked | fields


@pytest.fixture(scope="module")
def questions(tmp_path_factory, sentences):
    """A file with a question about a text that fits the Llama, and two that it is too short for."""
    path = tmp_path_factory.mktemp("data") / "questions.jsonl"
    long = story(sentences, 200)
    rows = [
        row(story(sentences, 20)),
        row(long),
        row(long, "hotpotqa", ["yes"]),
    ]
    path.write_text("\n".join(json.dumps(line) for line in rows) + "\n")
    return path


def s3(*arguments):
    command = ["bench", "longcontext", *arguments]
    return CliRunner().invoke(app, [str(argument) for argument in command])


def said(result):
    return " ".join(result.output.split())


def test_answers_are_scored_as_longbench_does():
    qa, abstract = TASKS["hotpotqa"], TASKS["passage_retrieval_en"]
    # bob dylan band: 2 of 3 words are right, 2 of 2 are there.
    assert qa.score("The Bob Dylan band!", ["Bob Dylan"]) == pytest.approx(0.8)
    assert qa.score("Bob Dylan", ["Roy Orbison", "the Bob, Dylan"]) == 1
    assert qa.score("no no", ["no"]) == pytest.approx(2 / 3)  # each word as often as it occurs
    assert qa.score("", ["a"]) == 0
    assert TASKS["triviaqa"].score("\nParis\nQuestion: x", ["Paris"]) == 1
    assert qa.score("Paris\nQuestion x", ["Paris"]) == pytest.approx(0.5)
    assert abstract.score("Paragraph 19 or 3", ["Paragraph 19"]) == 0.5
    assert abstract.score("Paragraph 1", ["Paragraph 19"]) == 0
    assert abstract.score("the last", ["Paragraph 19"]) == 0


def test_rouge_l_is_f1_of_the_longest_common_subsequence():
    task = TASKS["gov_report"]
    # the cat on mat: 4 of 6 and 6 words.
    assert task.score("The cat sat on the mat.", ["the cat is on a mat"]) == pytest.approx(2 / 3)
    assert task.score("b a", ["a b"]) == 0.5
    assert task.score("", ["a b"]) == 0
    generator = random.Random(0)
    for _ in range(200):
        mine, its = (generator.choices("abc", k=generator.randrange(1, 9)) for _ in range(2))
        value = task.score(" ".join(mine), [" ".join(its)])
        assert value == pytest.approx(2 * longest(mine, its) / (len(mine) + len(its)))


def longest(mine, its):
    """Length of the longest common subsequence, by its definition."""
    if not mine or not its:
        return 0
    if mine[-1] == its[-1]:
        return 1 + longest(mine[:-1], its[:-1])
    return max(longest(mine[:-1], its), longest(mine, its[:-1]))


def test_a_gold_answer_is_looked_for_by_its_words():
    assert normalise("The U.S.  Navy's a ship") == "us navys ship"
    assert holds_answer("It was (an) Orange, door.", ["the orange door"]) is True
    assert holds_answer("see Paragraph 19", ["Paragraph 1"]) is False
    assert holds_answer("Paragraph 1: x", ["Paragraph 2", "Paragraph 1"]) is True
    assert holds_answer("yes and no", ["yes", "No."]) is None


@pytest.mark.parametrize("name", [name for name in TASKS if name != "triviaqa"])
def test_prompts_are_taken_apart_and_put_together(name):
    task = TASKS[name]
    context = "One {input}.\n\nQuestion: none\nAnswer: {context}\n\nQuery: x"
    sample = parse_sample(row(context, name))
    assert sample.context == context and sample.answers == ("an orange door",)
    assert sample.prompt == task.prompt.replace("{input}", QUESTION).replace(
        "{context}", context, 1
    )
    if "{input}" in task.prompt:
        assert sample.question == QUESTION
    else:
        assert sample.question == "Now, write a one-page summary of the report."
    whole = {"dataset": name, "prompt": sample.prompt, "answers": ["an orange door"]}
    assert parse_sample(whole) == sample
    assert parse_sample(whole | {"context": "of no use", "question": "nor this"}) == sample


@pytest.mark.parametrize("end", ["\n", "", " \n\n"])
def test_the_passage_of_triviaqa_belongs_to_its_context(end):
    examples = "Passage:\nOnce.\nQuestion:\nWhen?\nAnswer:\nOnce"
    asked = "Passage:\nIn Paris.\n\nQuestion:\nWhere?\nAnswer:" + end
    sample = parse_sample(row(examples, "triviaqa", input=asked))
    assert sample.prompt == TASKS["triviaqa"].prompt.format(context=examples, input=asked)
    assert sample.question == "Where?"
    assert sample.context == f"{examples}\n\nPassage:\nIn Paris.\n"
    assert sample.after == "\nQuestion:\nWhere?\nAnswer:" + end


def test_other_prompts_and_other_tasks_are_read():
    # qasper asked with the prompt of another task, as in samples of LongBench.
    prompt = TASKS["hotpotqa"].prompt.format(context="A text.", input="What?")
    sample = parse_sample({"dataset": "qasper", "prompt": prompt, "answers": ["a"]})
    assert (sample.task, sample.context, sample.question) == (TASKS["qasper"], "A text.", "What?")
    own = {"dataset": "mine", "prompt": "Read: A text. Now: What?", "answers": ["a"]}
    sample = parse_sample(own | {"context": "A text.", "question": "What?"})
    assert (sample.before, sample.after) == ("Read: ", " Now: What?")
    assert (sample.task.name, sample.task.metric) == ("mine", "f1")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "line 2, cannot be used (Expecting"),
        ("[" * 100_000, "recursion"),
        (json.dumps(row("\ud800")), "context has a lone surrogate"),
        ("[]", "it is not a JSON object"),
        ('{"answers": ["a"]}', "dataset is missing or not a string"),
        (json.dumps(row("x", "my/set")), "dataset 'my/set' may have only letters"),
        (json.dumps(row("x", answers=[])), "answers has no answer"),
        (json.dumps(row("x") | {"answers": "a"}), "answers is not a list of strings"),
        (json.dumps(row(" ")), "the context is empty"),
        (json.dumps(row("x", input=" ")), "the question is empty"),
        ('{"dataset": "a", "answers": ["a"], "prompt": "b"}', "context and question are missing"),
        (
            '{"dataset": "a", "answers": ["a"], "prompt": "b", "context": "c", "question": "d"}',
            "prompt does not contain the context",
        ),
    ],
)
def test_a_bad_row_is_told_with_its_line(tmp_path, line, why):
    path = tmp_path / "bad.jsonl"
    path.write_text(f"{json.dumps(row('A text.'))}\n{line}\n")
    result = s3("--data", path, "--no-needle")
    assert result.exit_code == 1
    assert "line 2, cannot be used (" in said(result) and why in said(result)
    assert "a line is a JSON object with dataset" in said(result)


def test_files_that_are_none_are_told(tmp_path):
    with pytest.raises(InputError, match=r"cannot be read \(No such file"):
        read_samples([str(tmp_path / "none.jsonl")], [], Choice())
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match="has no questions"):
        read_samples([str(tmp_path / "empty.jsonl")], [], Choice())
    (tmp_path / "latin.jsonl").write_bytes(b"\xe4")
    with pytest.raises(InputError, match="is not UTF-8"):
        read_samples([str(tmp_path / "latin.jsonl")], [], Choice())
    with pytest.raises(InputError, match="There is no task 'lcc'; choose from narrativeqa"):
        read_samples([], ["lcc"], Choice())


def test_question_sets_are_asked_like_longbench(tmp_path):
    docs = [{"title": f"T{i}", "sents": [f"Boat {i} is red.", "It sails."]} for i in range(3)]
    asked = {"question": "Which {boat}?", "docs": docs, "support": [[0, 0]]}
    rows = [{**asked, "id": "a", "answers": ["Boat 0", " "]}, {**asked, "id": "b", "answers": []}]
    path = tmp_path / "hotpotqa.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    (sample,) = read_samples([str(path)], [], Choice("all"))
    assert sample.task.name == "hotpotqa-set" and sample.answers == ("Boat 0",)
    assert sorted(document.title for document in sample.documents) == ["T0", "T1", "T2"]
    assert "T1\nBoat 1 is red. It sails.\n\nT" in f"{sample.context}\n\nT"
    assert sample.prompt == TASKS["hotpotqa"].prompt.format(
        context=sample.context, input="Which {boat}?"
    )


def test_a_corpus_fits_no_prompt(tmp_path):
    claim = {"id": "1", "question": "Is it?", "support": [["d", 0]]}
    (tmp_path / "x_claims.jsonl").write_text(json.dumps(claim))
    document = {"doc_id": "d", "title": "T", "sents": ["It is."]}
    (tmp_path / "x_corpus.jsonl").write_text(json.dumps(document))
    with pytest.raises(InputError, match="x has a corpus for all questions, which no prompt holds"):
        read_samples([str(tmp_path / "x_claims.jsonl")], [], Choice("all"))


def test_questions_about_one_context_are_asked_together():
    rows = [row(f"A text {n % 3}.", input=f"Question {n}?") for n in range(9)]
    chosen = choose(map(parse_sample, rows), None, 0)
    assert len(chosen) == 9
    assert [len(list(same)) for _, same in groupby(s.group for s in chosen)] == [3, 3, 3]


def test_public_tasks_are_read_from_the_archive(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="is out of reach; check the connection, or pass files"):
        read_samples([], ["hotpotqa"], Choice())
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        lines = [json.dumps(row(f"A text \u2028 {n}.", "hotpotqa")) for n in range(3)]
        archive.writestr("data/hotpotqa.jsonl", "\n".join([*lines, lines[0]]) + "\n")
    monkeypatch.setattr(longbench, "hf_hub_download", lambda *_, **__: tmp_path / "data.zip")
    samples = read_samples([], ["hotpotqa"], Choice())
    # The line that comes twice counts once.
    assert [sample.context[-2:] for sample in samples] == ["0.", "1.", "2."]
    assert choose(samples, None, 3) == choose(samples, None, 3) != samples
    assert choose(samples, 2, 3) == choose(samples, None, 3)[:2]


@pytest.mark.parametrize("method", [*METHODS, "hybrid-section"])
def test_every_method_keeps_to_the_budget(tools, sentences, method):
    with read(story(sentences, 200), tools) as context:
        assert context.tokens > 1_400
        for budget in (32, 33, 200):
            evidence = context.evidence(method, QUESTION, budget)
            if method == "full":
                assert evidence == context.text
                continue
            assert 0 < context.count(evidence) <= budget
            if method in ("truncation", "dense"):
                assert context.count(evidence) > budget - 4
        assert context.evidence(method, QUESTION, 100_000) == context.text
        assert (context.prepare(method).seconds > 0) == (method not in ("full", "truncation"))


def test_truncation_keeps_both_ends(tools, sentences):
    with read(story(sentences, 200), tools) as context:
        head, tail = context.evidence("truncation", QUESTION, 100).split("\n", 1)
        assert context.text.startswith(head) and context.text.endswith(tail)
        assert abs(context.count(head) - context.count(tail)) <= 2


def test_dense_evidence_is_in_the_order_of_the_context(tools, sentences):
    with read(story(sentences, 400), tools) as context:
        evidence = context.evidence("dense", QUESTION, 900)
        places = [context.text.find(part) for part in evidence.split("\n") if part]
        assert places == sorted(places) and -1 not in places


def test_modes_of_compressing_have_their_own_sources(tools, sentences):
    with tools.reader("host").scan(story(sentences, 200), progress=False) as scanned:
        sources = {
            mode: {
                source
                for span in scanned.compress(QUESTION, token_budget=60, mode=mode)
                for source in span.sources
            }
            for mode in ("s3", "bm25", "hybrid")
        }
        assert sources["bm25"] == {"bm25"}
        assert "s3" in sources["s3"] and "bm25" not in sources["s3"]
        assert sources["hybrid"] >= {"s3", "bm25"}
        with pytest.raises(InputError, match="mode must be hybrid"):
            scanned.compress(QUESTION, token_budget=60, mode="all")


@pytest.fixture(scope="module")
def sliding_host(answerer_folder):
    """A host whose cache forgets all but the last seven tokens."""
    config = MistralConfig.from_pretrained(answerer_folder, sliding_window=8)
    tokenizer = AutoTokenizer.from_pretrained(answerer_folder)
    torch.manual_seed(0)
    return Host.of(MistralForCausalLM(config).eval(), tokenizer, name="mistral")


@pytest.mark.parametrize("sliding", [False, True])
def test_what_a_host_believes_is_what_its_logits_say(tools, sliding_host, sliding):
    host = sliding_host if sliding else tools.host
    answerer = Answerer(host)
    reply = answerer.answer("The old captain paints ", "seven", 4, "boats in the harbour, again")
    ids = [*host.tokenizer.prefix, *host.tokenizer.ids("The old captain paints seven")]
    gold = host.tokenizer.ids(" boats in the harbour, again")[:4]
    with torch.inference_mode():
        logits = host.causal(input_ids=torch.tensor([ids + gold])).logits[0].float()
    expected = torch.nn.functional.cross_entropy(
        logits[len(ids) - 1 : -1], torch.tensor(gold)
    ).item()
    belief = reply.belief
    assert belief.nll == pytest.approx(expected, rel=1e-4)
    assert belief.next.exp().sum() == pytest.approx(1, rel=1e-4)
    other = answerer.answer("A baker ", "counts", 3, "boats").belief
    assert belief.divergence(belief) == 0 < belief.divergence(other)
    p, q = belief.next.exp(), other.next.exp()
    assert belief.divergence(other) == pytest.approx(float((p * (p / q).log()).sum()), rel=1e-3)
    assert 0 < reply.first_token_seconds <= reply.cost.seconds
    assert answerer.answer("A baker ", "counts", 3).belief is None


def test_a_model_that_thinks_is_asked_not_to(tools, monkeypatch):
    host = tools.host
    template = (
        "{% for m in messages %}{{ m['content'] }}{% endfor %}"
        "{% if enable_thinking is not defined or enable_thinking %} thinks{% endif %} says:"
    )
    monkeypatch.setattr(host.tokenizer.source, "chat_template", template)
    says = [*host.tokenizer.ids("A baker"), *host.tokenizer.ids(" says:")]
    assert Answerer(host).length("A ", "baker") == len(says)


def test_a_context_beyond_the_positions_is_recorded(tools, sentences):
    answerer = Answerer(tools.host)
    sample = parse_sample(row(story(sentences, 200)))
    with read(sample.context, tools) as context:
        asked = Asked(sample, context, answerer)
        full = asked.measure("full", [64])
        assert full["budgets"] == {
            "full": {
                "tokens": context.tokens,
                "seconds": full["budgets"]["full"]["seconds"],
                "recall": 1.0,
                "failed": "beyond the model's 1,024 positions",
            }
        }
        result = asked.measure("bm25", [64])["budgets"]
        assert result["64"]["recall"] == 1 and result["64"]["kl"] is None
        assert 0 <= result["64"]["score"] <= 1 and result["64"]["nll"] > 0
        result = asked.measure("truncation", [1_000])["budgets"]
        assert result["1000"]["failed"] == "beyond the model's 1,024 positions"


def test_a_device_without_memory_is_recorded(tools, sentences, monkeypatch):
    def refuse(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(tools.host.causal, "forward", refuse)
    answerer = Answerer(tools.host)
    sample = parse_sample(row(story(sentences, 20)))
    with read(sample.context, tools) as context:
        result = Asked(sample, context, answerer).measure("truncation", [32])["budgets"]["32"]
        assert result["failed"] == "out of memory" and result["recall"] == 0
        made = make_haystack(context.text, [0.5], 0, 0)
        assert probe(made, context, "full", 64, answerer)["failed"] == "out of memory"


def test_needles_lie_where_they_are_said_to(sentences):
    text = " ".join(sentences)
    depths = [0, 0.25, 0.5, 1]
    made = make_haystack(text, depths, 2, 7)
    rest = made.text
    for depth, needle in zip(depths, made.needles, strict=True):
        assert made.text.count(needle.value) == 1 and needle.fact in made.text
        assert made.text.index(needle.fact) / len(made.text) == pytest.approx(depth, abs=0.03)
        rest = rest.replace(needle.fact, "")
    assert rest.split() == text.split()
    assert make_haystack(text, depths, 2, 7) == made
    others = make_haystack(text, depths, 3, 7).needles
    assert not {needle.value for needle in others} & {needle.value for needle in made.needles}


def test_needles_are_found_at_every_depth(tools, sentences, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(" ".join(sentences[:100]))
    text = text_of([path], 700, tools.tokenizer)
    assert abs(tools.tokenizer.count(text) - 700) < 3
    made = make_haystack(text, [0, 0.25, 0.5, 0.75, 1], 0, 0)
    answerer = Answerer(tools.host)
    with read(made.text, tools) as context:
        for method in ("full", "bm25"):
            assert probe(made, context, method, 300, None) == {
                "found": [1.0] * 5,
                "answered": [None] * 5,
                "failed": None,
            }
        ends = probe(made, context, "truncation", 128, answerer)
        assert ends["found"] == [1, 0, 0, 0, 1]
        # Random weights answer nonsense.
        assert ends["answered"] == [0] * 5
        whole = probe(made, context, "full", 128, answerer)
        assert whole["answered"] == [None] * 5
        assert whole["failed"] == "beyond the model's 1,024 positions"


def test_a_causal_host_is_measured_from_end_to_end(tmp_path, answerer_folder, questions, sentences):
    haystack = tmp_path / "hay.txt"
    haystack.write_text(" ".join(sentences))
    out = tmp_path / "new" / "out"
    fixed = ["--host", answerer_folder, "--data", questions, "--haystack", haystack, "--out", out]
    fixed += ["--token-budget", 64, "--needles", 1, "--needle-tokens", 600]
    fixed += ["--needle-depth", 0, "--needle-depth", 1]
    result = s3(*fixed)
    assert result.exit_code == 0, result.output
    written = json.loads((out / "longcontext.json").read_text())
    assert list(written["values"]) == list(METHODS)
    assert written["questions"]["task"] == ["multifieldqa_en", "multifieldqa_en", "hotpotqa"]
    assert len(set(written["questions"]["group"])) == 2
    full = written["values"]["full"]["budgets"]["full"]
    long = "beyond the model's 1,024 positions"
    assert sorted(map(str, full["failed"])) == ["None", long, long]
    for method in METHODS[1:]:
        for budget, columns in written["values"][method]["budgets"].items():
            assert max(columns["tokens"]) <= int(budget)
            assert all(0 <= value <= 1 for value in columns["score"])
            assert [value is None for value in columns["kl"]] == [
                value is None for value in full["score"]
            ]
            assert columns["recall"][2] is None  # a yes is not looked for
    bm25, ends = (written["values"][name]["budgets"]["64"] for name in ("bm25", "truncation"))
    assert bm25["recall"][:2] == [1, 1] and ends["recall"][:2] == [0, 0]
    page = (out / "longcontext.md").read_text()
    for text in (
        "All tasks: answer recall",
        "All tasks: score",
        "KL to the whole context",
        "Claims",
    ):
        assert text in page and text in result.output
    assert f"| full | 2 of 3 | {long} |" in page and "Not measured" in result.output
    assert "Needles in the answer" in page and "(needle.svg)" in page and "(scores.svg)" in page
    for name in ("scores.svg", "scores.png", "needle.svg", "needle.png"):
        assert 1_000 < (out / name).stat().st_size < 150_000


@pytest.fixture
def encoder(tiny_bert, tiny_codebook, questions, tmp_path, monkeypatch):
    """The options of a small run with an encoder, whose picture is not drawn."""
    monkeypatch.setattr(report, "draw_scores", lambda *_: None)
    fixed = ["--host", tiny_bert, "--codebook", tiny_codebook, "--data", questions]
    return [*fixed, "--token-budget", 64, "--no-needle", "--out", tmp_path / "out"]


def test_an_encoder_is_measured_without_scores_and_a_second_run_goes_on(
    tmp_path, encoder, monkeypatch
):
    result = s3(*encoder, "--method", "bm25", "--method", "full", "--questions", 1)
    assert result.exit_code == 0, result.output
    assert "cannot generate: answers and the methods full and hybrid-minilm are left out" in said(
        result
    )
    written = json.loads((tmp_path / "out" / "longcontext.json").read_text())
    assert list(written["values"]) == ["bm25"]
    columns = written["values"]["bm25"]["budgets"]["64"]
    assert set(columns["score"] + columns["nll"] + columns["failed"]) == {None}
    assert "answer recall" in result.output and "All tasks: score" not in result.output
    parts = tmp_path / "out" / "parts"
    kept = {path: path.stat().st_mtime_ns for path in parts.iterdir()}
    assert len(kept) == 2

    result = s3(*encoder, "--method", "bm25", "--method", "hybrid")
    assert result.exit_code == 0, result.output
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert len(list(parts.iterdir())) == 6

    def no_measuring(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(Asked, "measure", no_measuring)
    assert s3(*encoder, "--method", "hybrid", "--questions", 1).exit_code == 0
    other = s3(*encoder, "--token-budget", 128)
    assert other.exit_code == 1 and "budgets" in said(other) and "--fresh" in said(other)


def test_needles_alone_are_looked_for(tmp_path, tiny_bert, tiny_codebook, sentences):
    haystack = tmp_path / "hay.txt"
    haystack.write_text(" ".join(sentences))
    fixed = ["--host", tiny_bert, "--codebook", tiny_codebook, "--haystack", haystack]
    fixed += ["--needle-tokens", 900, "--needles", 2, "--needle-depth", 0.5, "--token-budget", 99]
    out = tmp_path / "out"
    result = s3(*fixed, "--method", "bm25", "--method", "truncation", "--out", out)
    assert result.exit_code == 0, result.output
    written = json.loads((out / "longcontext.json").read_text())
    assert written["needles"]["900"]["bm25"]["found"] == [1]
    assert written["needles"]["900"]["truncation"]["found"] == [0]
    assert sorted(path.name for path in out.glob("*.svg")) == ["needle.svg"]
    assert "(scores.svg)" not in (out / "longcontext.md").read_text()


def test_long_contexts_can_be_left_out(encoder, tmp_path):
    result = s3(*encoder, "--method", "bm25", "--max-context-tokens", 600)
    assert result.exit_code == 0, result.output
    assert "2 questions about contexts of more than 600 tokens are left out" in said(result)
    written = json.loads((tmp_path / "out" / "longcontext.json").read_text())
    assert written["questions"]["task"] == ["multifieldqa_en"]


def test_an_interrupted_run_says_what_it_keeps(encoder, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Asked, "measure", interrupted)
    result = s3(*encoder, "--method", "bm25")
    assert result.exit_code == 130 and "Finished parts are kept in" in said(result)


def test_forms_of_evidence_are_compared_without_reading_whole_contexts(answerer_folder, questions):
    forms = ["hybrid-sentence", "hybrid-neighbours", "hybrid-section"]
    plan = Plan(
        host=str(answerer_folder), data=[str(questions)], methods=forms[::-1], budgets=[64],
        questions=1, kl=False, needle=False,
    )  # fmt: skip
    figures = run_longcontext(plan)
    assert list(figures["values"]) == forms
    columns = [figures["values"][form]["budgets"]["64"] for form in forms]
    assert all(column["nll"][0] > 0 and column["kl"] == [None] * 2 for column in columns)
    titles = [grid.title for grid in longcontext_tables(figures)]
    assert any("score of hybrid-sentence less" in title for title in titles)
    assert not any("KL" in title for title in titles)


def test_words_need_no_codebook_and_features_do(tiny_llama, questions):
    plan = Plan(
        host=str(tiny_llama), data=[str(questions)], methods=["bm25"], budgets=[64], needle=False
    )
    figures = run_longcontext(plan)
    assert figures["values"]["bm25"]["budgets"]["64"]["recall"][:2] == [1, 1]
    assert figures["settings"]["codebook"] is None
    result = s3("--host", tiny_llama, "--data", questions, "--method", "s3", "--no-needle")
    assert result.exit_code == 1 and "There is no codebook for host" in said(result)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--method", "rag"], "There is no method 'rag'; choose from full, truncation"),
        (["--method", "hybrid-cache"], "is measured on questions alone; add --no-needle"),
        (["--needle-depth", "2"], "depth must be from 0"),
        (["--no-needle"], "There is nothing to measure; give questions with --data or --task"),
        (["--method", "full"], "choose another method with --method, or a causal host"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, why, tiny_bert, tiny_codebook):
    result = s3("--host", tiny_bert, "--codebook", tiny_codebook, *arguments)
    assert result.exit_code == 1 and why in said(result)


def figures_of(values, needles):
    """Figures of two questions under one budget."""
    none = [None, None]
    columns = {"tokens": [64, 64], "seconds": [0.1, 0.1], "nll": none, "kl": none, "failed": none}
    columns |= {"contained": none, "first_token_seconds": [0.4, 0.4], "peak_bytes": [2e9, None]}
    return {
        "settings": {"budgets": [64], "needle_budget": 64, "depths": [0, 1], "seed": 0},
        "questions": {"task": ["a", "b"], "group": ["x", "y"], "context_tokens": [900, 900]},
        "values": {
            method: {
                "prepare_seconds": [0.9, 1.8],
                "budgets": {"full" if method == "full" else "64": columns | found},
            }
            for method, found in values.items()
        },
        "needles": {"600": needles},
    }


def test_claims_are_computed_from_the_figures_they_are_about():
    figures = figures_of(
        {
            "full": {
                "recall": [1, 1],
                "score": [0.5, None],
                "contained": [1, None],
                "first_token_seconds": [9.5, None],
            },
            "bm25": {"recall": [0, 1], "score": [0, 0]},
            "s3": {"recall": [0, 0], "score": [0, 0]},
            "hybrid": {"recall": [1, 1], "score": [0.6, 0.9], "contained": [0, 1]},
        },
        {"hybrid": {"found": [1, 0.5], "answered": [None, None], "failed": None}},
    )
    checked = check(longcontext_claims(figures))
    assert [(c["claim"], c["measured"], c["holds"]) for c in checked] == [
        # Over the question that full was measured on.
        ("Score, hybrid @64 over full", 1.2, True),
        ("Answer contained, hybrid @64 over full", 0.0, False),
        # Reading the context takes .9 s.
        ("First token, full over hybrid @64, first question", 7.5, True),
        ("The same, further questions", 19.2, True),
        ("Answer recall, hybrid over bm25 @64", 2.0, True),
        ("Answer recall, hybrid over dense @64", None, None),
        ("Answer recall, s3 over bm25 @64", 0.0, False),
        ("Needles in the evidence, hybrid", 0.75, False),
    ]
    summary = LongContextSummary(figures)
    assert summary.prepare_seconds("bm25") == pytest.approx(1.5)
    assert summary.mean("full", 64, "score").n == 1
    tables = {grid.title: grid for grid in longcontext_tables(figures | {"claims": checked})}
    assert tables["Each task: score @64"].rows[1] == ["b", "1", "-", ".000", ".000", ".900"]
    waits = tables["Seconds to the first token: medians of 1 questions that all methods answered"]
    assert waits.header == ["method", "first @64", "further @64", "peak MB"]
    assert waits.rows[0] == ["full", "10.5", "9.60", "2,000"]
    assert waits.rows[-1] == ["hybrid", "1.40", "0.50", "2,000"]
    assert {claim["measured"] for claim in check(longcontext_claims(figures_of({}, {})))} == {None}


def test_differences_keep_their_digits():
    assert signed(Estimate(10.3, -0.25, 20.04, 5)) == "+10.300 (-.250…+20.040)"
    assert signed(None) == "-"
