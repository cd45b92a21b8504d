"""Turns of a dialogue: what is added to a stream makes the text that a template would render."""

from __future__ import annotations

import pytest

from core import dialogue
from core.dialogue import Plain, Template, form
from core.errors import UsageError
from core.models.loading import Loaded
from tests.support.talking import NO_SYSTEM, TEMPLATE, talker

END = 96
MERGED = TEMPLATE.replace("{% for", "{% set ns = 1 %}{% for")  # another spelling, the same text
IN_FIRST = (  # Gemma's way: the system prompt stands within the first words
    "{% if messages[0]['role'] == 'system' %}{% set s = messages[0]['content'] + '\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set s = '' %}{% endif %}"
    "{% for m in messages %}[{{ m['role'] }}|{{ s if loop.first }}{{ m['content'] }}<end>"
    "{% endfor %}{% if add_generation_prompt %}[assistant|{% endif %}"
)


def text(loaded: Loaded, ids: list[int]) -> str:
    return str(loaded.tokenizer.decode(ids))


def test_turns_and_answers_make_the_text_that_the_template_renders() -> None:
    loaded = talker()
    talk = form(loaded, "Be kind.")
    said = ["Hi", "  Why?\nTell me. ", "x"]
    stream = talk.first(said[0])
    for words in said[1:]:
        stream += [*loaded.tokenizer("So it is.").input_ids]
        stream += talk.following(words, False)
    messages = [{"role": "system", "content": "Be kind."}]
    for words in said:
        messages += [{"role": "user", "content": words}]
        messages += [{"role": "assistant", "content": "So it is."}]
    want = loaded.tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True)
    assert stream == want["input_ids"]


@pytest.mark.parametrize(
    ("template", "tokens"),
    [(TEMPLATE, "[system|Be kind.<end>"), (MERGED, "[system|Be kind.<end>")]
    + [(IN_FIRST, "[user|Be kind.\n\n")],
)
def test_the_system_prompts_tokens_are_those_before_the_first_words(
    template: str, tokens: str
) -> None:
    loaded = talker(template)
    talk = form(loaded, "Be kind.")
    first = talk.first("Hi")
    assert text(loaded, first[: talk.system]) == tokens
    assert talk.first("Hello")[: talk.system] == first[: talk.system]


def test_an_answer_ends_at_the_tokens_of_model_tokenizer_and_template() -> None:
    loaded = talker()
    assert form(loaded).stops == {END}
    loaded.model.generation_config.eos_token_id = [3, 5]
    assert form(loaded).stops == dialogue.ends(loaded) == {3, 5, END}
    loaded.tokenizer.eos_token = "a"
    turn = form(loaded)
    assert turn.stops == {3, 5, loaded.tokenizer.eos_token_id, END}  # the last by the template


def test_a_model_without_a_template_has_a_plain_form() -> None:
    loaded = talker(None)
    talk = form(loaded, "Be kind.")
    assert isinstance(talk, Plain) and talk.stop == "\nUser:"
    first = talk.first("Hi")
    assert text(loaded, first) == "Be kind.\n\nUser: Hi\nAssistant:"
    assert text(loaded, first[: talk.system]) == "Be kind.\n\n"
    assert text(loaded, talk.following("Why?", False)) == "\nUser: Why?\nAssistant:"
    assert text(loaded, talk.following("Why?", True)) == " Why?\nAssistant:"
    assert form(loaded).system == 0


def test_a_template_that_takes_no_system_prompt_is_refused_in_one_line() -> None:
    assert isinstance(form(talker(NO_SYSTEM + TEMPLATE)), Template)
    for template, why in (
        (NO_SYSTEM + TEMPLATE, "No system: leave --system out"),
        ("{% set messages = messages[1:] %}" + TEMPLATE, "leaves the system prompt out"),
    ):
        with pytest.raises(UsageError, match=why) as caught:
            form(talker(template), "Be kind.")
        assert "\n" not in str(caught.value)


def test_a_broken_template_is_refused_in_one_line() -> None:
    for template in ("{% for %}", "{{ nothing.at_all.here }}", "always the same"):
        with pytest.raises(UsageError, match="chat template of tiny can't be used") as caught:
            form(talker(template))
        assert "\n" not in str(caught.value)
