"""Set-ups: all that can be combined, each with a name of what is its own."""

from typing import Any

import pytest

from qwen3_vllm.errors import ConfigurationError
from qwen3_vllm.evaluation.results import names_of
from qwen3_vllm.evaluation.set_ups import Choices, SetUp, letter

ONE: dict[str, Any] = {
    "instructions": ["find"],
    "dimensions": [],
    "vectors": ["float32"],
    "candidates": [0],
    "rerankers": {},
}


def combined(widths: dict[str, int] | None = None, **lists: Any) -> list[SetUp]:
    widths = widths or {"e": 16}
    return Choices(widths, **{**ONE, **lists}).combined(widths)[0]  # type: ignore[arg-type]  # for clients


def test_everything_is_combined() -> None:
    found = combined(
        {"a": 16, "b": 16},
        instructions=["x", "y"],
        dimensions=[16, 8],
        vectors=["float32", "int8", "binary"],
        candidates=[0, 5, 10],
        rerankers={"r": None, "s": None},
    )
    assert len(found) == len(set(found)) == 2 * 2 * 2 * 3 * (1 + 2 * 2)
    assert {(each.candidates, each.reranker) for each in found} == {
        (0, None), (5, "r"), (5, "s"), (10, "r"), (10, "s")
    }  # fmt: skip


def test_dimensions_are_the_servers_own_unless_listed() -> None:
    assert [each.dimensions for each in combined({"small": 16, "big": 64})] == [16, 64]


def test_dimensions_that_one_server_lacks_are_left_out_with_a_warning() -> None:
    widths: Any = {"small": 16, "big": 64}

    found, warnings = Choices(widths, **{**ONE, "dimensions": [64, 16]}).combined(widths)

    assert [(each.embedding, each.dimensions) for each in found] == [("small", 16), ("big", 64), ("big", 16)]
    assert warnings == ["small has vectors of 16 dimensions: not measured with 64"]


@pytest.mark.parametrize(
    ("lists", "said"),
    [
        ({"dimensions": [17]}, "dimensions=17: e has vectors of 16"),
        ({"dimensions": [0]}, "dimensions must be 1 or more"),
        ({"candidates": [-1]}, "candidates 0 or more"),
        ({"candidates": [20]}, "candidates=20 needs a reranker"),
        ({"candidates": []}, "candidates is empty"),
        ({"instructions": []}, "instructions is empty"),
        ({"vectors": ["int4"]}, "vectors='int4': use float32, int8, binary"),
        ({"vectors": ["int8", "int8"]}, "vectors lists a value twice"),
    ],
)
def test_what_cannot_be_is_refused(lists: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        combined(**lists)


def test_a_name_says_what_differs_and_no_more() -> None:
    found = combined(
        dimensions=[16, 8], vectors=["float32", "binary"], candidates=[0, 5], rerankers={"r": None}
    )
    assert names_of(found, ["find"])[:3] == [
        "16 float32, search alone",
        "16 float32, rerank 5",
        "16 binary, search alone",
    ]
    assert names_of(combined(instructions=["x", ""]), ["x", ""]) == ["A", "B"]
    two = combined({"0.6B": 8, "8B": 8}, candidates=[5], rerankers={"small": None, "big": None})
    assert names_of(two, ["find"]) == [
        "0.6B, rerank 5 by small", "0.6B, rerank 5 by big", "8B, rerank 5 by small", "8B, rerank 5 by big"
    ]  # fmt: skip
    assert names_of(combined(), ["find"]) == ["the only one"]


def test_letters_do_not_end() -> None:
    assert [letter(index) for index in (0, 25, 26, 52)] == ["A", "Z", "A2", "A3"]
