"""Every family is exact or refused, as docs/models.md says."""

from __future__ import annotations

import warnings

import pytest

from core.errors import UsageError
from core.models import anatomy
from tests.support import families, generate_cases, models_page

COLUMNS, CELLS = models_page.read()


QUICK = ("llama", "gpt_neox", "gemma2", "deepseek_v3", "gpt2")  # one of each kind


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in families.known()
    ],
)
@pytest.mark.slow
def test_a_family_is_refused_or_exact_and_generates_so_as_the_page_says(name: str) -> None:
    with warnings.catch_warnings(action="ignore"):  # of what its code imports
        model = families.build(name)
    found = models_page.look(model, length=28)
    assert not found.exact or found.largest < models_page.EXACT, found
    if models_page.column() in COLUMNS:
        written = CELLS[name][models_page.column()]
        assert written.split(",")[0].split(":")[0].split(";")[0] == (
            "exact" if found.exact else "refused"
        )
        assert written.endswith("; not dense") != found.dense
    if found.exact:
        try:
            generate_cases.family(model)
        except UsageError as refused:
            assert "that every layer of this model has" in str(refused)


@pytest.mark.slow
def test_no_family_that_streams_is_refused_by_its_configuration() -> None:
    for name in families.known():
        if CELLS[name].get(models_page.column(), "").startswith("exact"):
            anatomy.check_config(families.config(name))


@pytest.mark.slow
def test_every_other_family_is_refused_by_its_configuration_before_weights_are_read() -> None:
    for name in families.known():
        written = CELLS[name].get(models_page.column(), "")
        if written.startswith("refused: "):
            with warnings.catch_warnings(action="ignore"), pytest.raises(UsageError) as refused:
                anatomy.check_config(families.config(name))
            found = str(refused.value).partition("can't stream: ")[2]
            assert found[:25] == written.removeprefix("refused: ")[:25], name


MUST = (
    *("llama", "qwen2", "qwen3", "mistral", "mixtral", "gemma", "gemma2", "gemma3_text", "phi"),
    *("phi3", "stablelm", "olmo", "olmo2", "olmo3", "granite", "smollm3", "exaone4", "gpt_neox"),
    *("gptj", "cohere", "cohere2", "glm4", "deepseek_v3", "ministral3", "gpt_oss", "llama4_text"),
)


def test_the_page_shows_each_promised_family_as_exact_under_two_versions() -> None:
    assert len(COLUMNS) >= 2
    for column in COLUMNS:
        exact = [name for name, row in CELLS.items() if row.get(column, "").startswith("exact")]
        assert set(MUST) <= set(exact), column
        assert len(exact) >= 45
        assert not any("WRONG" in row.get(column, "") for row in CELLS.values())
