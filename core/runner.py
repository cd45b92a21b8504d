"""The whole walk of one run: configuration -> model and tokens -> mode and method -> result."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from core import budgets, engine, environment, registry, tokens
from core.config import STATIC, RunConfig, check_threads, engines
from core.datasets.base import Corpus, Read
from core.environment import Environment
from core.errors import StreamError, unknown
from core.facts import RunFacts
from core.measure.quiet import Waiting
from core.methods.base import method_of
from core.models import anatomy, loading
from core.models.loading import Loaded
from core.modes.base import Progress, Task
from core.result import RunResult
from core.tokens import TokenStream


@dataclass(frozen=True)
class Text:
    """A text: where it came from, its documents as token ids, and what was read for these."""

    corpus: Corpus
    tokens: TokenStream
    read: Read


@dataclass(frozen=True)
class Prepared:
    """A run that can begin: everything is loaded, nothing is left open.

    Attributes:
        config: The resolved configuration; names are of what really runs.
        facts: Hashes and revisions of the model and the text.
        environment: The machine and the code.
        loaded: The model.
        tokens: The documents as token ids.
        notes: Sentences that the user must see before the run.
        open_engine: Whether the engine was left open, so that another may take its place.
    """

    config: RunConfig
    facts: RunFacts
    environment: Environment
    loaded: Loaded
    tokens: TokenStream
    notes: tuple[str, ...]
    open_engine: bool

    @property
    def to_score(self) -> int:
        """Tokens that will be scored: all but each first one, or those after a context."""
        lengths = [len(document.ids) for document in self.tokens.documents]
        if not self.config.mode_spec.context:
            return sum(lengths) - len(lengths)
        contexts = [self.config.context_of(length) for length in lengths]
        return sum(max(0, n - 1 - used) for n, used in zip(lengths, contexts, strict=True))


def load_model(config: RunConfig, *, explicit: bool) -> Loaded:
    """Load the model that ``config`` names.

    Args:
        config: Which model, and how.
        explicit: Whether the user named it, so that no stand-in will do.

    Raises:
        StreamError: It can't be had, or is none that can stream.
    """
    return loading.load(
        config.model,
        dtype=config.dtype,
        device=config.device,
        source=config.source,
        trust=config.trust,
        explicit=explicit,
        streams=config.spec.moves,
        softmax_type=config.softmax_type,
    )


def read_text(config: RunConfig, loaded: Loaded) -> Text:
    """Read the text that ``config`` names, as ``loaded`` splits it into tokens.

    Raises:
        StreamError: It can't be had, or has nothing to score.
    """
    corpus = tokens.open_corpus(config.dataset, config.source)
    read = Read(corpus.documents)
    stream = tokens.tokenize(
        replace(corpus, documents=read),
        loaded.tokenizer,
        config.tokens_to_read(loaded.trained_length),
        per_document=config.tokens_per_document,
        skip=config.skip_tokens,
        concatenate=config.concatenate,
    )
    return Text(corpus, stream, read)


def prepare(config: RunConfig, loaded: Loaded, text: Text) -> Prepared:
    """Settle what ``config`` left open.

    Raises:
        StreamError: The method can't run on this model.
    """
    seed_and_threads(config)
    corpus, stream = text.corpus, text.tokens
    device = str(loaded.model.device)
    fitted = budgets.settled(config, loaded).fitted(loaded.trained_length)
    resolved = fitted.resolved(
        model=loaded.name,
        dataset=corpus.name,
        max_tokens=fitted.max_tokens or stream.total,
        device=device,
        engine=_engine(fitted, loaded, stream),
        threads=torch.get_num_threads(),
    )
    tokens.check_range(stream, loaded)
    method = method_of(resolved)
    method.start(loaded, 1)  # refuses a model that the method can't run on
    method.check(loaded, max(len(document.ids) for document in stream.documents))
    facts = RunFacts(
        requested_model=config.model,
        requested_dataset=config.dataset,
        model_revision=loaded.revision,
        weights_sha256=loaded.weights_sha256,
        files_sha256=loaded.files_sha256,
        parameters=loaded.parameters,
        trained_length=loaded.trained_length,
        dataset_form=_form(corpus.form, resolved),
        dataset_revision=corpus.revision,
        tokens_sha256=stream.sha256,
        bos=stream.bos,
        layers=method.layers(loaded),
        method_package=config.spec.package or None,
        proof=anatomy.of(loaded.model).proof_in_words,
    )
    gpu = torch.cuda.get_device_name(device) if device.startswith("cuda") else None
    found = environment.describe(gpu)
    notes = (*loaded.notes, *corpus.notes, *stream.notes, *_unfilled(resolved, stream))
    return Prepared(resolved, facts, found, loaded, stream, notes, config.engine == "auto")


def seed_and_threads(config: RunConfig) -> None:
    """Give torch its seed and its threads.

    Raises:
        UsageError: So many threads would only wait for each other.
    """
    torch.manual_seed(config.seed)
    check_threads(config.threads)
    if config.threads:
        torch.set_num_threads(config.threads)


@contextmanager
def memory_in_words(config: RunConfig, smaller: str) -> Iterator[None]:
    """Say in one line that memory ran out, and what of ``smaller`` would help.

    Raises:
        StreamError: It did.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _out_of_memory(error):
            raise
        raise StreamError(
            f"out of memory on {config.device}: choose a smaller {smaller}, or --dtype bfloat16."
        ) from error


def execute(prepared: Prepared, progress: Progress) -> RunResult:
    """Evaluate a prepared run.

    Raises:
        StreamError: The evaluation failed, in one line.
    """
    config = prepared.config
    evaluate, method = registry.load("mode", config.mode), method_of(config)
    method.may_be_eager = prepared.open_engine
    task = Task(prepared.loaded, prepared.tokens, method, config, progress)
    smaller = "--chunk-size, --batch-size or --window"
    with memory_in_words(config, smaller), torch.inference_mode():
        waiting = Waiting()
        result: RunResult = replace(evaluate(task), waited=waiting.share())
    _check_finite(result, prepared)
    return result


def evaluate(config: RunConfig | None = None, /, **options: Any) -> RunResult:
    """Measure one method on one model and one text: the whole walk in one call, nothing recorded.

    ``evaluate(model="bundled", dataset="bundled-narrative", method="streaming", window=60)``

    The model is loaded for each call. What a run changes in torch for the whole process is put
    back, but for the random seed.

    Args:
        config: What to run; may be left out where ``options`` say it all.
        options: Fields of ``RunConfig`` by name; they take the place of those of ``config``.

    Returns:
        Scores in nats a token and as perplexity, times in milliseconds, memory in MiB. Its
        ``notes`` say first what took the place of what, such as another text for one out of reach.

    Raises:
        UsageError: An option is unknown or out of range, or the method can't run on this model. A
            model that can't be had is an error: unlike ``streamcli run``, no other is taken for it.
        StreamError: The model or text can't be had, or the evaluation failed.
    """
    for name in options:
        if name not in RunConfig.names():
            raise unknown("option", name, RunConfig.names())
    asked = replace(config, **options) if config else RunConfig(**options)
    threads = torch.get_num_threads()
    try:
        loaded = load_model(asked, explicit=True)
        prepared = prepare(asked, loaded, read_text(asked, loaded))
        result = execute(prepared, lambda scored, nats: None)
    finally:
        torch.set_num_threads(threads)
    return replace(result, notes=(*prepared.notes, *result.notes))


def _check_finite(result: RunResult, prepared: Prepared) -> None:
    """Refuse scores that are no numbers, and say where they are from: nothing is told by them."""
    bad = ~np.isfinite(result.nll)
    unproved = math.isnan(anatomy.of(prepared.loaded.model).largest_nats)
    if not bad.any() and not unproved:
        return
    first, config = int(bad.argmax()), prepared.config
    weight = loading.not_finite(prepared.loaded.model)
    why = f"its weight {weight} holds NaN or infinity, so fetch the model again"
    if weight is None:
        why = "though all its weights are finite: try --engine eager"
    if config.dtype != "float32":
        why += f", or {config.dtype} is too narrow for it: use --dtype float32"
    raise StreamError(
        f"{config.model} gives token {first + 1} a score of {result.nll[first]}, which is no "
        f"result: {why}."
    )


def _out_of_memory(error: Exception) -> bool:
    """Of a CPU's memory torch says so in words only."""
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or "can't allocate memory" in str(error)


def _engine(config: RunConfig, loaded: Loaded, stream: TokenStream) -> str:
    """What ``auto`` is for this text, by how many steps it has with a full cache."""
    if config.engine != "auto":
        return config.engine
    if STATIC[0] not in engines(config.method, config.mode):
        return "eager"
    after = method_of(config).full_after(loaded)
    full = [max(0, len(document.ids) - after) for document in stream.documents]
    steps = config.timed_tokens or sum(full) // config.batch_size
    return engine.choose("auto", loaded.model, steps)


def _form(form: str, config: RunConfig) -> str:
    """How the text was made, and which part of each document was read."""
    if config.tokens_per_document:
        form += f"; up to {config.tokens_per_document:,} tokens of each document"
    if config.skip_tokens:
        form += f"; the first {config.skip_tokens:,} tokens of each left out"
    return f"{form}; all documents as one stream" if config.concatenate else form


def _unfilled(config: RunConfig, stream: TokenStream) -> tuple[str, ...]:
    """A note where there are fewer documents than may be read in step."""
    count = len(stream.documents)
    if config.batch_size <= count:
        return ()
    documents = f"{count} document{'s' * (count > 1)}"
    return (
        f"batch_size is {config.batch_size}, but {config.dataset} has {documents} to read: no more "
        "go in step.",
    )
