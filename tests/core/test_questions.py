"""Questions of a text: where they are asked, how far back, and which answers are right."""

from __future__ import annotations

import math
from collections import Counter
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer

from core import registry
from core.datasets.base import Corpus, Document, Question
from core.datasets.recall import NUMBERS
from core.errors import UsageError
from core.methods.base import Method
from core.models.loading import Loaded
from core.packaged import bundled
from core.questions import Asked, Fork, TokenQuestion
from core.result import Answer, accuracy, wilson
from core.tokens import TokenDocument, open_corpus, tokenize
from tests.support.evaluated import evaluate

TASKS = ("recall", "passkey:60")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(bundled("model"))


def documents(spec: str, tokenizer: Any, count: int, **cut: Any) -> tuple[TokenDocument, ...]:
    return tokenize(open_corpus(spec, "bundled"), tokenizer, count, **cut).documents


def read_back(tokenizer: Any, ids: Tensor) -> list[tuple[int, int, str]]:
    """Told, asked after and answer of each question of ``recall``, by decoding token by token."""
    told: dict[str, int] = {}
    found, text = [], ""
    pieces = [tokenizer.decode([token]) for token in ids.tolist()]
    for place, piece in enumerate(pieces):
        line = text.rpartition("\n")[2]
        if line.endswith(":"):
            if line in told:
                rest = "".join(pieces[place:]).partition("\n")[0]
                found.append((told[line], place - 1, rest.strip()))
            told[line] = place
        text += piece
    return found


def test_a_question_is_where_its_line_is_said_again_and_as_far_back_as_it_was_said_first(
    tokenizer: Any,
) -> None:
    (document,) = documents("recall", tokenizer, 1500)
    want = read_back(tokenizer, document.ids)
    first = {tokenizer(f": {n}", add_special_tokens=False)["input_ids"][1]: n for n in NUMBERS}
    got = [(q.told, q.at, first[q.forks[0].right]) for q in document.questions]
    assert got == want and len(got) > 80
    assert [q.distance for q in document.questions] == [at - told for told, at, _ in want]


@pytest.mark.parametrize("spec", TASKS)
@pytest.mark.parametrize(
    "cut", [{"skip": 37}, {"concatenate": True}, {"per_document": 130}], ids=str
)
@pytest.mark.slow
def test_questions_stay_with_their_tokens_however_a_text_is_cut(
    tokenizer: Any, spec: str, cut: dict[str, Any]
) -> None:
    found = documents(spec, tokenizer, 500, **cut)
    questions = [(document, question) for document in found for question in document.questions]
    assert questions
    for document, question in questions:
        (fork,) = question.forks
        assert question.told is not None
        assert document.ids[question.told] == document.ids[question.at + 1] == fork.right
        assert 0 <= question.told < question.at and fork.right not in fork.others


def test_the_questions_of_a_text_are_as_many_at_every_doubling_of_the_distance() -> None:
    document = next(iter(open_corpus("recall:3", "bundled").documents))
    lines = document.text[: document.questions[600].asked].splitlines()
    first = {line: place for place, line in reversed(list(enumerate(lines)))}
    again = [place - first[line] for place, line in enumerate(lines) if first[line] < place]
    assert len(again) == 600 and max(Counter(lines).values()) == 2
    octaves = Counter(int(math.log2(ago)) for ago in again)
    of_each = [octaves[octave] for octave in range(9)]
    assert min(of_each) > len(again) / 11 / 2, of_each


def test_a_seed_makes_its_text_again_and_another_seed_another() -> None:
    def texts(spec: str) -> list[str]:
        return [each.text for each in islice(open_corpus(spec, "bundled").documents, 2)]

    assert texts("recall") == texts("recall:0") != texts("recall:1")
    assert len(set(texts("recall"))) == 2


def test_the_pass_key_is_told_once_and_asked_for_at_every_depth() -> None:
    found = list(islice(open_corpus("passkey:200", "bundled").documents, 16))
    depths = []
    for document in found:
        (question,) = document.questions
        answer = question.candidates[question.right]
        assert question.told is not None
        assert document.text[question.told :].startswith(f"{answer}. Remember")
        assert document.text[question.asked :] == f"{answer}."
        assert sum(document.text.count(f" {number}.") for number in NUMBERS) == 2
        depths.append(question.told / len(document.text))
    assert len({int(4 * depth) for depth in depths}) == 4


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("recall:x", "write a whole number after the colon, such as recall:7"),
        ("recall:", "write a whole number"),
        ("passkey:-1", "such as passkey:2000"),
        ("passkey:0", "needs a word of filler"),
    ],
)
def test_a_part_that_is_none_is_refused(spec: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        open_corpus(spec, "bundled")


@pytest.mark.parametrize(
    ("asked", "words", "said"),
    [
        (19, ("four", "four"), "does not tell these apart: four, four"),
        (19, ("four", "fourteen"), "does not tell these apart: four, fourteen"),
        (12, ("five", "four"), "makes no token of its own where 'four' begins"),
    ],
)
def test_a_text_whose_answers_the_tokenizer_can_not_tell_apart_is_refused(
    tokenizer: Any, asked: int, words: tuple[str, ...], said: str
) -> None:
    document = Document("mine", "river: four\nriver: four", (Question(7, asked, 1, words),))
    with pytest.raises(UsageError, match=said):
        tokenize(Corpus("mine", "as given", [document]), tokenizer, 50)


def answered(question: TokenQuestion, logits: Tensor, chunk: int) -> tuple[Answer, ...]:
    """What becomes of a question by logits (T, V) that come so many at a time."""
    asked = Asked([question])
    for start in range(0, len(logits), chunk):
        asked.put(start, logits[start : start + chunk])
    return asked.answers


@pytest.mark.parametrize("chunk", [1, 4, 12])
def test_an_answer_is_right_where_its_tokens_alone_are_the_likeliest_wherever_candidates_part(
    chunk: int,
) -> None:
    question = TokenQuestion(3, (Fork(10, 6, (5, 7)), Fork(11, 2, (4,))), candidates=4)
    logits = torch.zeros(12, 9)
    logits[:, 8] = 99  # no candidate
    logits[11, 2] = 1

    def right() -> bool:
        (found,) = answered(question, logits, chunk)
        assert (found.distance, found.candidates) == (7, 4)
        return found.right

    assert not right()  # all alike at the first fork
    logits[10, 6] = 1
    assert right()
    logits[10, 7] = 1
    assert not right()
    logits[10, 7] = 0
    logits[11, 4] = 1
    assert not right()
    assert answered(question, logits[:11], chunk) == ()  # cut off before its end


class Letters:
    """A tokenizer whose tokens are characters."""

    def __call__(self, text: str, **how: Any) -> dict[str, Any]:
        places = [(n, n + 1) for n in range(len(text))]
        return {"input_ids": list(map(ord, text)), "offset_mapping": places}


def greedy(text: str, candidates: list[str], logits: Tensor) -> str:
    """The candidate that a greedy decoder writes after ``text``, held to candidates, by letters.

    ``logits`` (T, V) are those after each token of the text and what it wrote; ``!`` ends one.
    """
    written = ""
    while not written.endswith("!"):
        begun = [each + "!" for each in candidates if (each + "!").startswith(written)]
        letters = sorted({each[len(written)] for each in begun})
        at = len(text) + len(written) - 1
        values = [float(logits[at, ord(letter)]) for letter in letters]
        written += letters[values.index(max(values))]
    return written[:-1]


def test_right_is_what_a_greedy_decoder_held_to_the_candidates_would_write() -> None:
    words = ["ten", "tenth", "tea", "too", "one"]
    found = []
    for seed, right in ((seed, n) for seed in range(30) for n in range(len(words))):
        logits = torch.randn(40, 128, generator=torch.Generator().manual_seed(seed))
        lead, text = "say: ", f"say: {words[right]}!"
        asked = Question(None, len(lead), right, tuple(words))
        corpus = Corpus("mine", "as given", [Document("mine", text, (asked,))])
        (document,) = tokenize(corpus, Letters(), None).documents
        (answer,) = answered(document.questions[0], logits, 3)
        assert answer.right == (greedy(lead, words, logits) == words[right])
        assert (answer.distance, answer.candidates) == (None, 5)
        found.append(answer.right)
    assert sum(found) == 30  # just one of the five is written, whatever the logits


def by_hand(loaded: Loaded, document: TokenDocument) -> list[Answer]:
    """Answers by the logits of the whole text at once, found by reading it back."""
    tokenizer = loaded.tokenizer
    first = [tokenizer(f": {n}", add_special_tokens=False)["input_ids"][1] for n in NUMBERS]
    with torch.inference_mode():
        logits = loaded.model(document.ids[None]).logits[0]
    answers = []
    for told, at, answer in read_back(tokenizer, document.ids):
        best = NUMBERS[int(logits[at, first].argmax())]
        answers.append(Answer(distance=at - told, candidates=10, right=best == answer))
    return answers


@pytest.mark.parametrize(
    "how",
    [{"mode": "chunked"}, {"mode": "chunked", "batch_size": 2}, {"mode": "decode-loop"}],
    ids=str,
)
def test_what_a_run_answers_is_what_an_independent_count_finds(
    neox: Loaded, how: dict[str, Any]
) -> None:
    found = documents("recall", neox.tokenizer, 500, per_document=330)
    result = evaluate(neox, found, method="dense", **how)
    want = [answer for document in found for answer in by_hand(neox, document)]
    assert list(result.answers) == want
    right = sum(answer.right for answer in want)
    assert 0 < right < len(want)
    assert result.questions == len(want)
    assert result.chance == pytest.approx(0.1)
    assert result.accuracy == right / len(want)
    assert (result.accuracy_low, result.accuracy_high) == wilson(right, len(want))


def test_a_text_without_questions_has_no_accuracy(neox: Loaded, neox_ids: Tensor) -> None:
    result = evaluate(neox, [neox_ids[0, :40]], mode="chunked")
    assert result.answers == ()
    assert result.questions is result.accuracy is result.accuracy_low is result.chance is None


@pytest.mark.parametrize("mode", ["chunked", "decode-loop"])
def test_a_window_that_copies_what_it_holds_is_right_up_to_its_end_and_never_beyond(
    thin: Loaded, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    width = 64
    (document,) = documents("recall", thin.tokenizer, 600)
    lines: list[str] = [""]
    for token in document.ids.tolist():  # what has been read of each line, token by token
        lines.append((lines[-1] + thin.tokenizer.decode([token])).rpartition("\n")[2])
    copied = torch.zeros(len(document.ids), 4096)
    last: dict[str, int] = {}
    for t in range(len(document.ids) - 1):
        line = lines[t + 1]
        if line.endswith(":"):
            if line in last and t - last[line] <= width:
                copied[t, document.ids[last[line]]] = 1
            last[line] = t + 1
    real = registry.load("method", "window").start

    def start(self: Method, loaded: Loaded, batch: int) -> Any:
        stream, at = real(self, loaded, batch), 0
        feed = stream.feed

        def feed_and_copy(ids: Tensor, keep: int = 0) -> Tensor:
            nonlocal at
            feed(ids, keep)
            at += ids.shape[1]
            return copied[None, at - ids.shape[1] : at]

        monkeypatch.setattr(stream, "feed", feed_and_copy)
        return stream

    monkeypatch.setattr(registry.load("method", "window"), "start", start)
    result = evaluate(
        thin, [document], method="window", n_sink=0, window=width, mode=mode, engine="eager"
    )
    held = {((each.distance or 0) <= width, each.right) for each in result.answers}
    assert held == {(True, True), (False, False)}


@pytest.mark.parametrize(("right", "asked"), [(0, 7), (3, 10), (8, 10), (50, 100), (9, 9)])
def test_the_ends_of_an_interval_are_as_far_from_the_share_as_their_own_error_says(
    right: int, asked: int
) -> None:
    low, high = wilson(right, asked)
    assert 0 <= low <= right / asked <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            error = math.sqrt(end * (1 - end) / asked)
            assert abs(right / asked - end) == pytest.approx(1.959964 * error, rel=1e-6)
    answers = [Answer(distance=1, candidates=2, right=n < right) for n in range(asked)]
    assert accuracy(answers) == (right / asked, low, high)


def test_dense_attention_of_a_real_model_recalls_and_streaming_forgets(smollm2: Loaded) -> None:
    (document,) = documents("recall", smollm2.tokenizer, 400)
    for method, most, chunk in (("dense", 1.0, 399), ("streaming", 0.4, 16)):
        result = evaluate(
            smollm2, [document], method=method, window=28, mode="chunked", chunk_size=chunk
        )
        near = [answer for answer in result.answers if (answer.distance or 0) <= 32]
        far = [answer for answer in result.answers if (answer.distance or 0) > 48]
        assert accuracy(near)[0] > 0.6 and len(far) > 8
        assert accuracy(far)[0] <= most
        if method == "dense":
            assert accuracy(far)[0] > 0.6
