"""Terms, the same for documents and questions."""

import threading
import time

import pytest

from s3_retriever.features import Sentence
from s3_retriever.text import TEXT_ANALYSIS, analyze, analyze_question, count_terms, term_hash
from s3_retriever.text.terms import MAX_WORD, TITLE_TERMS


def test_english():
    assert analyze("The Releases were signed by THE releasing managers.") == [
        "releas",
        "sign",
        "releas",
        "manag",
    ]


def test_stop_words_alone_are_nothing():
    assert analyze("to be, or not to be") == []
    assert analyze("") == analyze(" \n\x00…") == []


def test_forms_of_one_word_are_one_term():
    assert analyze("ﬁre") == analyze("FIRE") == analyze("fire")
    assert analyze("Straße") == analyze("STRASSE")
    assert analyze("caf\u00e9") == analyze("cafe\u0301")


def test_scripts_without_spaces_give_characters_and_pairs_of_neighbours():
    assert analyze("东京 2024年") == ["东", "京", "东京", "2024", "年"]
    assert analyze("x東y") == ["x", "東", "y"]
    assert analyze("งูดุ") == ["งู", "ดุ", "งูดุ"]
    assert analyze_question("社会")[0] == ("社会",)
    assert analyze_question("茶") == [("茶",)]


def test_no_text_is_refused():
    assert analyze("lone \ud800 surrogate") == ["lone", "surrog"]
    assert [len(term) for term in analyze("é" * 100_000)] == [MAX_WORD]


def test_hashes_never_change():
    assert term_hash("releas") == 0xD09AEA171B745881
    assert term_hash("东") != term_hash("京")
    assert 0 <= term_hash("x") < 1 << 64


def test_the_title_counts_in_every_sentence():
    text = "Releases are signed. Who signs?"
    counts = count_terms("A release", text, [Sentence(0, 20, 4), Sentence(21, 31, 3)])
    releas, sign = term_hash("releas"), term_hash("sign")
    assert counts == ({releas: 2, sign: 1}, {releas: 1, sign: 1})
    assert count_terms("", text, []) == ()


def test_the_versions_of_the_analysis_are_known():
    assert set(TEXT_ANALYSIS) == {"sentencex", "PyStemmer", "terms"}
    assert all(TEXT_ANALYSIS.values())


def test_threads_do_not_disturb_each_other():
    words = [f"{stem}{ending}" for stem in map(str, range(3000)) for ending in ("ing", "ed", "ly")]
    results = {}

    def work(name):
        results[name] = analyze(" ".join(f"run{word}" for word in words))

    threads = [threading.Thread(target=work, args=[name]) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(results[name] == results[0] for name in range(4))
    assert len(results[0]) == len(words)


def test_a_long_title_adds_a_bounded_number_of_terms():
    title = " ".join(f"w{number}" for number in range(5_000))
    (terms,) = count_terms(title, "Aa bb.", [Sentence(0, 6, 3)])
    assert len(terms) == TITLE_TERMS + 2


@pytest.mark.parametrize(
    "unit", ["x", "a\u0301", "\u0301\u0316", "漢", "aB", "_", "a-\n", "\u00ad\n"]
)
def test_hostile_texts_take_linear_time(unit):
    text = unit * (100_000 // len(unit))
    begun = time.process_time()
    analyze(text)
    assert time.process_time() - begun < 2
