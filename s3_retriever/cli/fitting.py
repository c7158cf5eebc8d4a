"""`s3r fit`: a codebook for a host, from plain text."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from s3_retriever.cli import options
from s3_retriever.cli.console import results, show_table, write_json
from s3_retriever.cli.options import check_codebook_target, location, prepare
from s3_retriever.errors import InputError
from s3_retriever.files import TextFiles, find_files

if TYPE_CHECKING:
    from s3_retriever.calibration.tap_choice import TapChoice
    from s3_retriever.codebook import Codebook
    from s3_retriever.host import Host
    from s3_retriever.kv import KVCodebook

_K = 32
_REUSE = 2.0
_LEARNING_RATE = 1e-3


def fit(
    host: options.HostArgument,
    text: Annotated[
        list[str],
        typer.Option(
            "--text",
            metavar="PATH",
            help="Plain text to fit on: a file, folder or glob; repeatable. A .jsonl file has a "
            "text in the field text of every line. All files contribute equally many characters.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the codebook.")],
    taps: Annotated[
        str | None,
        typer.Option(
            "--taps",
            metavar="TAPS",
            show_default="key and hidden, of an encoder's last or a decoder's middle layer",
            help="Taps to fit, such as key.5,hidden.5; or auto: the layer and the retrieval heads "
            "that find most in the text itself.",
        ),
    ] = None,
    head: Annotated[
        list[str] | None,
        typer.Option(
            "--head",
            metavar="HEAD",
            show_default="none, or those that --taps auto chooses",
            help="A query head that retrieves, such as 17.5: layer and number; repeatable.",
        ),
    ] = None,
    features: Annotated[
        int | None,
        typer.Option(
            "--features",
            metavar="N",
            min=1,
            show_default="16 times the hidden size",
            help="Dictionary size of each tap.",
        ),
    ] = None,
    k: Annotated[
        int, typer.Option("--k", metavar="N", min=1, help="Active features per token.")
    ] = _K,
    tokens: Annotated[
        int | None,
        typer.Option(
            "--tokens",
            metavar="N",
            min=1,
            show_default="all of the text once",
            help="Tokens to read; a shorter text is repeated.",
        ),
    ] = None,
    reuse: Annotated[
        float,
        typer.Option("--reuse", metavar="X", help="Average number of times a token is trained on."),
    ] = _REUSE,
    learning_rate: Annotated[
        float,
        typer.Option("--learning-rate", metavar="X", help="Peak of Adam's learning rate."),
    ] = _LEARNING_RATE,
    query_metric: Annotated[
        bool,
        typer.Option(
            "--query-metric",
            help="Count errors in keys by how much they change attention; for key taps that "
            "queries look at (scoring feature_attention).",
        ),
    ] = False,
    add_to: Annotated[
        str | None,
        typer.Option(
            "--add-to",
            metavar="CODEBOOK",
            help="Add the taps to a codebook of the host, a folder or a name such as smollm2, "
            "whose recipe stays; DIR may be the same folder.",
            show_default="a codebook of its own",
        ),
    ] = None,
    kv: Annotated[
        bool,
        typer.Option(
            "--kv",
            help="Fit the dictionaries of the key-value cache, of keys and values of all layers, "
            "instead of taps to search by.",
        ),
    ] = False,
    seed: Annotated[
        int,
        typer.Option("--seed", metavar="N", help="Seed of initial weights and shuffling."),
    ] = 0,
    device: options.Device = "auto",
    dtype: options.DtypeName = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Fit a codebook for a host, from plain text.

    Progress is kept once a minute, and when the command is interrupted, in the folder
    DIR.checkpoint, which is removed at the end: after an interruption, the same command continues
    from there. Reports for every tap the share of the variance that stays unexplained, the share
    of features that never fire, how many features are active per token, and on which share of the
    tokens features fire (the median feature on the first of these shares, and so on). For an
    encoder, sentences of the first text are then read alone to fit the map of their mean states.

    With --taps auto the host first reads some of the text through all of its layers and answers
    questions made from it. Reports what every layer scores: the mean reciprocal rank, by its
    hidden states and by its best attention head, of the sentence that a question is about.

    With --kv the codebook is for AtomCache, and each dictionary has 1,024 features unless
    --features says otherwise; 32,768 tokens are read unless --tokens does. Reports for every layer
    which share of the variance of keys and of values stays unexplained.
    """
    if kv:
        plain = (k, reuse, learning_rate, query_metric) == (_K, _REUSE, _LEARNING_RATE, False)
        if not plain or taps is not None or head or add_to is not None:
            raise InputError(
                "--kv fits all layers, so leave out --taps, --head, --k, --reuse, --learning-rate, "
                "--query-metric and --add-to; how many features a key and a value have is up to "
                "the cache."
            )
    texts = TextFiles([file.path for file in find_files(text).files])
    check_codebook_target(out)
    checkpoint = out.with_name(f"{out.name}.checkpoint")
    prepare()
    if kv:
        _fit_kv(host, texts, out, features, tokens, seed, device, dtype, as_json)
        return
    from s3_retriever.codebook import Codebook

    automatic = taps is not None and taps.strip() == "auto"
    sites = [tap.strip() for tap in taps.split(",")] if taps and not automatic else None
    if add_to is not None and (sites is None or head):
        raise InputError(
            "--add-to needs the names of taps in --taps, and leaves heads as they are."
        )
    known = None if add_to is None else Codebook.from_pretrained(location(add_to) or add_to)
    least = 1 if known is None else known.depth
    model = _load(host, sites, head or [], device, dtype, least=least)
    choice = _choose(model, texts, seed, as_json) if automatic else None
    settings: dict[str, Any] = {
        "taps": choice.taps if choice else sites,
        "features": features,
        "k": k,
        "tokens": tokens,
        "reuse": reuse,
        "seed": seed,
        "learning_rate": learning_rate,
        "query_metric": query_metric,
        "checkpoint": checkpoint,
    }
    try:
        if known is None:
            heads = head or (choice.heads if choice else ())
            codebook = Codebook.fit(model, texts, heads=heads, **settings)
        else:
            codebook = known.with_taps(model, texts, **settings)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_kept(checkpoint)) from None
    if choice:
        codebook.report["choice"] = choice.report()
    codebook.save(out)
    shutil.rmtree(checkpoint, ignore_errors=True)
    _give(codebook, out, as_json)


def _fit_kv(
    host: str,
    texts: TextFiles,
    out: Path,
    features: int | None,
    tokens: int | None,
    seed: int,
    device: str,
    dtype: options.Dtype,
    as_json: bool,
) -> None:
    from s3_retriever.kv import KVCodebook

    checkpoint = out.with_name(f"{out.name}.checkpoint")
    sizes = {"features": features, "tokens": tokens}
    settings: dict[str, Any] = {name: size for name, size in sizes.items() if size is not None}
    model = _load(host, None, [], device, dtype)
    try:
        codebook = KVCodebook.fit(model, texts, seed=seed, checkpoint=checkpoint, **settings)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_kept(checkpoint)) from None
    codebook.save(out)
    shutil.rmtree(checkpoint, ignore_errors=True)
    _give(codebook, out, as_json)


def _load(
    host: str,
    sites: list[str] | None,
    heads: list[str],
    device: str,
    dtype: options.Dtype,
    *,
    least: int = 1,
) -> Host:
    """Load the host as deep as the taps and heads need it, with at least so many layers."""
    from s3_retriever.host import Host
    from s3_retriever.host.taps import Head, Tap

    needed = [Head.parse(head).layer for head in heads]
    needed += [Tap.parse(site).layer for site in sites or ()]
    layers = max(*needed, least - 1) + 1 if sites else None
    return Host.load(location(host) or host, layers=layers, device=device, dtype=dtype)


def _choose(host: Host, texts: TextFiles, seed: int, as_json: bool) -> TapChoice:
    """Choose taps and heads, and show by what."""
    from s3_retriever.calibration.tap_choice import choose_taps

    try:
        choice = choose_taps(host, texts, seed=seed)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("Nothing was fitted yet.") from None
    if not as_json:
        show_choice(results(), choice)
    return choice


def show_choice(console: Console, choice: TapChoice) -> None:
    """Print what every layer scores, and what was chosen."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("layer", "hidden", "best head", "attention"):
        table.add_column(name, justify="left" if name == "best head" else "right", no_wrap=True)
    for score in choice.curve:
        table.add_row(str(score.layer), f"{score.hidden:.3f}", score.head, f"{score.attention:.3f}")
    table.add_row("chance", f"{choice.hidden_chance:.3f}", "", f"{choice.head_chance:.3f}")
    show_table(console, table)
    console.print()
    console.print(_verdict(choice), soft_wrap=True)
    console.print()


def _verdict(choice: TapChoice) -> str:
    if choice.measured:
        layer = f"Chosen: {choice.taps[0]}"
    else:
        layer = f"No layer finds more than chance does; {choice.taps[0]} is a guess"
    if not choice.heads:
        return f"{layer}, without heads."
    return f"{layer}; heads {', '.join(choice.heads)}, together {choice.together:.3f}."


def _kept(checkpoint: Path) -> str:
    if checkpoint.is_dir():
        return f"Progress is kept in {checkpoint}; the same command continues from there."
    return "Nothing was read yet."


def _give(codebook: Codebook | KVCodebook, out: Path, as_json: bool) -> None:
    if as_json:
        write_json(
            {
                "path": str(out),
                "host": codebook.host_name,
                "codebook": codebook.identity,
                "report": codebook.report,
            }
        )
    else:
        report = codebook.report
        table = _table(report["taps"]) if "taps" in report else _kv_table(report)
        show_table(results(), table)


def _table(taps: dict[str, dict[str, Any]]) -> Table:
    """One line per tap.

    Its unexplained variance, dead features, active features per token, and on which share of the
    tokens features fire, at quantiles of the features.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("tap", no_wrap=True)
    for name in ("unexplained", "dead", "active", "fires: 50 %", "90 %", "99 %", "max"):
        table.add_column(name, justify="right", no_wrap=True)
    for tap, measured in taps.items():
        table.add_row(
            tap,
            f"{measured['unexplained_variance']:.3f}",
            f"{measured['dead_share']:.1%}",
            f"{measured['active']:.1f}",
            *(f"{share:.2%}" for share in measured["frequency"]),
        )
    return table


def _kv_table(report: dict[str, Any]) -> Table:
    """One line per layer: what stays unexplained of its keys and of its values."""
    unexplained: dict[str, float] = report["unexplained_variance"]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("layer", "keys unexplained", "values unexplained"):
        table.add_column(name, justify="right", no_wrap=True)
    for layer in range(len(unexplained) // 2):
        key, value = unexplained[f"key.{layer}"], unexplained[f"value.{layer}"]
        table.add_row(str(layer), f"{key:.3f}", f"{value:.3f}")
    return table
