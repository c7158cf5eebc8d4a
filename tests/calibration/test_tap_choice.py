"""`choose_taps`: the layer and the heads that find most, without labels."""

from __future__ import annotations

import json
import random
from itertools import islice
from pydoc_data.topics import topics

import pytest
import torch
from typer.testing import CliRunner

from s3_retriever import Codebook, Host, InputError, choose_taps
from s3_retriever.calibration.probes import probes_from
from s3_retriever.calibration.tap_choice import _best, _chance, _reciprocal_ranks
from s3_retriever.cli.app import app

CPU = {"device": "cpu", "dtype": "float32"}


@pytest.fixture(scope="module")
def texts(sentences) -> list[str]:
    """Paragraphs of five sentences that have nothing to do with each other."""
    words = sorted(set(" ".join(sentences).replace(".", "").split()))
    generator = random.Random(0)

    def sentence() -> str:
        return " ".join(generator.sample(words, 7)).capitalize() + "."

    return [" ".join(sentence() for _ in range(5)) for _ in range(24)]


@pytest.fixture(scope="module")
def retriever(tiny_llama) -> Host:
    """A host in which the queries and keys of heads 1.2 and 1.3 know which token they are of."""
    host = Host.load(str(tiny_llama), **CPU)
    size = host.family.heads(host.model.config).size
    torch.manual_seed(0)
    weights = 2 * torch.nn.init.orthogonal_(torch.empty(size, host.model.config.hidden_size))
    attention = host.blocks[1].self_attn
    with torch.no_grad():
        attention.k_proj.weight[size:] = weights
        attention.q_proj.weight[2 * size :] = weights.repeat(2, 1)
    return host


def test_the_heads_that_retrieve_are_found(retriever, texts):
    choice = choose_taps(retriever, texts, contexts=1, progress=False)
    assert set(choice.heads) == {"1.2", "1.3"}
    assert choice.together > 5 * choice.head_chance
    first, second = choice.curve
    assert second.head in choice.heads
    assert second.attention > 2 * first.attention
    assert choice == choose_taps(retriever, iter(texts), contexts=1, progress=False)
    assert json.loads(json.dumps(choice.report()))["heads"] == list(choice.heads)


@pytest.mark.parametrize(("name", "guess"), [("tiny_llama", 0), ("tiny_bert", 1)])
def test_a_host_that_knows_nothing_gets_a_guess_and_no_heads(name, guess, texts, request):
    host = Host.load(str(request.getfixturevalue(name)), **CPU)
    choice = choose_taps(host, texts, contexts=1, progress=False)
    assert not choice.measured
    assert choice.taps == (f"hidden.{guess}",)
    assert choice.heads == ()
    assert len(choice.curve) == 2


def test_minilm_retrieves_with_early_heads_but_gets_none():
    host = Host.load("minilm", **CPU)
    text = "\n\n".join(topics.values())
    choice = choose_taps(host, [text[:6_000]], progress=False)
    best = max(choice.curve, key=lambda score: score.attention)
    assert best.head in {"1.1", "2.9"}
    assert best.attention > 0.5
    assert choice.heads == ()
    assert [score.layer for score in choice.curve] == list(range(6))


def test_targets_are_what_is_asked_for(texts):
    (probe,) = probes_from(texts, 1)
    by_id = {document.id: document.text for document in probe.documents}
    assert len(by_id) == len(probe.documents)
    for question in probe.pointed:
        (gold,) = question.evidence
        target = by_id[gold.document_id][gold.start : gold.end]
        asked = set(question.text.rstrip("?").split())
        assert len(asked & set(target.rstrip(".").split())) >= 2
    for question in probe.topical:
        assert not any(question.text in text for text in by_id.values())
        assert len(question.evidence) == 2
        assert len({gold.document_id for gold in question.evidence}) == 1


def test_probes_have_no_repeated_sentences_and_come_in_contexts():
    text = "The baker mends seven boats before dawn. " * 900
    assert list(probes_from([text], 3)) == []
    different = [f"The baker number {n} mends {n + 7} boats." for n in range(3_000)]
    assert len(list(probes_from([" ".join(different)], 3))) == 3
    read = iter(different)
    list(probes_from(read, 1))
    assert len(list(islice(read, 5))) == 5


@pytest.mark.parametrize(
    "text",
    [
        "",
        "One sentence.",
        "\n\n".join(f"Line {n}" for n in range(100)),
        "???! " * 50,
    ],
)
def test_too_little_text(tiny_llama, text):
    host = Host.load(str(tiny_llama), **CPU)
    with pytest.raises(InputError, match="too little text to choose taps by"):
        choose_taps(host, [text], progress=False)


@pytest.mark.parametrize("text", [1, None, b"bytes"])
def test_a_text_must_be_a_string(text):
    with pytest.raises(InputError, match="The text "):
        next(probes_from([text], 1))


def test_scripts_without_spaces(tiny_llama):
    text = "".join(f"第{n}天面包师在日出之前修理了{n + 3}条蓝色的船。" for n in range(80))
    choice = choose_taps(Host.load(str(tiny_llama), **CPU), [text], contexts=1, progress=False)
    assert len(choice.curve) == 2


def test_ranks_count_ties_against_the_target():
    targets = torch.tensor([[True, False, False, False], [False, True, True, False]])
    scores = torch.tensor([[[1.0, 1.0, 0.0, 2.0]], [[0.0, torch.nan, 3.0, 2.0]]])
    torch.testing.assert_close(_reciprocal_ranks(scores, targets), torch.tensor([[1 / 3], [1.0]]))
    nothing = _reciprocal_ranks(torch.full((2, 1, 4), torch.nan), targets)
    torch.testing.assert_close(nothing, torch.tensor([[1 / 4], [1 / 3]]))


def test_chance_is_what_a_random_order_scores():
    targets = torch.tensor([[True, False, False, False], [False, True, True, False]])
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(2, 20_000, 4, generator=generator)
    measured = float(_reciprocal_ranks(scores, targets).mean())
    assert _chance([targets]) == pytest.approx(measured, abs=0.01)


def test_of_layers_about_as_good_the_shallowest_is_taken():
    assert _best([0.30, 0.41, 0.415, 0.40], [0, 1, 2, 3]) == 1
    assert _best([0.30, 0.405, 0.41], [4, 1, 1]) == 2


def test_fit_with_automatic_taps(tmp_path, tiny_llama, sentences):
    (tmp_path / "a.txt").write_text(
        "\n\n".join(" ".join(sentences[n : n + 5]) for n in range(0, 750, 5))
    )
    sizes = ["--features", "64", "--k", "4", "--tokens", "9000", "--reuse", "1"]
    arguments = ["fit", str(tiny_llama), "--text", str(tmp_path / "a.txt"), *sizes]
    done = CliRunner().invoke(app, [*arguments, "--taps", "auto", "--out", str(tmp_path / "book")])
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["layer", "hidden", "best", "head", "attention"]
    assert [line.split()[0] for line in lines[1:4]] == ["0", "1", "chance"]
    book = Codebook.load(tmp_path / "book")
    (tap,) = book.saes
    assert f"{tap}" in lines[5]
    assert book.report["choice"]["taps"] == [str(tap)]
    assert len(book.report["choice"]["curve"]) == 2
