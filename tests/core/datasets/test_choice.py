"""Streams of multiple choice: what is asked, of which tokens, and which lines are refused."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from core.datasets import choice
from core.errors import UsageError
from core.packaged import bundled
from core.tokens import open_corpus, tokenize

ROW = {"question": "What barks?", "choices": ["a cat", "a dog", "a door"], "answer": "a dog"}


def test_each_round_is_a_question_and_its_true_answer_and_stands_alone_or_in_one_stream() -> None:
    (stream,) = open_corpus("choice", "bundled").documents
    alone = list(open_corpus("choice-alone", "bundled").documents)
    assert stream.text == "".join(each.text for each in alone)
    rows = [json.loads(line) for line in bundled(choice.FILE).read_text().splitlines()]
    assert len(rows) == len(alone) == len(stream.questions)
    for row, document, asked in zip(rows, alone, stream.questions, strict=True):
        (question,) = document.questions
        assert document.text == f"Question: {row['question']}\nAnswer: {row['answer']}\n\n"
        assert question.told is None and list(question.candidates) == row["choices"]
        assert row["choices"][question.right] == row["answer"]
        for text, each in ((document.text, question), (stream.text, asked)):
            assert text[each.asked :].startswith(f"{row['answer']}\n\n")


def test_the_bundled_questions_have_four_options_and_the_right_one_at_every_place_alike() -> None:
    (stream,) = open_corpus("choice", "bundled").documents
    places = Counter(each.right for each in stream.questions)
    assert {len(each.candidates) for each in stream.questions} == {4}
    assert max(places.values()) - min(places.values()) <= 1
    assert len({stream.text[each.asked - 60 : each.asked] for each in stream.questions}) == 110


@pytest.mark.parametrize("spec", ["choice", "choice-alone"])
def test_options_are_held_apart_wherever_they_part_in_the_stream_itself(spec: str) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(bundled("model"))
    corpus = open_corpus(spec, "bundled")
    stream = tokenize(corpus, tokenizer, 10_000)
    asked = [(document, each) for document in stream.documents for each in document.questions]
    assert len(asked) == 110
    rows = [json.loads(line) for line in bundled(choice.FILE).read_text().splitlines()]
    for (document, question), row in zip(asked, rows, strict=True):
        assert question.candidates == 4 and question.distance is None
        for fork in question.forks:
            assert document.ids[fork.at + 1] == fork.right not in fork.others
        true, *others = (
            tokenizer(f"Answer: {words}\n\nQuestion", add_special_tokens=False)["input_ids"]
            for words in sorted(row["choices"], key=lambda each: each != row["answer"])
        )
        left = set()
        for ids in others:
            place = next(n for n in range(len(true)) if ids[n] != true[n])
            left.add((place, true[place], ids[place]))
        shift = question.at - min(place for place, _, _ in left)
        found = {(f.at, f.right, other) for f in question.forks for other in f.others}
        assert found == {(place + shift, right, other) for place, right, other in left}


def test_a_file_of_ones_own_is_asked_as_the_bundled_one_is(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(json.dumps(ROW) + "\n\n" + json.dumps(ROW | {"answer": "a cat"}) + "\n")
    corpus = open_corpus(f"choice:{file}", "bundled")
    (document,) = corpus.documents
    assert document.text.count("What barks?") == 2 and "2 questions of mine.jsonl" in corpus.form
    assert [each.right for each in document.questions] == [1, 0]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "is not JSON"),
        ("[1]", "has no question"),
        (ROW | {"question": " "}, "has no question"),
        (ROW | {"question": "What\nbarks?"}, "has no question"),
        (ROW | {"question": "\ud83d"}, "has no question"),
        (ROW | {"choices": "a dog"}, "has no choices"),
        (ROW | {"choices": ["a dog"]}, "has no choices"),
        (ROW | {"choices": ["a dog", 3]}, "has no choices"),
        (ROW | {"choices": ["a dog", " a dog"]}, "has a choice twice"),
        (ROW | {"answer": "a door frame"}, "has the answer 'a door frame', which is none of its"),
        (ROW | {"answer": 1}, "has the answer 1, which is none of its"),
    ],
)
def test_a_line_that_is_no_question_is_refused_with_its_number_and_what_a_line_is(
    tmp_path: Path, line: Any, said: str
) -> None:
    file = tmp_path / "mine.jsonl"
    text = line if isinstance(line, str) else json.dumps(line)
    file.write_text(f"{json.dumps(ROW)}\n{text}\n")
    with pytest.raises(UsageError) as caught:
        open_corpus(f"choice:{file}", "bundled")
    message = str(caught.value)
    assert f"{file}: line 2 {said}" in message and "a line is an object of question" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("part", "said"),
    [("", "comes a .jsonl file"), ("mine.txt", "a .jsonl file"), ("none.jsonl", "there is no")],
)
def test_what_is_no_file_of_questions_is_refused(part: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        open_corpus(f"choice:{part}", "bundled")


def test_of_other_options_the_same_text_is_another_task(tmp_path: Path) -> None:
    """Or a finished run would stand for a file whose wrong options were changed since."""
    tokenizer: Any = AutoTokenizer.from_pretrained(bundled("model"))
    found = []
    for choices in (ROW["choices"], ["a bird", "a dog", "a door"], ["a dog", "a door"]):
        file = tmp_path / "mine.jsonl"
        file.write_text(json.dumps(ROW | {"choices": choices}))
        found.append(tokenize(open_corpus(f"choice:{file}", "bundled"), tokenizer, 100))
    assert len({tuple(each.documents[0].ids.tolist()) for each in found}) == 1
    assert len({each.sha256 for each in found}) == 3
