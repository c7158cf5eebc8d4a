"""Languages: which one a document is in, its function words, and its stemmer."""

from __future__ import annotations

import re
import threading
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import Stemmer

from s3_retriever.text.characters import lower, normalize

ENGLISH = "en"
# A language without a stemmer here, or without a name: words stay as they are written.
UNKNOWN = ""

# Characters of a document's beginning that its language is guessed from.
SAMPLE_CHARACTERS = 2_000


@dataclass(frozen=True, slots=True)
class Language:
    """What is known of a language.

    Attributes:
        script: First word of the Unicode names of its letters, such as `LATIN`.
        stemmer: Name of its Snowball stemmer; empty for none.
        words: Its function words, case-folded. They tell the language and are not searched.
    """

    script: str
    stemmer: str
    words: frozenset[str]


_ENGLISH_WORDS = """
a about above after again against all am an and any are as at be because been before being below
between both but by can could did do does doing don down during each few for from further had has
have having he her here hers herself him himself his how i if in into is it its itself just ll me
more most my myself no nor not now of off on once only or other our ours ourselves out over own re
s same she should so some such t than that the their theirs them themselves then there these they
this those through to too under until up us ve very was we were what when where which while who
whom why will with would you your yours yourself yourselves
"""

# Code, Snowball stemmer (or -), name in English, function words. The first of a script is the
# default of words in that script.
_TABLE = f"""
LATIN
en english english: {" ".join(_ENGLISH_WORDS.split())}
de german german: der die das den dem des ein eine einen einem einer eines und oder aber nicht ist sind war waren wird werden wurde wurden hat haben hatte kann können sich sie er es wir ihr ich du mit von vom zu zum zur bei beim nach aus auf für über unter als auch wie nur noch im in an am um durch dass wenn weil so kein keine wo was wer wann
fr french french: le la les l un une des du de d et ou mais ne pas est sont était être a ont avait il elle ils elles on nous vous je tu ce cette ces qui que qu dans en au aux sur pour par avec sans son sa ses leur leurs plus se où quand comme y
es spanish spanish: el la los las un una unos unas de del y o pero no es son era ser fue ha han que en a al por para con sin su sus se lo le les como más este esta estos estas ese esa muy ya cuando donde qué cuál quién
pt portuguese portuguese: o a os as um uma de do da dos das e ou mas não é são era foi ser que em no na nos nas por para com sem seu sua seus suas se como mais este esta ao aos pelo pela quando onde qual quem
it italian italian: il lo la i gli le un uno una di del dello della dei degli delle e ed o ma non è sono era essere ha hanno che in nel nella nei nelle a al alla ai alle da dal dalla per con su sul sulla si come più questo questa dove quando chi cosa quale
ca catalan catalan: el la els les un una de del dels i o però no és són era que en a al als per amb sense seu seva es com més aquest aquesta on quan qui quin quina
ro romanian romanian: un o unei unui și sau dar nu este sunt era a au fi că care în din la pe cu de pentru prin fără se lui ei lor mai acest această unde când cine cum
nl dutch dutch: de het een en of maar niet is zijn was waren wordt worden werd heeft hebben had kan ik je hij zij ze we wij dat die dit deze van in op aan te voor met bij naar uit door over om als ook nog er wat wie waar wanneer
sv swedish swedish: en ett den det de och eller men inte är var vara har hade kan ska jag du han hon vi ni som att på i av till för med från om vid under över så sig sin sitt sina när där hur vad vem
da danish danish: en et den det de og eller men ikke er var være har havde kan skal jeg du han hun vi i som at på af til for med fra om ved under over så sig sin sit sine når hvor hvad hvem hvordan
no norwegian norwegian: en ei et den det de og eller men ikke er var være har hadde kan skal jeg du han hun vi i som at på av til for med fra om ved under over så seg sin sitt sine når hvor hva hvem hvordan
fi finnish finnish: ja tai mutta ei on ovat oli olivat olla se ne hän he minä sinä me te että joka jotka kun jos kuin myös niin mitä missä kuka tämä tuo nämä sen hänen
hu hungarian hungarian: a az egy és vagy de nem is van vannak volt hogy ez ami aki mint már még csak ha meg ki azt ezt hol mi mikor
tr turkish turkish: bir ve veya ama değil ile için bu şu o da de ki mi ne çok daha gibi kadar olan olarak her en sonra nerede kim
pl polish polish: i lub ale nie jest są był była było być się w we z ze na do od po za o u dla przez przy że to ten ta te tego tej który która które jak co gdzie kiedy kto czy jego jej ich oraz
cs czech czech: a nebo ale ne je jsou byl byla bylo být se si v ve z ze na do od po za o u pro při že to ten ta které který která jak co kde kdy kdo jeho její jejich také
lt lithuanian lithuanian: ir arba bet ne yra buvo būti kad kas su iš į ant po už dėl per tai šis ši jis ji jie kaip kur kada taip pat
et estonian estonian: ja või aga ei on oli olla et kes mis see need ta nad ma sa kui ka nii selle kus millal kuidas
eu basque basque: eta edo baina ez da dira zen ziren du dute bat hau hori ere dela non noiz nor zer
ga irish irish: an na agus nó ach ní tá bhí is ag ar as chun do go le ó sa sna seo sin sé sí iad cad cá
id indonesian indonesian: yang dan atau tetapi tidak adalah ini itu di ke dari pada untuk dengan oleh dalam akan telah sudah juga karena sebagai ada dapat mereka kami saya anda apa siapa mana kapan
eo esperanto esperanto: la kaj aŭ sed ne estas estis de en al por kun sur kiel kiu kio tiu li ŝi ili oni kie kiam
sk - slovak: a alebo ale nie je sú bol bola bolo byť sa si v vo z zo na do od po za o pre pri že to ten ktorý ktorá ktoré ako čo kde kedy kto jeho
hr - croatian: i ili ali ne nije je su bio bila bilo biti se u na od do iz za o s sa po pri da to taj ta koji koja koje kako što gdje kada tko njegov
sl - slovenian: in ali pa ne je so bil bila bilo biti se v na od do iz za o z po pri da to ta ki kateri kako kaj kje kdaj kdo
lv - latvian: un vai bet nav ir bija būt ka kas ar no uz pie pēc par tas šis viņš viņa kā kur kad arī
sq - albanian: dhe ose por nuk është janë ishte të në e i një për me nga që si kjo ky ai ajo ku kur kush
is - icelandic: og eða en ekki er eru var að á í um til frá með við sem það þetta hann hún hvar hvað hver
af - afrikaans: die en of maar nie is was het van in op aan te vir met by na uit deur oor om as ook wat wie waar hy sy ons hulle
sw - swahili: na ya wa kwa ni la za katika cha vya kuwa hii hiyo yake wake ambao lakini au pia kama nani wapi
tl - tagalog: ang ng mga sa na at o ay hindi si ni ito iyon siya sila kami ako para kung dahil may mula nang
vi - vietnamese: và hoặc nhưng không là có của các những một này đó được trong với cho từ đến khi ở đã sẽ cũng như ai gì đâu nào
CYRILLIC
ru russian russian: и или но не это как что в во на с со к по из от до для за о об у при был была было были быть есть он она оно они мы вы я ты его её их который которая которые так же только если где когда кто чтобы
uk - ukrainian: і й або але не це як що в у на з із зі до по від для за про при був була було були бути є він вона воно вони ми ви я його її їх який яка які так тільки якщо де коли хто щоб та
bg - bulgarian: и или но не това как че в във на с със към по от до за при е са беше бил била да ще се той тя то те ние вие аз който която което които къде кога кой какво
sr serbian serbian: и или али не није је су био била било бити се у на од до из за о са по при да то који која које како шта где када ко
GREEK
el greek greek: ο η το οι τα του της των τον την τουσ τισ και ή αλλά δεν δε είναι ήταν να θα που πωσ πού πώσ σε στο στη στην στον στα στισ με από για ωσ ότι αν ένα μια ένασ αυτό αυτή τι ποιοσ ποια πότε
ARABIC
ar arabic arabic: في من إلى عن مع هذا هذه ذلك التي الذي و أو لا لم لن ما هو هي هم كان كانت أن إن قد كل بعد قبل عند بين أين متى كيف
fa persian persian: و یا اما در از به با که این آن را است بود هست نیست برای تا هم بر چه کجا کی او ما شما آنها می شد شده
ur - urdu: اور یا میں سے پر کے کی کا کو ہے ہیں تھا تھی نہیں یہ وہ نے بھی کہ جو کہاں کب کون
HEBREW
he - hebrew: של את על אל עם זה זו הוא היא הם לא או אבל כי אם גם יש אין מה מי איפה מתי כל
DEVANAGARI
hi hindi hindi: का के की को में से पर और या नहीं है हैं था थी थे यह वह ये वे ने भी तो कि जो क्या कहाँ कहां कब कौन लिए एक
ne nepali nepali: र वा को का की मा ले लाई बाट छ छन् थियो यो त्यो हो होइन पनि के कहाँ कहिले
mr - marathi: आणि किंवा आहे आहेत होते होता होती नाही हा ही हे तो ती ते च मध्ये पण काय कुठे कोण
TAMIL
ta tamil tamil: ஒரு மற்றும் அல்லது இது அது என்று இல்லை உள்ளது எங்கே என்ன யார்
ARMENIAN
hy armenian armenian: և եւ կամ բայց չէ է են էր էին որ այս այդ նա մեջ վրա համար որտեղ ինչ ով
"""  # noqa: E501
# Other ways to write a code in metadata.
_ALIASES = {"nb": "no", "nn": "no", "bs": "hr", "ms": "id", "fil": "tl", "iw": "he", "in": "id"}
# Languages that are known by name only.
_OTHERS = frozenset(
    "am as az be bn bo br cy dv dz fo fy ga gd gl gu ha haw he hmn ht ig ja jv ka kk km kn ko ku ky "
    "la lb lo mg mi mk ml mn mt my or pa ps rw sa sd si sm sn so st su ta te tg th ti tk tt ug uz "
    "xh yi yo zh zu".split()
)


def _parsed() -> tuple[dict[str, Language], dict[str, str]]:
    languages, names = {}, {}
    script = ""
    for line in _TABLE.split("\n")[1:-1]:
        head, _, words = line.partition(":")
        if not words:
            script = head
            continue
        code, stemmer, name = head.split()
        names[name] = code
        languages[code] = Language(
            script, "" if stemmer == "-" else stemmer, frozenset(map(lower, words.split()))
        )
    return languages, names


LANGUAGES, _NAMES = _parsed()
# Languages with a stemmer, by script; the first is the default of words in that script.
STEMMED: dict[str, tuple[str, ...]] = {
    script: tuple(
        code for code, each in LANGUAGES.items() if each.script == script and each.stemmer
    )
    for script in dict.fromkeys(each.script for each in LANGUAGES.values() if each.stemmer)
}

# Arabic letters as Persian's stemmer wants them.
_PERSIAN = str.maketrans("\u064a\u0643", "\u06cc\u06a9")
_WORDS = re.compile(r"[^\W\d_]+")
# Stemmers keep state while they work, so each thread has its own.
_local = threading.local()


def language_of(text: str, metadata: Mapping[str, Any]) -> str:
    """The language of a document: what its metadata say, else a guess from its function words.

    Args:
        text: The document's text.
        metadata: Its metadata. `language` may be a code such as `de` or `pt-BR`, or an English
            name such as `German`; anything else is ignored.

    Returns:
        A key of `LANGUAGES`; empty for a language that is named but not listed there. A text that
        is too short to tell counts as English, which concerns its words in Latin script only.
    """
    named = metadata.get("language")
    code = _named(named) if isinstance(named, str) else None
    return _guessed(text[:SAMPLE_CHARACTERS]) if code is None else code


def _named(name: str) -> str | None:
    """The language of a code or name; None if it is not a language."""
    name = name.strip().lower()
    code = _NAMES.get(name) or re.split("[-_]", name, maxsplit=1)[0]
    code = _ALIASES.get(code, code)
    if code in LANGUAGES:
        return code
    return UNKNOWN if code in _OTHERS else None


@lru_cache(maxsize=256)
def _guessed(sample: str) -> str:
    words = Counter(map(lower, _WORDS.findall(normalize(sample))))
    english = LANGUAGES[ENGLISH].words
    best, most = ENGLISH, 0
    for code, language in LANGUAGES.items():
        hits = sum(words[word] for word in words.keys() & (language.words - english))
        against = sum(words[word] for word in words.keys() & (english - language.words))
        # Names and quotations must not make an English text foreign.
        if hits > most and hits >= max(2, 0.12 * words.total(), 4 * against):
            best, most = code, hits
    return best


def language_of_word(script: str, language: str) -> str:
    """The language in which to stem a word: the document's if the word has its script.

    Args:
        script: The word's script; empty for a number.
        language: The document's language.
    """
    if not script or language == UNKNOWN:
        return UNKNOWN
    if LANGUAGES[language].script == script:
        return language
    return STEMMED.get(script, (UNKNOWN,))[0]


def stop_words(language: str) -> frozenset[str]:
    """The function words of a language, case-folded; none if the language is not listed."""
    return LANGUAGES[language].words if language else frozenset()


def is_stemmed(language: str) -> bool:
    """Whether there is a stemmer for a language."""
    return bool(language and LANGUAGES[language].stemmer)


def script_of(word: str) -> str:
    """First word of the Unicode name of a word's first letter; empty without letters."""
    letter = next((char for char in word if char.isalpha()), "")
    return unicodedata.name(letter, "").partition(" ")[0] if letter else ""


def stem(word: str, language: str) -> str:
    """Stem a case-folded word; in a language without a stemmer it stays as it is."""
    if not is_stemmed(language):
        return word
    name = LANGUAGES[language].stemmer
    if language == "fa":
        word = word.translate(_PERSIAN)
    stemmers = getattr(_local, "stemmers", None)
    if stemmers is None:
        stemmers = _local.stemmers = {}
    if name not in stemmers:
        stemmers[name] = Stemmer.Stemmer(name, 0)
    stemmed: str = stemmers[name].stemWord(word)
    return stemmed
