"""How a model is talked to: turns as token ids, of which each adds to the stream before it.

A stream can't be rewritten, so a turn is only what is new: what closes the answer before it, the
words, and what opens the next answer. A model's chat template says all of that, but only for whole
dialogues; a rendered one with a mark in the answer's place shows what stands after it. A model
without a template is given a plain form.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

from core import tokens
from core.errors import UsageError
from core.hub import first_line
from core.models.loading import Loaded

MARK, OTHER = "streamcli-mark", "words-of-another"  # which no template changes, and no text has
PERSON, MODEL = "User:", "Assistant:"
NEXT = f"\n{PERSON}"


class Form(ABC):
    """How turns are written.

    Attributes:
        stop: Words at which an answer ends; empty where tokens alone end it.
        stops: Tokens that end an answer, and are no part of it.
        system: Tokens of the system prompt, with which the stream begins.
    """

    stop = ""
    stops: frozenset[int]
    system = 0

    def __init__(self, loaded: Loaded) -> None:
        self.tokenizer, self.name = loaded.tokenizer, loaded.name
        self.stops = ends(loaded)

    @abstractmethod
    def first(self, said: str) -> list[int]:
        """The ids with which the stream begins: the system prompt, and the first words."""

    @abstractmethod
    def following(self, said: str, ended: bool) -> list[int]:
        """The ids of the next words; ``ended`` where the answer before them ended at ``stop``."""


class Template(Form):
    """The chat template that the model came with.

    Args:
        loaded: The model.
        system: The system prompt, if any.

    Raises:
        UsageError: The template does not render, or takes no system prompt.
    """

    def __init__(self, loaded: Loaded, system: str | None) -> None:
        super().__init__(loaded)
        self.before = [] if system is None else [_message("system", system)]
        closed = self._render([_message("user", OTHER), _message("assistant", MARK)], False)
        after = self._after(closed)  # what stands behind an answer
        self.stops |= set(self._first_special(after))
        if system is not None:
            if system.strip() not in self._render([_message("user", MARK)]):
                raise self._refusal("it leaves the system prompt out: leave --system out")
            self.system = self._count_system(after)

    def first(self, said: str) -> list[int]:
        """See ``Form``."""
        return self._ids(self._render([_message("user", said)]))

    def following(self, said: str, ended: bool) -> list[int]:
        """See ``Form``."""
        return self._ids(self._after(self._render(self._second(said))))

    def _second(self, said: str) -> list[dict[str, str]]:
        return [_message("user", OTHER), _message("assistant", MARK), _message("user", said)]

    def _count_system(self, after: str) -> int:
        """Tokens before what opens the first words."""
        whole = self._render([_message("user", MARK)])
        opening = self._after(self._render(self._second(MARK)))
        opening = opening[: opening.index(MARK)].removeprefix(after)  # what opens later words
        before = whole[: whole.index(MARK)].removesuffix(opening)
        return _shared(self._ids(before), self._ids(whole))

    def _render(self, messages: list[dict[str, str]], opens: bool = True) -> str:
        try:
            text: str = self.tokenizer.apply_chat_template(
                [*self.before, *messages], tokenize=False, add_generation_prompt=opens
            )
        except Exception as error:  # whatever a template raises
            hint = "leave --system out" if self.before else "choose another model"
            raise self._refusal(f"{first_line(error)}: {hint}") from error
        return text

    def _after(self, text: str) -> str:
        """What stands behind the answer."""
        if MARK not in text:
            raise self._refusal("it leaves an answer out: choose another model")
        return text[text.index(MARK) + len(MARK) :]

    def _first_special(self, text: str) -> list[int]:
        added = self.tokenizer.added_tokens_decoder.items()
        special = {index for index, token in added if token.special}
        return [index for index in self._ids(text) if index in special][:1]

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(
            text,
            add_special_tokens=False,  # they are in the template
            split_special_tokens=False,
            return_attention_mask=False,
            verbose=False,
        )["input_ids"]
        return ids

    def _refusal(self, why: str) -> UsageError:
        return UsageError(f"the chat template of {self.name} can't be used: {why}.")


class Plain(Form):
    """``User:`` and ``Assistant:`` before what each says, for a model without a template."""

    stop = NEXT
    words = f"written after {PERSON} and {MODEL}"

    def __init__(self, loaded: Loaded, system: str | None) -> None:
        super().__init__(loaded)
        self.front = tokens.front(self.tokenizer)
        self.before = f"{system}\n\n" if system else ""
        if system:
            before = [*self.front, *tokens.encode(self.tokenizer, self.before)]
            self.system = _shared(before, self.first(MARK))

    def first(self, said: str) -> list[int]:
        """See ``Form``."""
        text = f"{self.before}{PERSON} {said}\n{MODEL}"
        return [*self.front, *tokens.encode(self.tokenizer, text)]

    def following(self, said: str, ended: bool) -> list[int]:
        """See ``Form``."""
        opening = "" if ended else NEXT
        return tokens.encode(self.tokenizer, f"{opening} {said}\n{MODEL}")


def form(loaded: Loaded, system: str | None = None) -> Form:
    """How ``loaded`` is talked to.

    Raises:
        UsageError: Its chat template can't be used.
    """
    return (Template if loaded.tokenizer.chat_template else Plain)(loaded, system)


def ends(loaded: Loaded) -> frozenset[int]:
    """The tokens at which the model ends a text: the tokenizer's, and those it generates with."""
    own = loaded.model.generation_config.eos_token_id
    several = own if isinstance(own, Iterable) else [own]
    found = {*several, loaded.tokenizer.eos_token_id}
    return frozenset(int(index) for index in found if index is not None)


def _message(role: str, words: str) -> dict[str, str]:
    return {"role": role, "content": words}


def _shared(some: list[int], others: list[int]) -> int:
    """How many ids both begin with."""
    pairs = enumerate(zip(some, others, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(some), len(others)))
