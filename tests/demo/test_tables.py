"""What the demo prints of a ranking."""

import io

import pytest
from rich.console import Console

from demo.tables import Ranked, ranking, shorten


@pytest.mark.parametrize(
    ("text", "cells", "expected"),
    [
        ("fits", 4, "fits"),
        ("Season a cast-iron pan with oil", 20, "Season a cast-iron …"),
        ("Season a cast-iron pan with oil", 18, "Season a …"),
        ("绿茶不经发酵，鲜叶采下后杀青", 19, "绿茶不经发酵， …"),
        ("unbreakable" * 3, 10, "unbreaka …"),
    ],
)
def test_a_text_is_cut_between_words(text: str, cells: int, expected: str) -> None:
    assert shorten(text, cells) == expected


def test_movement_and_answers_show_without_colour() -> None:
    passages = [
        Ranked("rose", before=3, cosine=0.2, relevance_score=0.9, is_answer=True),
        Ranked("stayed", before=2, cosine=0.3, relevance_score=0.5, is_answer=False),
        Ranked("fell", before=1, cosine=0.4, relevance_score=0.1, is_answer=False),
    ]
    console = Console(file=io.StringIO(), width=80, record=True)
    console.print(ranking("question", passages))
    rows = [line.split() for line in console.export_text().splitlines()]
    assert ["✓", "1", "▲", "2", "0.9000", "0.2000", "rose"] in rows
    assert ["2", "=", "0.5000", "0.3000", "stayed"] in rows
    assert ["3", "▼", "2", "0.1000", "0.4000", "fell"] in rows
