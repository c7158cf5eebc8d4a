"""Words of any language: a question finds a document however either of them is written."""

from __future__ import annotations

import pytest

from s3_retriever.text import analyze, analyze_question, language_of


def shared(text, question, **metadata):
    """The question's terms that the document has, whether its language is known or not."""
    language = language_of(text, metadata)
    terms = set(analyze(text, language))
    found = [each for each in analyze_question(question) if terms.intersection(each)]
    known = analyze_question(question, frozenset({language}))
    matched = [terms.intersection(each) for each in known if terms.intersection(each)]
    assert matched == [terms.intersection(each) for each in found]
    return found


@pytest.mark.parametrize(
    ("text", "question"),
    [
        # One spelling.
        ("São Paulo is big", "Sao Paulo"),
        ("cafe\u0301", "CAFÉ"),
        ("Ｆｕｌｌ ﬁre", "full fire"),
        ("H\u0335e\u0335l\u0335l\u0335o\u0335", "hello"),
        ("inter\u00adna\u200btio\u2060nal\ufe0f", "international"),
        ("Immo\u00ad\nbilien", "Immobilien"),
        ("infor-\r\n  mation", "information"),
        ("a well-\nknown man", "well-known"),
        ("x² at 100℃", "x2"),
        # Identifiers and names with signs.
        ("getUserName() fails", "user name"),
        ("XMLHttpRequest", "http request"),
        ("user_name is set", "USER_NAME"),
        ("__init__ runs", "init"),
        ("C++17 code", "c++"),
        ("F# and C# run on .NET", "c#"),
        ("F# and C# run on .NET", ".net"),
        ("Notepad++", "notepad"),
        # Abbreviations that are function words otherwise.
        ("IT is on floor two.", "Where is IT?"),
        ("WHO sets the limits.", "What does WHO set?"),
        ("The US has fifty states.", "US states"),
        # Latin script.
        ("Die Häuser sind alt.", "haus"),
        ("Straße", "STRAẞE"),
        ("İstanbul'da köprü", "istanbul"),
        ("DİYARBAKIR", "diyarbakır"),
        ("Łódź", "lodz"),
        ("Ærø", "aero"),
        ("Les chevaux sont dans le jardin.", "cheval"),
        # Greek, Cyrillic, Armenian, Georgian.
        ("Ο Οδυσσεύς γύρισε.", "ΟΔΥΣΣΕΎΣ"),
        ("τα σπίτια", "ΣΠΙΤΙ"),
        ("Собаки спят.", "собака"),
        ("Ёлка, за\u0301мок", "елка"),
        ("Київ є столицею", "КИЇВ"),
        ("Հայաստան", "ՀԱՅԱՍՏԱՆ"),
        ("თბილისი", "ᲗᲑᲘᲚᲘᲡᲘ"),
        # Arabic and Hebrew.
        ("كِتَابٌ", "كتاب"),
        ("كـــتاب", "كتاب"),
        ("أحمد هنا", "احمد"),
        ("علي", "علی"),
        ("من کتاب\u200cها را می\u200cخوانم.", "کتابها"),
        ("عام ٢٠٢٤", "2024"),
        ("שָׁלוֹם עולם", "שלום"),
        # India.
        ("किताबें मेज पर हैं", "किताब"),
        ("वर्ष २०२४", "2024"),
        ("विद्\u200dयालय", "विद्यालय"),
        ("தமிழ் நாடு", "தமிழ்"),
        ("বাংলা ভাষা", "বাংলা"),
        # Scripts without spaces, and Korean.
        ("社会の問題", "社会"),
        ("绿茶好喝", "茶"),
        ("猫はかわいい", "猫が好き"),
        ("ｶｰﾄﾞ", "カード番号"),
        ("서울에서 만나", "서울"),
        ("กรุงเทพมหานครเป็นเมืองหลวง", "เมืองหลวง"),
        ("ภาษา\u200bไทย", "ภาษาไทย"),
        ("ນະຄອນຫຼວງແມ່ນວຽງຈັນ", "ວຽງຈັນ"),
        ("រាជធានីគឺភ្នំពេញ", "ភ្នំពេញ"),
        ("မြို့တော်မှာနေပြည်တော်ဖြစ်သည်", "နေပြည်တော်"),
    ],
)
def test_these_meet(text, question):
    assert shared(text, question)


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("会社の問題", "社会"),
        ("上海", "海上"),
        ("C is old", "C++"),
        ("C# code", "C"),
        ("net income of example.net", ".NET"),
        ("It is on floor two.", "IT"),
        ("They told us who.", "Does WHO help the US?"),
        ("McDonald", "Donald"),
        ("кот", "кит"),
        ("день", "тень"),
        ("كلب", "قلب"),
        ("בית", "בנק"),
        ("पता", "पिता"),
        ("δρόμος", "τρόμος"),
        ("사람", "사랑"),
        ("ไก่", "ไข่"),
        ("ອາຫານ", "ນ້ຳ"),
        ("ឆ្កែ", "ឆ្មា"),
        ("ခွေး", "ကြောင်"),
        ("٢٠٢٤", "2025"),
    ],
)
def test_these_do_not_meet(text, question):
    assert not shared(text, question)


def test_words_of_a_script_shared_by_languages_are_matched_in_the_documents_own():
    german, english = "Die Art der Häuser ist nicht bekannt.", "The art of houses is known."
    assert shared(german, "art", language="de") and shared(english, "art", language="en")
    # `die` is a function word of German alone.
    assert not shared(german, "die") and shared("They die young.", "die")


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Der Hund ist nicht im Haus, aber die Katze schläft auf dem Sofa.", "de"),
        ("El perro no está en la casa.", "es"),
        ("Hunden är inte i huset, men katten sover på soffan.", "sv"),
        ("Кіт спить на дивані, але пес не вдома.", "uk"),
        ("الكتاب الذي كان على الطاولة في الغرفة", "ar"),
        ("El Cielo en las manos is a 1950 Argentine film.", "en"),
        ("De Voortrekkers is a 1916 film.", "en"),
        ("error 42 in module foo.bar", "en"),
        ("", "en"),
    ],
)
def test_function_words_tell_the_language(text, language):
    assert language_of(text, {}) == language


@pytest.mark.parametrize(
    ("named", "language"),
    [("de", "de"), ("German", "de"), ("pt-BR", "pt"), ("nb_NO", "no"), ("zh", "")]
    + [(ignored, "en") for ignored in ("python", "No language found.", "", 3, None)],
)
def test_metadata_name_the_language(named, language):
    assert language_of("x", {"language": named}) == language


def test_a_heading_in_capitals_is_not_full_of_abbreviations():
    assert analyze("WHAT TO DO IF IT RAINS") == ["rain"]
    assert analyze("IT policy") == ["it", "polici"]


@pytest.mark.parametrize(
    "question", ["", "???", "\u0301\u0301", "\u200b", "___", "to be or not to be", "🤖"]
)
def test_a_question_may_have_no_words(question):
    assert all(analyze_question(question))
