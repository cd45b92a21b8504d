"""One stream of a model, read and written in turns: its state, and what a turn adds to it.

Tokens go through the method's own stream, one feed after the other, and not through transformers'
``generate``: that copies the whole text at every token, which an endless one can't afford, and a
turn that is stopped would break off amid the layers. The tokens are the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from core import dialogue, engine, registry, runner, tokens
from core.config import RunConfig, not_had, options
from core.errors import UsageError
from core.measure.meters import Clock
from core.methods.base import Method, method_of
from core.models.loading import Loaded
from core.sampling import Sampler, Sampling
from core.spelled import Spelled
from streamcli import settings
from streamcli.jobs import signals

STOPPED, LIMIT, INTERRUPTED = "stop", "max_new_tokens", "interrupted"

Show = Callable[[str], None]
Asked = Callable[[], bool]


@dataclass(frozen=True)
class Turn:
    """What one turn gave.

    Attributes:
        text: What the model wrote.
        tokens_in: Tokens that the stream was given, those that open and close turns included.
        tokens_out: Tokens that the model wrote, without the one that ended the turn.
        seconds: Time of all of it.
        tokens_per_s: Tokens written a second, once what came before them was read.
        keys_held: Keys that the next token will see in a layer that sees everything.
        stream_tokens: Tokens of the stream so far.
        stop_reason: ``stop`` (the model ended it), ``max_new_tokens`` or ``interrupted``.
    """

    text: str
    tokens_in: int
    tokens_out: int
    seconds: float
    tokens_per_s: float
    keys_held: int
    stream_tokens: int
    stop_reason: str

    def values(self) -> dict[str, Any]:
        """By name."""
        return asdict(self)


class Conversation:
    """A stream that goes on from turn to turn.

    Attributes:
        config: What it is made of; nothing is left open.
        read: Tokens of the stream so far.
        budget: Keys that are held at most; None where they grow with the stream.
        notes: Sentences that the user must see before the first turn.
    """

    def __init__(
        self, loaded: Loaded, config: RunConfig, sampling: Sampling, form: dialogue.Form | None
    ) -> None:
        """An empty stream.

        Args:
            loaded: The model.
            config: Which method, budget and machine.
            sampling: How tokens are chosen.
            form: How turns are written; None where a text is only continued.

        Raises:
            UsageError: The method can't run on this model, or the system prompt is too long.
        """
        runner.seed_and_threads(config)
        self.loaded, self.form, self.sampling = loaded, form, sampling
        self.notes, system = loaded.notes, form.system if form else 0
        if isinstance(form, dialogue.Plain):
            self.notes += (f"{loaded.name} has no chat template: turns are {form.words}.",)
        if system and config.spec.budget == "sinks and window" and system > config.n_sink:
            self.notes += (f"the system prompt is kept: its {system} tokens are the sinks.",)
            config = _with_sinks(config, system, loaded)
        elif system and config.spec.budget == "window":
            self.notes += (
                f"{config.method} has no sinks: the system prompt leaves like all else.",
            )
        found: dict[str, Any] = {"model": loaded.name, "threads": torch.get_num_threads()}
        if "engine" not in not_had(config.method, config.mode):
            found["engine"] = engine.choose(config.engine, loaded.model, sampling.max_new_tokens)
        fitted = config.fitted(loaded.trained_length)
        self.config = fitted.resolved(device=str(loaded.model.device), **found)
        self.method: Method = method_of(self.config)
        self.method.may_be_eager = config.engine == "auto"
        self.stream = self.method.start(loaded, 1)
        self.sampler = Sampler(sampling, config.seed, loaded.model.device)
        self.stops = form.stops if form else dialogue.ends(loaded)
        bounded = self.config.spec.has_budget
        self.budget = self.config.attended_keys - 1 if bounded else None
        self.read, self.begun, self.warned = 0, False, False
        self.unread: list[int] = []  # tokens that belong before the next turn's
        self.ended = False  # whether the last answer ended at the form's words

    def say(self, words: str, show: Show, stop: Asked) -> Turn:
        """Say ``words`` to the model, and let it answer.

        Args:
            words: What is said.
            show: Is given the answer piece by piece.
            stop: Whether the turn must end now; asked between tokens.

        Raises:
            StreamError: The model can't read this, or memory ran out.
        """
        assert self.form
        ids = self.form.following(words, self.ended) if self.begun else self.form.first(words)
        return self.go_on(ids, show, stop)

    def go_on(self, ids: Sequence[int], show: Show, stop: Asked) -> Turn:
        """Read ``ids`` and write on; see ``say``."""
        clock, given = Clock(self.config.device), [*self.unread, *ids]
        tokens.check_ids(max(given, default=0), self.loaded)
        length = self.read + len(given) + self.sampling.max_new_tokens
        self.method.check(self.loaded, length)
        self.begun, self.unread, self.ended = True, [], False
        if not given:
            raise UsageError("there is nothing to go on from: the prompt has no tokens.")
        with runner.memory_in_words(self.config, "--window"), torch.inference_mode():
            logits = self._read(given, stop)
            spent_s, pieces, made, reason = clock.lap(), list[str](), 0, INTERRUPTED
            compiled_s = self.stream.compile_s
            if logits is not None:
                for piece, made, reason in self._write(logits, given, stop):
                    if piece:
                        pieces.append(piece)
                        show(piece)
        wrote_s = clock.lap()
        return Turn(
            text="".join(pieces),
            tokens_in=len(ids),
            tokens_out=made,
            seconds=spent_s + wrote_s,
            tokens_per_s=made / (wrote_s - self.stream.compile_s + compiled_s) if made else 0.0,
            keys_held=self.stream.held(),
            stream_tokens=self.read,
            stop_reason=reason,
        )

    def warning(self) -> str | None:
        """What must be known, once, of a stream that has become so long."""
        known = self.method.notes(self.loaded, self.loaded.trained_length)
        new = [note for note in self.method.notes(self.loaded, self.read) if note not in known]
        if self.warned or not new:
            return None
        self.warned = True
        return new[0]

    def _read(self, ids: list[int], stop: Asked) -> torch.Tensor | None:
        """Scores (1, V) after ``ids``; None where the turn ended before the last was read."""
        size = self.config.chunk if self.config.spec.exact_chunks else 1
        logits = None
        for start in range(0, len(ids), size):
            if stop():
                self.unread = ids[start:]
                return None
            logits = self._feed(ids[start : start + size])
        return logits

    def _write(
        self, logits: torch.Tensor, given: list[int], stop: Asked
    ) -> Iterator[tuple[str, int, str]]:
        """Pieces of text, the tokens so far, and why it ends if it does."""
        kept = self.config.attended_keys if self.budget else None
        said = deque(given, kept)
        words = self.form.stop if self.form else ""
        spelled = Spelled(self.loaded.tokenizer, given, words, strip=bool(words))
        made, reason = 0, ""
        with self.stream.decoding():
            while not reason:
                token = self.sampler.choose(logits, said)
                if token in self.stops:  # never read: what closes a turn is the form's
                    reason = STOPPED
                    break
                said.append(token)
                made += 1
                piece = spelled.add(token)
                if spelled.stopped:
                    reason, self.ended = STOPPED, True
                elif made == self.sampling.max_new_tokens:
                    reason = LIMIT
                elif stop():
                    reason = INTERRUPTED
                yield piece, made, reason
                if reason:
                    self.unread = [token]
                else:
                    self.stream.warm(self._tensor([token]))
                    logits = self._feed([token])
        yield spelled.end(), made, reason

    def _feed(self, ids: list[int]) -> torch.Tensor:
        logits = self.stream.feed(self._tensor(ids), keep=1)[:, -1]
        self.read += len(ids)
        return logits

    def _tensor(self, ids: list[int]) -> torch.Tensor:
        return torch.tensor([ids], device=self.loaded.model.device)


def begin(
    params: dict[str, Any], *, talks: bool = False, system: str | None = None
) -> Conversation:
    """Load the model that a command's parameters name, and begin a stream of it.

    Args:
        params: The command's, those that are no option of a stream left aside.
        talks: Whether turns are written as a dialogue.
        system: The system prompt of that, if any.

    Raises:
        StreamError: It can't begin.
    """
    signals.listen()
    drawn = {each.name: params[each.name] for each in options(Sampling)}
    sampling = Sampling(**{name: value for name, value in drawn.items() if value is not None})
    asked = settings.read({name: params.get(name) for name in RunConfig.names()})
    # What a variable may say of measuring has no meaning here.
    config = asked.config(mode=registry.DECODE, batch_size=1, context_tokens=None)
    loaded = runner.load_model(config, explicit=asked.model_is_explicit)
    form = dialogue.form(loaded, system) if talks else None
    return Conversation(loaded, config, sampling, form)


def _with_sinks(config: RunConfig, sinks: int, loaded: Loaded) -> RunConfig:
    """The configuration with so many sinks.

    Raises:
        UsageError: They leave a window no room within the positions that the model knows.
    """
    trained = loaded.trained_length
    if sinks > trained // 2:
        raise UsageError(
            f"the system prompt has {sinks:,} tokens, and {loaded.name} was trained on {trained:,}:"
            f" shorten it to {trained // 2:,}."
        )
    # The default, half the trained length in all, may be used up: a window is needed beside it.
    window = config.window or max(trained // 2 - sinks, trained // 4)
    return replace(config, n_sink=sinks, window=window)
