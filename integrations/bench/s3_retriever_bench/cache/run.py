"""Key-value caches: perplexity, bytes and seconds a token of `AtomCache` and of others, in one run.

The model reads the first part of a window of text at once and exactly; then the cache takes over,
and the rest is read in steps of 32 tokens, which is nearly as one token after another would be.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from s3_retriever import Host, InputError, KVCodebook
from s3_retriever.calibration.question_sets import Choice
from s3_retriever.kv import LayerAtoms
from s3_retriever.kv.codebook import SHIPPED
from s3_retriever_bench.cache.answers import (
    Quiz,
    ask,
    haystack_tokens,
    needle_quiz,
    quiz_values,
    sample_quiz,
)
from s3_retriever_bench.cache.layers import BLOCK, RECENT, SINKS, held_bytes
from s3_retriever_bench.cache.methods import DEFAULT_METHODS, Method, Prefix, Reader, method_named
from s3_retriever_bench.cache.report import cache_claims
from s3_retriever_bench.longcontext.longbench import choose, read_samples
from s3_retriever_bench.shared.corpus import documents, source_files, source_name, text_of
from s3_retriever_bench.shared.costs import in_turn
from s3_retriever_bench.shared.report import check
from s3_retriever_bench.shared.storage import Part, Store, host_settings, text_digest

_TOKENS = (1_024,)
_DECODE_TOKENS = (1_024, 4_096)
# Most tokens of a window that count for its perplexity; the first quarter at least is read before.
_SCORED = 768
# Tokens whose cache is repeated to the lengths at which decoding is timed.
_TIMED_PREFIX = 512
# Two lengths, between which bytes a token are counted.
_COUNTED = (320, 512)
# Atoms of a vector, and tokens of the sample, of the figure of what they leave unexplained.
_BUDGETS = (1, 2, 4, 8, 16, 32, 64)
_SAMPLED = 128
_VERSIONS = ("s3-retriever", "torch", "transformers", "hqq", "optimum-quanto", "kvpress")


@dataclass(frozen=True, slots=True)
class Plan:
    """The options of `s3r bench cache`.

    `tokens` are the lengths of windows for perplexity. `decode_tokens` are those of caches to
    decode with, by `decode_methods`, which are all by default. `needles` are haystacks of each
    length with five needles in each. `answers` are files as `longcontext` reads them, of which at
    most `questions` of each task are asked, whose prompts have no more than the largest of
    `tokens`. Empty sequences mean the defaults.

    Raises:
        InputError: A method is only to decode with.
    """

    host: str = "smollm2"
    codebook: str | None = None
    texts: Sequence[Path] = ()
    tokens: Sequence[int] = ()
    decode_tokens: Sequence[int] = ()
    windows: int = 2
    needles: int = 0
    answers: Sequence[str] = ()
    questions: int | None = None
    methods: Sequence[str] = ()
    decode_methods: Sequence[str] = ()
    folder: Path | None = None
    fresh: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Sort, and set defaults."""
        methods = dict.fromkeys(["exact", *(self.methods or DEFAULT_METHODS)])
        object.__setattr__(self, "methods", tuple(methods))
        decoding = dict.fromkeys(["exact", *(self.decode_methods or methods)])
        if unknown := decoding.keys() - methods.keys():
            raise InputError(
                f"Decoding is timed for methods that are measured; add --method {min(unknown)}."
            )
        object.__setattr__(self, "decode_methods", tuple(decoding))
        for name, default in (("tokens", _TOKENS), ("decode_tokens", _DECODE_TOKENS)):
            lengths = tuple(sorted(set(getattr(self, name) or default)))
            object.__setattr__(self, name, lengths)


def run_cache(plan: Plan) -> dict[str, Any]:
    """Measure all caches at all lengths.

    Args:
        plan: What to measure. If it has a folder, a run with the same settings resumes there, also
            with more methods, lengths or windows.

    Returns:
        JSON values: `settings`, `machine`, `versions`; `bytes_per_token`: of a head, beyond the
        window, by method; `perplexity` by length: `scored` tokens of a window, and the
        negative log-likelihood of each window in nats a token by method; `decoding` by length and
        method (see `_Run.decode`); `needles` by length, and `answers` (None if there are none): by
        method, the `values` of `cache_answers.ask`, with the `groups` of questions about a context;
        `unexplained`: of keys and of values, by atoms a vector, the share of their variance at each
        layer; `claims`.

    Raises:
        InputError: A text, a method or a length is not usable, or the folder has results of other
            settings.
        S3Error: The host or the codebook is not usable.
    """
    host = Host.load(plan.host, generates=True)
    codebook = _codebook(plan, host)
    reader = Reader(host)
    methods = [method_named(name, reader, codebook) for name in plan.methods]
    _check_lengths(plan, host, max(method.block for method in methods))
    settings = {
        "host": plan.host,
        **host_settings(host),
        "codebook": None if codebook is None else codebook.identity,
        "texts": source_name(plan.texts),
        "recent": RECENT,
        "sinks": SINKS,
        "seed": plan.seed,
    }
    store = Store(plan.folder, settings, plan.fresh)
    run = _Run(plan, reader, methods, store)
    with store.resumable():
        figures = store.figures(
            *_VERSIONS,
            bytes_per_token={method.name: run.bytes_per_token(method) for method in methods},
            perplexity=run.perplexity(),
            decoding=run.decoding(),
            needles=run.needles(),
            answers=run.answers(),
            unexplained=None if codebook is None else run.unexplained(codebook),
        )
    return figures | {"claims": check(cache_claims(figures))}


def _codebook(plan: Plan, host: Host) -> KVCodebook | None:
    """The codebook given, or the one shipped for the host if there is one."""
    name = plan.codebook or (plan.host if plan.host in SHIPPED else None)
    if name is None:
        return None
    codebook = KVCodebook.load(name)
    codebook.check_host(host)
    return codebook


def _check_lengths(plan: Plan, host: Host, decoded: int) -> None:
    least = 2 * (RECENT + BLOCK)
    for length in (*plan.tokens, *plan.decode_tokens):
        if length < least:
            raise InputError(
                f"A cache of {length} tokens has little beyond the {RECENT + SINKS} that stay "
                f"exact; measure at least {least}."
            )
    longest = max(*plan.tokens, *(tokens + decoded for tokens in plan.decode_tokens))
    if host.positions is not None and longest > host.positions:
        raise InputError(
            f"Host {plan.host!r} has {host.positions:,} positions; measure at most that many "
            f"tokens, and {decoded} fewer for decoding."
        )


class _Run:
    """The parts of a run, each measured unless it was before."""

    def __init__(self, plan: Plan, reader: Reader, methods: Sequence[Method], store: Store) -> None:
        self._plan = plan
        self._reader = reader
        self._methods = methods
        self._store = store
        self._texts = source_files(plan.texts)

    def bytes_per_token(self, method: Method) -> float:
        """Bytes of a key and a value of a head beyond the window, counted on a cache."""
        few, many = (method.make() for _ in range(2))
        for cache, tokens in zip((few, many), _COUNTED, strict=True):
            method.fill(cache, self._timed_prefix, tokens)
        count = (_COUNTED[1] - _COUNTED[0]) * self._reader.layers * self._reader.heads
        return round((held_bytes(many) - held_bytes(few)) / count, 2)

    def perplexity(self) -> dict[str, Any]:
        """By length, the negative log-likelihood of every window with every method."""
        figures = {}
        for length in self._plan.tokens:
            total = self._plan.windows * len(self._methods)
            what = f"Perplexity at {length:,} tokens"
            values = self._by_method(self._perplexities(length), total, what, "window")
            nll = {method: [each["nll"] for each in parts] for method, parts in values.items()}
            figures[str(length)] = {"scored": _scored(length), "nll": nll}
        return figures

    def _perplexities(self, length: int) -> Iterator[Part]:
        for number, ids in enumerate(self._windows(length, self._plan.windows)):
            window, digest = _Window(self._reader, ids), text_digest(repr(ids))
            for method in self._methods:
                measure = partial(window.nll, method)
                yield Part(f"perplexity-{length}-{number}", method.name, digest, measure)

    def decoding(self) -> dict[str, Any]:
        """By length and method, what `decode` measures."""
        names, figures = self._plan.decode_methods, {}
        for length in self._plan.decode_tokens:
            parts = [
                Part(f"decoding-{length}", method.name, "", partial(self.decode, method, length))
                for method in self._methods
                if method.name in names
            ]
            what = f"Decoding at {length:,} tokens"
            values = self._by_method(parts, len(parts), what, "method")
            figures[str(length)] = {method: part for method, (part,) in values.items()}
        return figures

    def _by_method(
        self, parts: Iterable[Part], total: int, what: str, unit: str
    ) -> dict[str, list[dict[str, Any]]]:
        """The values of parts, measured unless they were before, by method."""
        values: dict[str, list[dict[str, Any]]] = {}
        for part, value in self._store.measured_all(parts, total, what, unit):
            values.setdefault(part.method, []).append(value)
        return values

    def decode(self, method: Method, length: int) -> dict[str, Any]:
        """Decode tokens with a full cache, in turn with an exact one.

        As many tokens as the method compresses at once, whose compression therefore counts once.

        Args:
            method: The method.
            length: Tokens of the cache at the beginning; they are repetitions of a shorter text, on
                whose content the time does not depend.

        Returns:
            JSON values. `bytes`: of the whole cache. `seconds`: mean of a token. `ratio`: to exact.
            `cpu_ratio`: the same of processor seconds, with which other work interferes less; None
            on an accelerator.
        """
        assert self._warmed_up
        exact = Method("exact", self._reader)
        whole, cache = exact.make(), method.make()
        exact.fill(whole, self._timed_prefix, length)
        method.fill(cache, self._timed_prefix, length)
        held = held_bytes(cache)
        ways = {
            "exact": lambda _: self._step(exact, whole),
            "method": lambda _: self._step(method, cache),
        }
        steps = in_turn(ways, range(method.block))
        (its, its_cpu), (mine, mine_cpu) = (map(sum, zip(*steps[way], strict=True)) for way in ways)
        on_cpu = self._reader.host.device.type == "cpu"
        return {
            "bytes": round(held),
            "seconds": round(mine / method.block, 5),
            "ratio": round(mine / its, 4),
            "cpu_ratio": round(mine_cpu / its_cpu, 4) if on_cpu else None,
        }

    def needles(self) -> dict[str, Any]:
        """By length, what is asked of each haystack."""
        plan, host = self._plan, self._reader.host
        figures = {}
        for length in plan.tokens if plan.needles else ():
            text = text_of(self._texts[-1:], haystack_tokens(length), host.tokenizer)
            quizzes = [needle_quiz(host, text, n, plan.seed) for n in range(plan.needles)]
            figures[str(length)] = self._ask(f"needles-{length}", quizzes)
        return figures

    def answers(self) -> dict[str, Any] | None:
        """What is asked of the samples that are short enough; None without samples."""
        plan, host = self._plan, self._reader.host
        if not plan.answers:
            return None
        samples = read_samples(plan.answers, (), Choice("test", None, 10, None, plan.seed))
        most = plan.tokens[-1]
        # Longer prompts have more tokens in any case.
        quizzes = {
            sample: sample_quiz(host, sample)
            for sample in samples
            if len(sample.prompt) < 16 * most
        }
        fitting = [sample for sample, quiz in quizzes.items() if quiz.longest <= most]
        if not fitting:
            raise InputError(
                f"No question of {', '.join(plan.answers)} has a prompt of at most {most:,} "
                "tokens; give larger --tokens, or other --answers."
            )
        chosen = choose(fitting, plan.questions, plan.seed)
        return self._ask("answers", [quizzes[sample] for sample in chosen])

    def _ask(self, name: str, quizzes: Sequence[Quiz]) -> dict[str, Any]:
        """The values of each question by method, and which questions share a context."""
        total = len(quizzes) * len(self._methods)
        parts = self._by_method(self._asked(name, quizzes), total, name.capitalize(), "context")
        groups = [str(n) for n, quiz in enumerate(quizzes) for _ in quiz.questions]
        values = {method: quiz_values(part) for method, part in parts.items()}
        return {"groups": groups, "values": values}

    def _asked(self, name: str, quizzes: Sequence[Quiz]) -> Iterator[Part]:
        for quiz in quizzes:
            window = _Window(self._reader, quiz.context, known=len(quiz.context))
            digest = text_digest(repr(quiz))
            for method in self._methods:
                measure = partial(self._answers, quiz, method, window)
                yield Part(f"{name}-{digest}", method.name, digest, measure)

    def _answers(self, quiz: Quiz, method: Method, window: _Window) -> dict[str, Any]:
        return ask(self._reader, quiz, method, window.prefix)

    def unexplained(self, codebook: KVCodebook) -> dict[str, Any]:
        """Of a window's keys and values, by atoms a vector, the share of variance at each layer."""
        return self._store.measured(
            "unexplained",
            "atoms",
            text_digest(repr(self._windows(_TIMED_PREFIX, 1))),
            lambda: {
                side: {
                    str(k): [
                        _unexplained(layer, keys, values, side, k)
                        for layer, keys, values in zip(
                            codebook.layers,
                            self._timed_prefix.keys,
                            self._timed_prefix.values,
                            strict=True,
                        )
                    ]
                    for k in _BUDGETS
                    if k <= codebook.features
                }
                for side in ("key", "value")
            },
        )

    def _step(self, method: Method, cache: Any) -> tuple[float, float]:
        """Decode a token; gives seconds by the clock and of the processor."""
        self._reader.model.set_attn_implementation(method.attention)
        with method.running():
            self._wait()
            began, busy = time.perf_counter(), time.process_time()
            self._reader.read([self._token], cache)
            self._wait()
            return time.perf_counter() - began, time.process_time() - busy

    def _wait(self) -> None:
        if self._reader.host.device.type == "cuda":
            torch.cuda.synchronize(self._reader.host.device)

    def _windows(self, length: int, count: int) -> list[list[int]]:
        return read_windows(self._texts, self._reader.host, length, count)

    @cached_property
    def _token(self) -> int:
        """Some token of the text."""
        return self._windows(RECENT, 1)[0][-1]

    @cached_property
    def _timed_prefix(self) -> Prefix:
        return self._reader.prefix(self._windows(_TIMED_PREFIX, 1)[0])

    @cached_property
    def _warmed_up(self) -> bool:
        """Decode a token with each method, because first runs load and compile."""
        for method in self._methods:
            cache = method.make()
            method.fill(cache, self._timed_prefix, _COUNTED[0])
            self._step(method, cache)
        return True


class _Window:
    """A window of text, whose beginning is read once for all methods."""

    def __init__(self, reader: Reader, ids: list[int], known: int | None = None) -> None:
        self._reader = reader
        self._ids = ids
        self._known = len(ids) - _scored(len(ids)) if known is None else known

    @cached_property
    def prefix(self) -> Prefix:
        """The beginning, as the model caches it."""
        self._reader.model.set_attn_implementation("sdpa")
        return self._reader.prefix(self._ids[: self._known])

    def nll(self, method: Method) -> dict[str, float]:
        """`nll`: negative log-likelihood of the tokens behind the prefix, in nats a token."""
        prefix, cache = self.prefix, method.make()
        method.fill(cache, prefix)
        self._reader.model.set_attn_implementation(method.attention)
        before, total = prefix.logits[0], 0.0
        with method.running():
            for start in range(self._known, len(self._ids), BLOCK):
                step = self._ids[start : start + BLOCK]
                logits = self._reader.read(step, cache)[0]
                expected = torch.cat([before, logits[:-1]]).float()
                wanted = torch.tensor(step, device=expected.device)
                total += float(cross_entropy(expected, wanted, reduction="sum"))
                before = logits[-1:]
        return {"nll": round(total / _scored(len(self._ids)), 6)}


def _scored(length: int) -> int:
    return min(_SCORED, 3 * length // 4)


def _unexplained(
    layer: LayerAtoms, keys: torch.Tensor, values: torch.Tensor, side: str, k: int
) -> float:
    """Share of the variance that k atoms leave unexplained, over a sample of tokens, no sinks."""
    vectors, atoms = values, layer.value
    if side == "key":
        positions = torch.arange(keys.shape[2], device=keys.device)[None]
        layer = layer.to(keys.device)
        vectors, atoms = layer.rotary.restore(keys.float(), positions), layer.key
    sample = vectors[:, :, SINKS :: max(vectors.shape[2] // _SAMPLED, 1)]
    return round(atoms.to(sample.device).unexplained(sample, k), 5)


def read_windows(files: Sequence[Path], host: Host, length: int, count: int) -> list[list[int]]:
    """Windows of token ids, taken from the files in turn, spread over each.

    Raises:
        InputError: The files have too little text.
        OSError: A file cannot be read.
    """
    begins = [
        (files[number * len(files) // count], 0.0)
        if len(files) > count
        else (files[number % len(files)], (number // len(files)) / -(-count // len(files)))
        for number in range(count)
    ]
    return [_window(files, path, at, host, length) for path, at in begins]


def _window(files: Sequence[Path], path: Path, at: float, host: Host, length: int) -> list[int]:
    """A window from a share of a file on; short files are followed by all."""
    own = list(documents([path]))
    ids = list(host.tokenizer.prefix)
    gap = host.tokenizer.ids("\n\n")
    for document in chain(islice(own, int(at * len(own)), None), documents(files)):
        ids += [*host.tokenizer.ids(document.text), *gap]
        if len(ids) >= length:
            return ids[:length]
    raise InputError(f"The text has fewer than {length:,} tokens; give more with --text.")
