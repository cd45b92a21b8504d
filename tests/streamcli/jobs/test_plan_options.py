"""Plans with options of single methods and budgets in MiB, for which methods are imported."""

from __future__ import annotations

import pytest

from core.errors import UsageError
from streamcli import cli
from tests.support.plans import planned

pytestmark = pytest.mark.usefixtures("home")


def test_budgets_in_mib_are_a_list_and_leave_the_window_open() -> None:
    methods = ["streaming", "window", "streaming-int", "recompute", "dense"]
    found = planned(
        methods=methods,
        budgets_mib=[2.5, 8.0],
        n_sinks=[0, 4],
        modes=["chunked"],
        datasets=["pg19"],
    )
    arms = [(arm.method, arm.n_sink, arm.window, arm.budget_mib) for arm in found.arms]
    assert len(arms) == len(set(arms)) == 2 * 2 + 2 + 2 * 2 + 2 + 1
    assert {arm[2] for arm in arms} == {None}
    assert [arm[3] for arm in arms if arm[0] == "recompute"] == [2.5, 8.0]
    assert [arm[3] for arm in arms if arm[0] == "dense"] == [None]
    with pytest.raises(UsageError, match="--budget-mib is 4.0, but no run of this sweep has it"):
        planned(methods=["dense"], budgets_mib=[4.0])


def test_an_option_that_one_method_has_takes_several_values() -> None:
    param = ["kv_bits=8", "kv-bits=4", "kv_bits=8"]
    found = planned(methods=["streaming", "streaming-int"], param=param, modes=["chunked"])
    of = {(arm.method, arm.param) for arm in found.arms}
    assert of == {
        ("streaming", ()),
        *(("streaming-int", (("kv_bits", bits),)) for bits in (8, 4)),
    }
    names = {found.name(arm, turn) for arm, turn in found}
    assert {"streaming-int chunked on pg19, kv_bits 4", "streaming chunked on pg19"} <= names


@pytest.mark.parametrize(
    ("typed", "spread"),
    [
        ("--kv-bits 8 4 --windows 20", "--param kv-bits=8 --param kv-bits=4 --windows 20"),
        ("--kv-bits 8,4", "--param kv-bits=8 --param kv-bits=4"),
        ("--kv-bits=8 4", "--param kv-bits=8 --param kv-bits=4"),
        ("--kv-bits --windows 20", "--param kv-bits= --windows 20"),
    ],
)
def test_such_an_option_is_typed_as_a_list_is(typed: str, spread: str) -> None:
    words = ["sweep", "--methods", "streaming-int"]
    assert cli.spread([*words, *typed.split()]) == [*words, *spread.split()]
