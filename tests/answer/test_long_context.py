"""`LongContext`: one model that scans a long context and answers from its evidence."""

from __future__ import annotations

import logging
import shutil
import threading
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest
import torch
from helpers.answering import CPU, make_answerer
from helpers.families import CASES, folder_of, model_type, scramble, taps_of, window

from s3_retriever import (
    Codebook,
    CodebookError,
    Document,
    Host,
    HostError,
    IndexStoreError,
    InputError,
    LongContext,
    Recipe,
    S3Index,
    ScannedContext,
    TapRecipe,
)
from s3_retriever.answer import context as context_module
from s3_retriever.answer import long_context as long_context_module
from s3_retriever.answer.budget import default_token_budget
from s3_retriever.answer.context import pieces
from s3_retriever.answer.prompt import PLAIN_PROMPT, Prompt, fit_evidence, join_evidence
from s3_retriever.host import FAMILIES
from s3_retriever.host.model import Host as HostClass
from s3_retriever.host.taps import read
from s3_retriever.types import DEFAULT_CONTEXT, ContextForm

__all__ = ["folder_of"]  # a fixture

CHAT = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]\n{{ m['content'] }}{{ eos_token }}\n"
    "{% endfor %}{% if add_generation_prompt %}[{{ mood or 'assistant' }}]\n{% endif %}"
)
QUESTION = "What does the old captain paint?"
BUDGET = {"token_budget": 64, "max_new_tokens": 8}


@pytest.fixture(scope="module")
def answerer(tmp_path_factory, tiny_llama, sentences) -> Path:
    return make_answerer(tmp_path_factory.mktemp("answerers") / "llama", tiny_llama, sentences)


@pytest.fixture(scope="module")
def model(answerer) -> LongContext:
    return LongContext(str(answerer), window=64, **CPU)


@pytest.fixture(scope="module")
def words(tiny_llama) -> LongContext:
    """A host without LM head and codebook."""
    return LongContext(str(tiny_llama), fallback="bm25", **CPU)


@pytest.fixture(scope="module")
def text(sentences) -> str:
    """About 6,000 tokens in paragraphs of ten sentences, many times the budget."""
    return "\n\n".join(" ".join(sentences[i : i + 10]) for i in range(0, len(sentences), 10))


@pytest.fixture(scope="module")
def scanned(model, text):
    with model.scan(text, progress=False) as made:
        yield made


def check_offsets(spans, text):
    assert spans
    for before, span in pairwise(spans):
        assert before.end <= span.start
    for span in spans:
        assert text[span.start : span.end] == span.text
        assert "s3_piece" not in span.metadata


# One model


DECODERS = [case for case in CASES if not FAMILIES[model_type(case)].bidirectional]


@pytest.mark.parametrize("case", DECODERS)
def test_one_set_of_weights_reads_and_generates(case, folder_of, tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder_of(case))
    torch.manual_seed(2)
    whole = AutoModelForCausalLM.from_config(config)
    scramble(whole)
    whole.save_pretrained(tmp_path)
    for path in Path(folder_of(case)).glob("tokenizer*"):
        shutil.copy(path, tmp_path)
    host = Host.load(str(tmp_path), generates=True, **CPU)
    plain = Host.load(str(tmp_path), layers=2, **CPU)
    assert type(host.model) is type(plain.model)
    assert host.fingerprint(2) == plain.fingerprint(2)
    batch, taps = [window(20), window(7, seed=1)], taps_of(2)
    expected = read(plain, taps, batch)
    for tap, values in read(host, taps, batch).items():
        torch.testing.assert_close(values, expected[tap], rtol=0, atol=0)

    held = {weight.data_ptr() for weight in host.causal.parameters()}
    assert {weight.data_ptr() for weight in host.model.parameters()} <= held
    ids = torch.from_numpy(window(9).ids)[None]
    made = host.causal.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=2, do_sample=False
    )
    assert made.shape[1] > 9


def test_a_scan_keeps_no_cache_and_runs_no_layer_beyond_its_taps(model, text):
    seen, depths = [], []
    hooks = [
        model.host.model.register_forward_pre_hook(
            lambda _, args, options: seen.append(options), with_kwargs=True
        )
    ]
    hooks += [
        block.register_forward_pre_hook(
            lambda _, args, options, depth=depth: depths.append(
                (depth, options.get("past_key_values"))
            ),
            with_kwargs=True,
        )
        for depth, block in enumerate(model.host.blocks)
    ]
    try:
        model.compress(QUESTION, text, progress=False)
    finally:
        for hook in hooks:
            hook.remove()
    assert seen
    assert all(options["use_cache"] is False for options in seen)
    assert set(depths) == {(0, None), (1, None)}


def test_generation_reads_no_more_than_budget_question_and_template(model, scanned):
    lengths = []
    hook = model.host.model.register_forward_pre_hook(
        lambda _, args, options: lengths.append(options["input_ids"].shape[1]), with_kwargs=True
    )
    try:
        answer = scanned.answer(QUESTION, **BUDGET)
    finally:
        hook.remove()
    prompt = lengths.index(answer.prompt_tokens)
    assert max(lengths[prompt:]) == answer.prompt_tokens
    assert lengths[prompt + 1 :] == [1] * (answer.new_tokens - 1)
    overhead = len(Prompt(model.host).ids("", QUESTION))
    assert overhead < answer.prompt_tokens <= overhead + BUDGET["token_budget"]


def test_hosts_are_loaded_once_and_may_serve_an_index_too(answerer, model):
    assert LongContext(str(answerer), window=64, **CPU).host is model.host
    assert LongContext(model.host).host is model.host
    with S3Index.create(host=model.host) as index:
        index.add("The old captain paints seven boats.", progress=False)
        assert index.search("captain", k=1)


def test_a_model_that_is_loaded_already(answerer, scanned, text, tiny_llama):
    from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(answerer)
    own = AutoModelForCausalLM.from_pretrained(answerer).train()
    host = Host.of(own, tokenizer, window=64)
    assert host.causal is own
    assert not own.training
    assert host.name == str(answerer)
    answer = LongContext(host).answer(QUESTION, text, progress=False, **BUDGET)
    assert answer.text == scanned.answer(QUESTION, **BUDGET).text
    # The caller's tokenizer is as it was.
    assert tokenizer("</s>", add_special_tokens=False).input_ids == [1]
    base = Host.of(AutoModel.from_pretrained(tiny_llama), AutoTokenizer.from_pretrained(tiny_llama))
    with pytest.raises(HostError, match="no LM head"):
        _ = base.causal
    with pytest.raises(InputError, match="window must be"):
        Host.of(own, tokenizer, window=4096)


def test_a_model_without_a_head_is_not_given_one_at_random(tiny_llama, words):
    assert words.compress("warm bread", "A baker mends warm bread.", progress=False)
    with pytest.raises(HostError, match=r"no LM head.*generates=True"):
        words.answer("warm bread", "A baker mends warm bread.", **BUDGET)
    with pytest.raises(HostError, match="no LM head"):
        _ = Host.load(str(tiny_llama), **CPU).causal
    with pytest.raises(InputError, match="not both"):
        Host.load(str(tiny_llama), layers=1, generates=True, **CPU)


def test_an_encoder_compresses_but_does_not_answer(tiny_bert, tiny_codebook, text):
    encoder = LongContext(str(tiny_bert), codebook=tiny_codebook, **CPU)
    spans = encoder.compress(QUESTION, text, token_budget=40, progress=False)
    check_offsets(spans, text)
    with pytest.raises(HostError, match=r"is an encoder \(bert\) and cannot generate; compress"):
        encoder.answer(QUESTION, text, **BUDGET)


# Evidence and answers


def test_evidence_is_in_order_within_the_budget_and_has_offsets(model, scanned, text):
    tokenizer = model.host.tokenizer
    for budget in (16, 64, 200):
        spans = scanned.compress(QUESTION, token_budget=budget)
        check_offsets(spans, text)
        assert budget / 2 < tokenizer.count(join_evidence(spans)) <= budget
    assert any("captain paints" in span.text for span in spans)
    assert {source for span in spans for source in span.sources} >= {"s3", "bm25"}


def test_evidence_takes_along_what_is_around_it(model, scanned, text):
    forms = {}
    for context in get_args(ContextForm):
        again = ScannedContext.of_index(scanned._index, model.host, context=context)
        forms[context] = again.compress(QUESTION, token_budget=200)
        check_offsets(forms[context], text)
        # A question may ask for another form than the model's own.
        assert scanned.compress(QUESTION, token_budget=200, context=context) == forms[context]
        answer = scanned.answer(QUESTION, token_budget=200, max_new_tokens=1, context=context)
        check_offsets(answer.evidence, text)
        # Wide spans make use of the budget as sentences do.
        for budget in (40, 200):
            spans = scanned.compress(QUESTION, token_budget=budget, context=context)
            assert budget / 2 < model.host.tokenizer.count(join_evidence(spans)) <= budget
    lengths = {context: max(span.tokens for span in spans) for context, spans in forms.items()}
    assert lengths["section"] > lengths["sentence"]
    assert scanned.compress(QUESTION, token_budget=200) == forms[DEFAULT_CONTEXT]
    wrong = "context must be sentence, passage, neighbours or section"
    with pytest.raises(InputError, match=wrong):
        LongContext("nowhere", context="page")
    for ask in (scanned.compress, scanned.answer, scanned.stream):
        with pytest.raises(InputError, match=wrong):
            ask(QUESTION, context="page")


def test_the_answer_is_what_the_model_says_to_that_prompt(model, scanned):
    answer = scanned.answer(QUESTION, **BUDGET)
    ids = Prompt(model.host).ids(join_evidence(answer.evidence), QUESTION)
    assert len(ids) == answer.prompt_tokens
    with torch.inference_mode():
        made = model.host.causal.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            max_new_tokens=8,
            do_sample=False,
        )
    expected = model.host.tokenizer.source.decode(made[0, len(ids) :], skip_special_tokens=True)
    assert answer.text == expected.strip()
    assert 0 < answer.new_tokens <= 8
    assert answer.retrieval_seconds > 0 < answer.generation_seconds
    assert answer.evidence == scanned.compress(QUESTION, token_budget=64)


def test_two_questions_need_one_scan(model, text, monkeypatch):
    forwards = []
    forward = HostClass.forward
    monkeypatch.setattr(
        HostClass,
        "forward",
        lambda self, batch: (forwards.append(len(batch)), forward(self, batch))[1],
    )
    with model.scan(text, progress=False) as context:
        scan = len(forwards)
        assert context.tokens == model.host.tokenizer.count(text)
        first = context.answer("What does the baker mend?", **BUDGET)
        second = context.answer("Who forgets the blue ledger?", **BUDGET)
    assert first.evidence != second.evidence
    # The host reads each question, once.
    assert len(forwards) - scan == 2
    assert sum(forwards[:scan]) > 4
    assert context.path is None


@pytest.fixture
def bare(answerer, tmp_path) -> Path:
    """The same model without a codebook."""
    folder = Path(shutil.copytree(answerer, tmp_path / "bare"))
    shutil.rmtree(folder / "s3-codebook")
    return folder


def test_edges_and_words_without_a_codebook(bare, tmp_path, text, monkeypatch):
    with pytest.raises(CodebookError, match=r"s3r fit .*; or pass fallback='bm25'"):
        LongContext(str(bare), **CPU)
    with pytest.raises(InputError, match="'bm25' or None, not 'dense'"):
        LongContext(str(bare), fallback="dense", **CPU)
    with pytest.raises(CodebookError, match="no codebook 'nowhere/at/all'"):
        LongContext(str(bare), codebook="nowhere/at/all", fallback="bm25", **CPU)
    model = LongContext(str(bare), fallback="bm25", **CPU)
    monkeypatch.setattr(HostClass, "forward", None)  # the host does not scan
    spans = model.compress(QUESTION, text, token_budget=200, progress=False)
    check_offsets(spans, text)
    assert spans[0].start == 0
    assert spans[-1].end == len(text)
    assert spans[0].sources == ("edge",)
    assert "edge" in spans[-1].sources
    assert any("captain paints" in span.text for span in spans)
    monkeypatch.undo()
    with model.scan(text, path=tmp_path / "kept", progress=False) as kept:
        assert kept.compress(QUESTION, token_budget=200) == spans
    assert model.open(tmp_path / "kept").answer(QUESTION, **BUDGET).evidence
    recipe = Recipe(name="bare", taps={"key.1": TapRecipe()})
    plain = LongContext(str(bare), fallback="bm25", recipe=recipe, **CPU)
    spans = plain.compress(QUESTION, text, token_budget=200, progress=False)
    assert {span.sources for span in spans} == {("bm25",)}


def test_the_papers_recipe_brings_the_edges(answerer, text):
    model = LongContext(str(answerer), recipe="paper", window=64, **CPU)
    spans = model.compress(QUESTION, text, token_budget=400, progress=False)
    check_offsets(spans, text)
    assert spans[0].start == 0
    assert "edge" in spans[0].sources


def test_a_context_within_the_budget_is_the_evidence_whole(model):
    context = "  A baker mends warm bread.\n\nThe night nurse counts boats. \n"
    (span,) = model.compress("captain?", context, token_budget=64, progress=False)
    long = "\n\n".join(["The night nurse counts seven boats on Friday."] * 30)
    (all_of_it,) = model.compress("captain?", long, token_budget=500, progress=False)
    assert (all_of_it.text, all_of_it.tokens) == (long, model.host.tokenizer.count(long))
    assert (span.text, span.start, span.end) == (context, 0, len(context))
    assert (span.score, span.sources) == (0.0, ())
    answer = model.answer("Who mends bread?", context, progress=False, **BUDGET)
    assert answer.evidence == [span]


def test_documents_keep_ids_titles_and_metadata(model):
    context = [
        Document("A baker mends warm bread.", "a", {"title": "Bakery", "page": 1}),
        "The night nurse counts boats. My neighbour forgets a broken clock.",
        Document("", "empty"),
    ]
    first, second = model.compress("baker?", iter(context), token_budget=64, progress=False)
    assert (first.document_id, first.metadata) == ("a", {"title": "Bakery", "page": 1})
    assert second.document_id == Document(context[1]).id
    assert join_evidence([first, second]) == f"Bakery\n{first.text}\n\n{second.text}"


@pytest.mark.parametrize("name", ["s3_piece", "s3_piece_", "s3_piece__"])
def test_metadata_may_have_the_name_of_a_place(model, tmp_path, name):
    own = Document("A baker mends warm bread.", "a", {name: {"document": "mine"}, "x": 1})
    kept = model.scan(own, path=tmp_path / "kept", progress=False)
    for scanned in (kept, model.open(tmp_path / "kept")):
        [span] = scanned.compress("baker?", token_budget=64)
        assert (span.document_id, span.metadata) == ("a", own.metadata)
    with S3Index.create(host=model.host) as index:
        index.add(own)
        [span] = ScannedContext.of_index(index, model.host).compress("baker?", token_budget=64)
        assert (span.document_id, span.metadata) == ("a", own.metadata)


def test_joined_sentences_follow_each_other_or_break(scanned, text):
    spans = scanned.compress(QUESTION, token_budget=200)
    joined = join_evidence(spans)
    assert all(span.text in joined for span in spans)
    assert join_evidence([]) == ""
    assert fit_evidence(spans, len, 2) == sorted(
        sorted(spans, key=lambda span: -span.score)[:2], key=lambda span: span.start
    )


def test_several_threads_share_one_context(scanned):
    from concurrent.futures import ThreadPoolExecutor

    questions = ["captain boats", "warm bread", "broken clock", "blue ledger"] * 2
    expected = [scanned.answer(question, **BUDGET).text for question in questions]
    with ThreadPoolExecutor(4) as pool:
        texts = list(pool.map(lambda question: scanned.answer(question, **BUDGET).text, questions))
    assert texts == expected


# Prompts


@pytest.fixture
def chatty(answerer, tmp_path) -> LongContext:
    """The same model with a chat template."""
    from transformers import AutoTokenizer

    folder = Path(shutil.copytree(answerer, tmp_path / "chatty"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    return LongContext(str(folder), window=64, **CPU)


def test_a_plain_prompt(model):
    prompt = Prompt(model.host)
    expected = PLAIN_PROMPT.format(context="Some {text}.", question="Who?")
    assert prompt.ids("Some {text}.", "Who?") == [0, *model.host.tokenizer.ids(expected)]


def test_a_chat_template_wraps_the_message_and_only_it_brings_control_tokens(chatty, text):
    source = chatty.host.tokenizer.source
    ids = Prompt(chatty.host).ids("One </s> two.", "Who <s>?")
    assert source.decode(ids, clean_up_tokenization_spaces=False) == (
        "<s>[user]\nAnswer the question from the context.\n\nContext:\nOne </s> two.\n\n"
        "Question: Who <s>?</s>\n[assistant]\n"
    )
    assert [i for i in ids if i in (0, 1)] == [0, 1]
    moody = Prompt(chatty.host, "{question} {context}", {"mood": "terse"})
    assert source.decode(moody.ids("B", "A")) == "<s>[user]\nA B</s>\n[terse]\n"
    answer = chatty.answer(QUESTION, text, progress=False, **BUDGET)
    assert answer.prompt_tokens <= len(Prompt(chatty.host).ids("", QUESTION)) + 64


@pytest.mark.parametrize(
    ("template", "problem"),
    [("{{ broken", "cannot be rendered"), ("no message", "leaves the user's message out")],
)
def test_a_chat_template_that_cannot_be_used(chatty, template, problem, monkeypatch):
    monkeypatch.setattr(chatty.host.tokenizer.source, "chat_template", template)
    with pytest.raises(HostError, match=problem):
        Prompt(chatty.host)


def test_a_prompt_of_the_callers(model, scanned):
    own = "{{{question}}}\n{context}\n="
    answer = scanned.answer("Who?", prompt=own, **BUDGET)
    expected = f"{{Who?}}\n{join_evidence(answer.evidence)}\n="
    assert answer.prompt_tokens == 1 + len(model.host.tokenizer.ids(expected))


# What cannot be asked


@pytest.mark.parametrize(
    ("question", "options", "problem"),
    [
        (" ", {}, "question is empty"),
        (None, {}, "question must be a string, not NoneType"),
        ("a\ud800", {}, "question has a lone surrogate"),
        ("Who?", {"token_budget": 0}, "token_budget must be a whole number of at least 1, not 0"),
        ("Who?", {"token_budget": True}, "token_budget must be"),
        ("Who?", {"max_new_tokens": 0}, "max_new_tokens must be"),
        ("Who?", {"token_budget": 511}, r"token_budget of 511 is too large: .*reads 512 tokens"),
        ("Who?", {"token_budget": 1024}, r"token_budget of 1024 is too large"),
        ("Who is it? " * 200, {}, r"There is no room for evidence: .*shorten the question"),
        ("Who?", {"max_new_tokens": 600}, "There is no room for evidence"),
        (
            "Who?",
            {"prompt": "{context}"},
            r"fields \{context\} and \{question\}.*not \['context'\]",
        ),
        ("Who?", {"prompt": "{context} {question} {x}"}, "and no others"),
        ("Who?", {"prompt": "{context:>9} {question!r}"}, "'context:>9', 'question!r'"),
        ("Who?", {"prompt": "{context} {question:{x}}"}, "and no others"),
        ("Who?", {"refresh": 0}, "refresh must be a whole number of at least 1, not 0"),
        ("Who?", {"refresh": -3}, "refresh must be"),
        ("Who?", {"refresh": True}, "refresh must be"),
        ("Who?", {"refresh": "8"}, "refresh must be"),
        ("Who?", {"refresh": 2.5}, "refresh must be"),
        ("Who?", {"refresh": "Uncertain"}, "or 'uncertain', not 'Uncertain'"),
        ("Who?", {"min_relevance": 1.5}, "min_relevance must be a number from 0 to 1"),
        ("Who?", {"min_relevance": True}, "min_relevance must be"),
        ("Who?", {"prompt": "{context} {question"}, "cannot be filled in"),
        ("Who?", {"prompt": " "}, "prompt is empty"),
    ],
)
def test_requests_are_checked_before_any_work(model, question, options, problem):
    def context():
        raise AssertionError("the context was read")
        yield

    for ask in (model.answer, model.stream):
        with pytest.raises(InputError, match=problem):
            ask(question, context(), **options)
    if question != "Who?" and "Who" not in str(question):
        with pytest.raises(InputError, match=problem):
            model.compress(question, context())


@pytest.mark.parametrize("context", ["", " \n\t", [], iter([]), ["", Document(" ")]])
def test_an_empty_context(model, context, tmp_path):
    with pytest.raises(InputError, match="context is empty"):
        model.answer("Who?", context, **BUDGET)
    with pytest.raises(InputError, match="context is empty"):
        model.scan("", path=tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize(
    ("context", "message"),
    [
        (7, "parts of the context must be in a list, not int"),
        (None, "parts of the context must be in a list, not NoneType"),
        ({"a": "text"}, "parts of the context must be in a list, not dict"),
        (b"text", "parts of the context are bytes; decode them"),
        (["text", 7], "A context is a string"),
    ],
)
def test_anything_else_is_refused(model, context, message):
    with pytest.raises(InputError, match=message):
        model.compress("Who?", context, progress=False)


def test_files_that_cannot_be_read(model, tmp_path):
    (tmp_path / "binary").write_bytes(b"a\0b")
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    problems = {"none": "cannot be read", "binary": "is binary", "latin": "is not UTF-8"}
    for name, problem in problems.items():
        with pytest.raises(InputError, match=problem):
            model.compress("Who?", tmp_path / name, progress=False)


def test_a_question_without_evidence(words, text):
    recipe = Recipe(name="bare", taps={"key.1": TapRecipe()})
    model = LongContext(words.host, fallback="bm25", recipe=recipe)
    assert model.compress("zzz", text, token_budget=20, progress=False) == []


def test_a_budget_too_small_for_any_evidence(scanned):
    assert scanned.compress(QUESTION, token_budget=1) == []
    for ask in (scanned.answer, scanned.stream):
        with pytest.raises(InputError, match=r"fits into 1 tokens; raise token_budget\."):
            ask(QUESTION, token_budget=1, max_new_tokens=8)


@pytest.mark.parametrize("refresh", [0, -1, True, "8", 1.0])
def test_a_refresh_that_cannot_be_used(answerer, refresh):
    with pytest.raises(InputError, match="refresh must be a whole number of at least 1"):
        LongContext(str(answerer), refresh=refresh, **CPU)


# Budgets of their own


def test_by_default_a_small_model_reads_a_little(model, scanned, words, tiny_bert, tiny_codebook):
    """256 tokens, or fewer if question and answer leave fewer of the model's 512 positions."""
    count = model.host.tokenizer.count
    assert 200 < count(join_evidence(scanned.compress(QUESTION))) <= 256
    evidence = scanned.answer(QUESTION, max_new_tokens=8).evidence
    assert evidence == scanned.compress(QUESTION, token_budget=256)
    overhead = len(Prompt(model.host).ids("", QUESTION))
    answer = scanned.answer(QUESTION, max_new_tokens=400)
    assert 0 < answer.prompt_tokens <= 112
    assert count(join_evidence(answer.evidence)) <= 112 - overhead
    assert default_token_budget(model.host) == 256
    assert default_token_budget(Host.load(str(tiny_bert), **CPU)) == 1024


def test_by_default_a_large_model_reads_more(model, monkeypatch):
    monkeypatch.setattr(type(model.host.model), "num_parameters", lambda _: 2_000_000_000)
    assert default_token_budget(model.host) == 256  # half of its 512 positions
    monkeypatch.setattr(model.host.model.config, "max_position_embeddings", 8192)
    assert default_token_budget(model.host) == 1024


# Nothing relevant


BAKERY = [
    "The baker rises at four and heats the oven with beech wood.",
    "Rye bread needs a sourdough that was fed the night before.",
    "On Saturdays the bakery closes at noon, and what is left goes to the school.",
]
OFF_TOPIC = "Which team won the football championship in 1987?"


@pytest.fixture(scope="module")
def assisted(answerer) -> LongContext:
    """A retriever that knows relevance."""
    return LongContext(str(answerer), retriever="minilm", **CPU)


@pytest.mark.parametrize("copies", [1, 40])
@pytest.mark.parametrize("question", [OFF_TOPIC, "Who is it?", "???"])
def test_nothing_relevant_is_said_and_not_generated(assisted, monkeypatch, question, copies):
    context = [f"{text} ({number})" for number in range(copies) for text in BAKERY]
    monkeypatch.setattr(type(assisted.host.causal), "generate", None)
    with assisted.scan(context, progress=False) as scanned:
        assert scanned.compress(question) == []
        answer = scanned.answer(question, max_new_tokens=4)
        assert (answer.text, answer.found) == ("The answer is not in the context.", False)
        assert (answer.evidence, answer.citations) == ([], ())
        assert (answer.prompt_tokens, answer.new_tokens, answer.generation_seconds) == (0, 0, 0)
        assert answer.retrieval_seconds > 0
        stream = scanned.stream(question, max_new_tokens=4, refresh=2)
        assert (list(stream), list(stream)) == ([answer.text], [])
        assert (stream.evidence, stream.answer.found) == ([], False)


def test_without_a_floor_the_host_answers_anything(assisted):
    answer = assisted.answer(OFF_TOPIC, BAKERY, min_relevance=0, max_new_tokens=4, progress=False)
    assert answer.found
    assert [span.text for span in answer.evidence] == BAKERY


def test_evidence_stops_where_relevance_stops(assisted):
    question = "When does the baker rise?"
    with assisted.scan([*BAKERY, *["Item: the road was mended."] * 30], progress=False) as scanned:
        spans = scanned.answer(question, max_new_tokens=4).evidence
        assert BAKERY[0] in [span.text for span in spans]
        assert min(span.relevance for span in spans) >= 0.05
        assert len(scanned.compress(question, min_relevance=0)) > len(spans)
        assert scanned.answer(question, min_relevance=0.9, max_new_tokens=4).found


# Evidence that follows the answer


@pytest.fixture
def searches(monkeypatch):
    """The questions that are searched for."""
    asked = []
    search = S3Index.search

    def recorded(index, question, *args, **options):
        asked.append(question)
        return search(index, question, *args, **options)

    monkeypatch.setattr(S3Index, "search", recorded)
    return asked


LONGER = {"token_budget": 64, "max_new_tokens": 20, "min_new_tokens": 20}


def test_evidence_follows_the_answer(model, scanned, text, searches):
    answer = scanned.answer(QUESTION, refresh=8, **LONGER)
    assert answer.new_tokens == 20
    assert len(searches) == 3
    assert searches[0] == QUESTION
    for query, later in pairwise([*searches, f"{QUESTION} {answer.text}"]):
        assert later.startswith(query)
    check_offsets(answer.evidence, text)
    first = scanned.compress(QUESTION, token_budget=64)
    ids = {span.id for span in answer.evidence}
    assert ids == {
        span.id for query in searches[:3] for span in scanned.compress(query, token_budget=64)
    }
    assert ids > {span.id for span in first}
    assert answer.prompt_tokens <= len(Prompt(model.host).ids("", QUESTION)) + 64


def test_the_host_goes_on_from_the_new_evidence(model, scanned, monkeypatch):
    prompts = []
    generate = type(model.host.causal).generate
    monkeypatch.setattr(
        type(model.host.causal),
        "generate",
        lambda self, ids, **options: (
            prompts.append(ids[0].tolist()),
            generate(self, ids, **options),
        )[1],
    )
    scanned.answer(QUESTION, refresh=8, **LONGER)
    first, second, _ = prompts
    written = model.host.tokenizer.source.decode(
        second[-8:], skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    spans = scanned.compress(f"{QUESTION} {written.strip()}", token_budget=64)
    assert first == Prompt(model.host).ids(
        join_evidence(scanned.compress(QUESTION, token_budget=64)), QUESTION
    )
    assert second[:-8] == Prompt(model.host).ids(join_evidence(spans), QUESTION)


def test_a_refresh_of_the_same_evidence_changes_nothing(model, answerer, searches):
    context = "A baker mends warm bread. The night nurse counts boats."
    expected = model.answer("Who?", context, progress=False, max_new_tokens=24)
    for refresh in (1, 7, 24, 100):
        again = model.answer("Who?", context, refresh=refresh, progress=False, max_new_tokens=24)
        assert (again.text, again.new_tokens) == (expected.text, expected.new_tokens)
        assert (again.evidence, again.prompt_tokens) == (expected.evidence, expected.prompt_tokens)
    always = LongContext(model.host, refresh=7)
    assert always.answer("Who?", context, progress=False, max_new_tokens=24).text == expected.text
    assert searches == []


def test_a_stream_may_refresh_too(model, scanned, text, searches):
    expected = scanned.answer(QUESTION, refresh=8, **LONGER)
    stream = scanned.stream(QUESTION, refresh=8, **LONGER)
    parts = list(stream)
    assert len(parts) > 3
    assert "".join(parts) == stream.answer.text == expected.text
    assert stream.answer.evidence == expected.evidence
    assert stream.answer.new_tokens == 20
    own = model.stream(QUESTION, text, refresh=8, progress=False, **LONGER)
    assert own.answer.text == expected.text
    assert len(searches) == 9


@pytest.fixture
def doubtful(model, monkeypatch):
    """Makes the host doubt what it writes in some places, by a threshold among its own."""
    from s3_retriever.answer import decoding

    monkeypatch.setattr(decoding, "_SURE", 1.1)
    return decoding._LEAST_WRITTEN


def test_evidence_is_searched_for_before_a_token_that_is_uncertain(scanned, searches, doubtful):
    answer = scanned.answer(QUESTION, refresh="uncertain", **LONGER)
    assert answer.new_tokens == 20
    # A host that doubts everything still writes a little between two searches.
    assert len(searches) == 20 // doubtful
    # No token was written that was doubted: pauses after as many tokens give the same text.
    assert answer.text == scanned.answer(QUESTION, refresh=doubtful, **LONGER).text
    stream = scanned.stream(QUESTION, refresh="uncertain", **LONGER)
    assert "".join(stream) == stream.answer.text == answer.text
    assert stream.answer.evidence == answer.evidence


def test_a_host_that_is_sure_never_searches_again(scanned, searches, monkeypatch):
    monkeypatch.setattr("s3_retriever.answer.decoding._SURE", 0.0)
    answer = scanned.answer(QUESTION, refresh="uncertain", **LONGER)
    assert answer.text == scanned.answer(QUESTION, **LONGER).text
    assert searches == [QUESTION] * 2


def test_doubts_end_with_a_closed_stream_and_beams_have_none(scanned, searches, doubtful):
    many = {"token_budget": 64, "max_new_tokens": 300, "min_new_tokens": 300}
    with scanned.stream(QUESTION, refresh="uncertain", **many) as stream:
        next(stream)
    assert not stream._thread.is_alive()
    assert stream.answer.new_tokens < 300
    with pytest.raises(InputError, match="num_beams must be 1"):
        scanned.answer(QUESTION, refresh="uncertain", num_beams=2, **LONGER)


def test_a_stream_that_refreshes_can_be_closed(scanned, searches):
    with scanned.stream(
        QUESTION, refresh=4, token_budget=64, max_new_tokens=300, min_new_tokens=300
    ) as stream:
        next(stream)
    assert not stream._thread.is_alive()
    assert stream.answer.new_tokens < 300


def test_a_host_that_ends_its_answer_is_not_asked_again(model, scanned, searches, monkeypatch):
    new = _new_ids(model, scanned.answer(QUESTION, **BUDGET))
    monkeypatch.setattr(model.host.causal.generation_config, "eos_token_id", [1, new[3]])
    searches.clear()
    ended = scanned.answer(QUESTION, refresh=4, token_budget=64, max_new_tokens=8)
    assert ended.new_tokens == new.index(new[3]) + 1
    assert len(searches) == 1


def _new_ids(model, answer):
    ids = torch.tensor([Prompt(model.host).ids(join_evidence(answer.evidence), QUESTION)])
    with torch.inference_mode():
        made = model.host.causal.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False
        )
    return made[0, ids.shape[1] :].tolist()


def test_options_of_generate(model, scanned):
    for option in (
        {"no_such_option": 1},
        {"stopping_criteria": 5},
        {"assistant_model": "a name"},
        {"num_return_sequences": 2, "do_sample": True},
    ):
        with pytest.raises(InputError, match="cannot generate with these options"):
            scanned.answer(QUESTION, **option, **BUDGET)
    assert scanned.answer(QUESTION, stopping_criteria=None, **BUDGET).text
    torch.manual_seed(0)
    sampled = scanned.answer(QUESTION, do_sample=True, temperature=5.0, **BUDGET)
    assert sampled.text != scanned.answer(QUESTION, **BUDGET).text
    beams = scanned.answer(QUESTION, num_beams=2, return_dict_in_generate=True, **BUDGET)
    assert beams.new_tokens <= 8


def test_decoding_is_greedy_and_silent_whatever_the_model_prefers(
    scanned, model, caplog, capfd, monkeypatch
):
    from transformers.utils import logging as library

    library.get_logger("transformers").warning_once.cache_clear()
    monkeypatch.setattr(library.get_logger("transformers"), "propagate", True)
    config = model.host.causal.generation_config
    expected = scanned.answer(QUESTION, **BUDGET)
    config.do_sample, config.temperature, config.top_p, config.top_k = True, 5.0, 0.5, 3
    try:
        again = scanned.answer(QUESTION, **BUDGET)
    finally:
        config.do_sample, config.temperature, config.top_p, config.top_k = False, 1.0, 1.0, 50
    assert again.text == expected.text
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


# Files


def test_a_file_gives_what_its_text_gives(model, text, tmp_path, monkeypatch):
    monkeypatch.setattr(context_module, "_BLOCK_CHARACTERS", 40_000)
    long = "\r\n\r\n".join([text, "naïve 🤖 words. " * 900, text[:30_000]])
    path = tmp_path / "long.txt"
    path.write_bytes(b"\xef\xbb\xbf" + long.encode())
    parts = list(pieces(path))
    assert "".join(part.text for part in parts) == long
    assert len(parts) > 80
    assert max(len(part.text) for part in parts) <= 1_000
    places = [part.metadata["s3_piece"] for part in parts]
    assert [place["last"] for place in places] == [False] * (len(parts) - 1) + [True]
    for place, part in zip(places, parts, strict=True):
        assert long[place["start"] :].startswith(part.text)
    spans = model.compress("naïve robot words", path, token_budget=100, progress=False)
    check_offsets(spans, long)
    assert {span.document_id for span in spans} == {str(path)}


def test_a_file_is_read_in_blocks(tmp_path):
    import tracemalloc

    path = tmp_path / "long.txt"
    with path.open("w") as file:
        for _ in range(300):
            file.write("Seven boats in the harbour. " * 2_000 + "\n\n")
    stream = pieces(path)
    next(stream)
    tracemalloc.start()
    try:
        assert sum(1 for _ in stream) > 400
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < path.stat().st_size / 2


# Kept scans


@pytest.fixture
def commits(monkeypatch):
    """Commits of one piece each."""
    monkeypatch.setattr(long_context_module, "_COMMITTED_PIECES", 1)


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ("mine", "is incomplete"),
        ({"last": 1}, "is incomplete"),
        ({"last": True}, "'a' in the index is not a piece of a context"),
        ({"last": True, "document": "a", "start": "0"}, "is not a piece"),
        ({"last": True, "document": "a", "start": -1}, "is not a piece"),
    ],
)
def test_an_index_that_looks_like_a_scan(model, tmp_path, place, problem):
    with S3Index.create(tmp_path / "odd", host=model.host) as index:
        index.add(Document("Boats.", id="a", metadata={"s3_piece": place}))
    with pytest.raises(IndexStoreError, match=problem):
        model.open(tmp_path / "odd").compress("Boats?")


def test_an_interrupted_scan_goes_on_where_it_was(model, text, tmp_path, commits, monkeypatch):
    whole = model.scan(text, progress=False)
    path = tmp_path / "kept"
    forward, left = HostClass.forward, [4]

    def interrupted(self, batch):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        forward(self, batch)

    monkeypatch.setattr(HostClass, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.scan(text, path=path, progress=False)
    with pytest.raises(IndexStoreError, match="is incomplete"):
        model.open(path)
    with S3Index.open(path, host=model.host) as index:
        done = len(index)
    assert 0 < done < len(list(pieces(text)))

    batches = []
    monkeypatch.setattr(
        HostClass, "forward", lambda self, batch: (batches.append(batch), forward(self, batch))[1]
    )
    with model.scan(text, path=path, progress=False) as kept:
        assert len(batches) == len(list(pieces(text))) - done
        assert kept.tokens == whole.tokens
        expected = kept.compress(QUESTION, token_budget=64)
        check_offsets(expected, text)
        in_memory = whole.compress(QUESTION, token_budget=64)
        assert [span.id for span in expected] == [span.id for span in in_memory]
    batches.clear()
    with model.scan(text, path=path, progress=False) as again:
        assert batches == []
        assert again.path == path
    assert model.open(path).compress(QUESTION, token_budget=64) == expected


def test_a_kept_scan_is_of_one_context_and_one_model(model, answerer, words, text, tmp_path):
    path = tmp_path / "kept"
    model.scan(text, path=path, progress=False)
    by_lines = Document(text, unit="line")
    in_german = Document(text, metadata={"language": "de"})
    for other in (text[:-2], text + " More.", "Other words.", ["more", text], by_lines, in_german):
        with pytest.raises(IndexStoreError, match="is of another context"):
            model.scan(other, path=path, progress=False)
    problems = {
        "recipe": LongContext(str(answerer), recipe="paper", window=64, **CPU),
        "window": LongContext(str(answerer), window=32, **CPU),
        "host": words,
    }
    for problem, other in problems.items():
        with pytest.raises(IndexStoreError, match=f"made with another {problem}"):
            other.scan(text, path=path, progress=False)
    with pytest.raises(IndexStoreError, match="There is no index"):
        model.open(tmp_path / "nothing")
    (tmp_path / "file").mkdir()
    (tmp_path / "file/notes.txt").write_text("mine")
    with pytest.raises(IndexStoreError, match="in use by other files"):
        model.scan(text, path=tmp_path / "file", progress=False)


def test_a_kept_scan_goes_on_with_what_was_added(model, text, tmp_path, monkeypatch):
    path = tmp_path / "kept"
    model.scan([text], path=path, progress=False)
    before = model.open(path).tokens
    windows = []
    forward = HostClass.forward
    monkeypatch.setattr(
        HostClass, "forward", lambda self, batch: (windows.extend(batch), forward(self, batch))[1]
    )
    more = "The night nurse counts seven boats."
    assert model.scan([text, more], path=path, progress=False).tokens > before
    assert len(windows) == 1
    assert model.open(path).compress("night nurse boats", token_budget=20)


def test_a_kept_scan_is_an_index(model, text, tmp_path):
    scanned = model.scan(text, path=tmp_path / "kept", progress=False)
    with S3Index.open(scanned.path) as index:
        assert index.ids() == [piece.id for piece in pieces(text)]
        assert {"s3", "bm25"} <= set(index.search(QUESTION, k=1)[0].sources)


def test_the_index_of_a_scan_finds_a_codebook_that_was_named(bare, answerer, text, tmp_path):
    book = answerer / "s3-codebook"
    named = LongContext(str(bare), codebook=book, window=64, **CPU)
    named.scan(text, path=tmp_path / "named", progress=False)
    with S3Index.open(tmp_path / "named") as index:
        assert "s3" in index.search(QUESTION, k=1)[0].sources
    given = LongContext(named.host, codebook=Codebook.load(book))
    given.scan(text, path=tmp_path / "given", progress=False)
    with S3Index.open(tmp_path / "given") as index:
        assert index.search(QUESTION, k=1, mode="bm25")
        with pytest.raises(CodebookError, match="pass codebook="):
            index.search(QUESTION, k=1)
    with S3Index.open(tmp_path / "given", codebook=Codebook.load(book)) as index:
        assert "s3" in index.search(QUESTION, k=1)[0].sources


def test_the_index_of_a_scan_by_words_needs_no_codebook(bare, answerer, text, tmp_path):
    model = LongContext(str(bare), fallback="bm25", **CPU)
    scanned = model.scan(text, path=tmp_path / "kept", progress=False)
    with S3Index.open(scanned.path) as index:
        for mode, sources in (("bm25", {"bm25"}), ("hybrid", {"bm25", "edge"})):
            spans = index.search(QUESTION, k=9, mode=mode)
            assert any("captain paints" in span.text for span in spans)
            assert {source for span in spans for source in span.sources} == sources
        assert index.search(QUESTION, mode="s3") == []
        index.add("The old captain paints a kite.", progress=False)
        assert index.search("kite", k=1)[0].text == "The old captain paints a kite."
    with pytest.raises(IndexStoreError, match="made with another codebook"):
        S3Index.open(scanned.path, codebook=answerer / "s3-codebook")


# Streams


def test_a_stream_gives_the_answer_in_pieces(scanned):
    expected = scanned.answer(QUESTION, token_budget=64, max_new_tokens=24)
    stream = scanned.stream(QUESTION, token_budget=64, max_new_tokens=24)
    assert stream.evidence == expected.evidence
    parts = list(stream)
    assert len(parts) > 3
    assert "".join(parts) == stream.answer.text == expected.text
    assert stream.answer.new_tokens == expected.new_tokens
    assert stream.answer.prompt_tokens == expected.prompt_tokens
    assert list(stream) == []


def test_a_stream_from_a_context_and_its_answer_at_once(model, text):
    stream = model.stream(QUESTION, text, progress=False, **BUDGET)
    assert stream.answer == stream.answer
    assert stream.answer.text == "".join(model.stream(QUESTION, text, progress=False, **BUDGET))


def test_errors_of_the_thread_come_out(scanned, monkeypatch, model):
    stream = scanned.stream(QUESTION, num_beams=2, **BUDGET)
    for _ in range(2):
        with pytest.raises(InputError, match="cannot generate with these options"):
            next(stream)
    with pytest.raises(InputError):
        _ = stream.answer

    def broken(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr(type(model.host.causal), "forward", broken)
    with pytest.raises(ZeroDivisionError):
        list(scanned.stream(QUESTION, **BUDGET))


def test_a_stream_ends_when_it_is_closed_or_forgotten(scanned, model):
    with scanned.stream(
        QUESTION, token_budget=64, max_new_tokens=300, min_new_tokens=300
    ) as stream:
        next(stream)
    assert not stream._thread.is_alive()
    assert stream.answer.new_tokens < 300
    stream = scanned.stream(QUESTION, token_budget=64, max_new_tokens=300, min_new_tokens=300)
    thread = stream._thread
    del stream
    thread.join(timeout=10)
    assert not thread.is_alive()
    assert not model.host.lock.locked()


def test_others_may_use_the_host_while_a_stream_waits(scanned):
    expected = scanned.answer(QUESTION, **BUDGET).text
    stream = scanned.stream(QUESTION, **BUDGET)
    other = []
    thread = threading.Thread(target=lambda: other.append(scanned.answer("warm bread", **BUDGET)))
    thread.start()
    thread.join(timeout=30)
    assert other
    assert stream.answer.text == expected


# Too little memory


@pytest.fixture
def small_device(monkeypatch):
    """A device with memory for batches of a few windows."""
    ran = []

    def limit(windows):
        def limited(host, *args, **options):
            rows = len(options["input_ids"])
            if rows > windows:
                raise torch.OutOfMemoryError("out of memory")
            ran.append(rows)
            return inner(host, *args, **options)

        from transformers import LlamaModel

        inner = LlamaModel.forward
        monkeypatch.setattr(LlamaModel, "forward", limited)
        return ran

    return limit


def test_a_batch_that_does_not_fit_is_halved(answerer, text, small_device, caplog):
    host = Host.load(str(answerer), window=64, generates=True, batch_tokens=1_024, **CPU)
    model = LongContext(host)
    expected = model.compress(QUESTION, text, progress=False)
    ran = small_device(5)
    with caplog.at_level(logging.WARNING), model.scan(text, progress=False) as context:
        assert context.compress(QUESTION) == expected
    assert max(ran) == 4
    assert [record.name for record in caplog.records] == ["s3_retriever.host.batches"] * 2
    assert "16 windows of 64 tokens; going on with half of that" in caplog.text
    assert host.batch_tokens == 256
    caplog.clear()
    model.compress(QUESTION, text, progress=False)
    assert caplog.records == []  # the host remembers


def test_a_prompt_that_does_not_fit(bare, text, small_device):
    model = LongContext(str(bare), fallback="bm25", **CPU)
    small_device(0)
    with pytest.raises(HostError, match=r"too little memory to answer a prompt of \d+ tokens"):
        model.answer(QUESTION, text, progress=False, **BUDGET)


def test_a_window_that_does_not_fit(answerer, text, small_device, tmp_path):
    host = Host.load(str(answerer), window=64, generates=True, **CPU)
    small_device(0)
    with pytest.raises(HostError, match=r"no memory for a single window of 64 tokens.*smaller"):
        LongContext(host).compress(QUESTION, text, progress=False)


def test_other_errors_of_the_device_are_not_taken_for_that(answerer, text, monkeypatch):
    from transformers import LlamaModel

    def broken(*_, **__):
        raise RuntimeError("an illegal instruction")

    host = Host.load(str(answerer), window=64, generates=True, **CPU)
    monkeypatch.setattr(LlamaModel, "forward", broken)
    with pytest.raises(RuntimeError, match="illegal"):
        LongContext(host).compress(QUESTION, text, progress=False)


def test_another_host_finds_the_evidence(answerer, text):
    """The retriever scans and ranks; the host only answers, and counts the evidence's tokens."""
    both = LongContext(str(answerer), retriever="minilm", **CPU)
    fact = "The harbour board pays for the new ferry."
    with both.scan([text, fact], progress=False) as scanned:
        spans = scanned.compress("Who bears the cost of the new boat?", token_budget=64)
        answer = scanned.answer("Who bears the cost of the new boat?", **BUDGET)
    assert fact in [span.text for span in spans]
    assert fact in [span.text for span in answer.evidence]
    count = both.host.tokenizer.count
    assert count(join_evidence(spans)) <= 64
    alone = LongContext("minilm")
    with alone.scan([text, fact], progress=False) as scanned:
        assert scanned.compress("Who bears the cost of the new boat?", token_budget=64)[-1].id in {
            span.id for span in spans
        }


def test_a_kept_scan_belongs_to_its_retriever(answerer, text, tmp_path):
    both = LongContext(str(answerer), retriever="minilm", **CPU)
    both.scan(text[:3_000], path=tmp_path / "scan", progress=False).close()
    assert LongContext("minilm").open(tmp_path / "scan").tokens > 0
    with pytest.raises(IndexStoreError, match="another host"):
        LongContext(str(answerer), **CPU).open(tmp_path / "scan")
