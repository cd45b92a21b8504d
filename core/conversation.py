"""One stream of a model, read and written in turns: its state, and what a turn adds to it.

Tokens go through the method's own stream, one feed after the other, and not through transformers'
``generate``: that copies the whole text at every token, which an endless one can't afford, and a
turn that is stopped would break off amid the layers. The tokens are the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from core import dialogue, engine, runner, tokens, weights
from core.config import STATIC, RunConfig, engines
from core.errors import UsageError
from core.measure.meters import Clock
from core.methods.base import Method, method_of, past_trained_length
from core.models.loading import Loaded
from core.sampling import Sampler, Sampling
from core.spelled import Spelled

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
        unread: Tokens that the stream goes on with before the next turn's: one that was written
            last, or what was left of a turn that ended before it was read.
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
        if STATIC[0] in engines(config.method, config.mode):
            found["engine"] = engine.choose(config.engine, loaded.model, sampling.max_new_tokens)
        fitted = config.fitted(loaded.trained_length)
        self.config = fitted.resolved(device=str(loaded.model.device), **found)
        self.method: Method = method_of(self.config)
        self.method.may_be_eager = config.engine == "auto"
        self.stream = self.method.start(loaded, 1)
        self.sampler = Sampler(sampling, config.seed, loaded.model.device)
        self.stops = form.stops if form else dialogue.ends(loaded)
        spec, waiting = self.config.spec, self.config.steps_between_evictions() - 1
        bounded = spec.has_budget and spec.memory != "grows"
        self.budget = self.config.attended_keys - 1 + waiting if bounded else None
        self.read, self.begun, self.warned = 0, False, False
        self.unread: list[int] = []
        self.ended = False  # whether the last answer ended at the form's words

    def decoding(self) -> AbstractContextManager[tuple[str, ...]]:
        """Within the block weights lie for one token at a time."""
        return weights.for_decoding(self.loaded.model, 1, self.config.engine)

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
        if not given:
            raise UsageError("there is nothing to go on from: the prompt has no tokens.")
        tokens.check_ids(max(given), self.loaded)
        length = self.read + len(given) + self.sampling.max_new_tokens
        self.method.check(self.loaded, length)
        self.begun, self.unread, self.ended = True, [], False
        with runner.memory_in_words(self.config, "--window"), torch.inference_mode():
            logits = self._read(given, stop)
            spent_s, compiled_s = clock.lap(), self.stream.compile_s
            text, made, reason = "", 0, INTERRUPTED
            if logits is not None:
                text, made, reason = self._write(logits, given, show, stop)
        wrote_s = clock.lap()
        return Turn(
            text=text,
            tokens_in=len(ids),
            tokens_out=made,
            seconds=spent_s + wrote_s,
            tokens_per_s=made / (wrote_s - self.stream.compile_s + compiled_s) if made else 0.0,
            keys_held=self.stream.held(),
            stream_tokens=self.read,
            stop_reason=reason,
        )

    def warning(self) -> str | None:
        """What must be known of a stream that has become so long; told once."""
        absolute = self.method.positions == "absolute" or not self.budget
        furthest = self.read if absolute else min(self.read, self.config.attended_keys)
        notes = past_trained_length(self.config.method, self.loaded, furthest)
        if self.warned or not notes:
            return None
        self.warned = True
        return notes[0]

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
        self, logits: torch.Tensor, given: list[int], show: Show, stop: Asked
    ) -> tuple[str, int, str]:
        """The text, how many tokens it is, and why it ended."""
        said = deque(given, self.config.attended_keys if self.budget else None)
        words = self.form.stop if self.form else ""
        spelled = Spelled(self.loaded.tokenizer, given, words, strip=bool(words))
        pieces, made, reason = list[str](), 0, ""

        def tell(piece: str) -> None:
            if piece:
                pieces.append(piece)
                show(piece)

        while not reason:
            token = self.sampler.choose(logits, said)
            if token in self.stops:  # never read: what closes a turn is the form's
                reason = STOPPED
                break
            said.append(token)
            made += 1
            tell(spelled.add(token))
            if spelled.stopped:
                reason, self.ended = STOPPED, True
            elif made == self.sampling.max_new_tokens:
                reason = LIMIT
            elif stop():
                reason = INTERRUPTED
            if reason:
                self.unread = [token]
            else:
                self.stream.warm(self._tensor([token]))
                logits = self._feed([token])
        tell(spelled.end())
        return "".join(pieces), made, reason

    def _feed(self, ids: list[int]) -> torch.Tensor:
        logits = self.stream.feed(self._tensor(ids), keep=1)[:, -1]
        self.read += len(ids)
        return logits

    def _tensor(self, ids: list[int]) -> torch.Tensor:
        return torch.tensor([ids], device=self.loaded.model.device)


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
