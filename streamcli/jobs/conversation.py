"""From what a command was given to a stream of turns, which a person or a pipe goes on with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from core import dialogue, extras, registry, runner
from core.config import RunConfig, options
from core.conversation import Conversation
from core.sampling import Sampling
from streamcli import settings
from streamcli.jobs import signals


@contextmanager
def begun(
    params: dict[str, Any], *, talks: bool = False, system: str | None = None
) -> Iterator[Conversation]:
    """Load the model that a command's parameters name, and begin a stream of it.

    Within the block the model is prepared for tokens that come one by one.

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
    extras.check(config.method)
    loaded = runner.load_model(config, explicit=asked.model_is_explicit)
    form = dialogue.form(loaded, system) if talks else None
    made = Conversation(loaded, config, sampling, form)
    with made.decoding():
        yield made
