"""The page: what it shows, that it needs nothing else, and that it survives odd input."""

import json
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from qwen3_vllm.bench import Bar, Plan, Result, Series, spread
from qwen3_vllm.bench.measure import Round
from qwen3_vllm.cli import app
from qwen3_vllm.doctor import Check, as_json
from qwen3_vllm.errors import InputError
from qwen3_vllm.report import bench_svg, report_html
from qwen3_vllm.report.charts import Mark, range_chart, strip_chart

HOSTILE = "<script>alert(1)</script>&\"'"


def bench_result(client: str = "qwen3-vllm, numpy") -> dict:
    turns = (Round((0.01, 0.02), 0.004), Round((0.01, 0.03), 0.005))
    series = tuple(
        Series(case, name, 128, turns)
        for case in ("documents", "query", "rerank")
        for name in (client, "bare aiohttp")
    )
    bar = Bar("CPU µs a document", "≤ 25", spread([20.0, 21.0]), met=True)
    return Result(Plan(), {"python": "3.11"}, series, bars=(bar,)).as_json()


def doctor_result(seen: str = "right") -> dict:
    values = {"through this client": [0.1, 0.9], "raw query and document": [0.99, 0.98]}
    return as_json(
        [
            Check("embedding.unit norm", "ok", seen),
            Check("reranker.template", "fail", seen, advice="Restart it"),
            Check("reranker.scores", "ok", seen, values=values),
        ]
    )


class Page(HTMLParser):
    """Collects tags and the addresses that a page would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]


@pytest.mark.parametrize("result", [bench_result(), doctor_result()], ids=["bench", "doctor"])
def test_a_page_loads_nothing(result: dict) -> None:
    text = report_html(result)
    page = Page(text)

    assert page.addresses == []
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert "@import" not in text
    assert "url(" not in text


@pytest.mark.parametrize("result", [bench_result(), doctor_result()], ids=["bench", "doctor"])
def test_a_page_follows_the_readers_scheme(result: dict) -> None:
    assert "prefers-color-scheme: dark" in report_html(result)


def test_a_bench_page_has_a_plot_of_each_figure() -> None:
    text = report_html(bench_result())

    assert Page(text).tags.count("svg") == 3 + 2 + 2
    assert "throughput" in text
    assert "≤\N{NO-BREAK SPACE}25" in text


def test_a_doctor_page_has_the_scores_of_right_and_wrong_prompts() -> None:
    text = report_html(doctor_result())

    assert Page(text).tags.count("svg") == 1
    assert text.count('class="dot"') == 2
    assert text.count('class="wrong"') == 2
    assert "Doctor: 1 failed check" in text
    assert "Restart it" in text


@pytest.mark.parametrize("result", [bench_result(HOSTILE), doctor_result(HOSTILE)], ids=["bench", "doctor"])
def test_what_a_server_says_is_shown_as_text(result: dict) -> None:
    text = report_html(result)

    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text


@pytest.mark.parametrize(
    "result", [{}, {"kind": "other"}, {"kind": "bench"}, {"kind": "doctor", "checks": 3}]
)
def test_what_is_no_result_is_refused(result: dict) -> None:
    with pytest.raises(InputError):
        report_html(result)


def test_a_plot_file_is_valid_svg() -> None:
    root = ElementTree.fromstring(bench_svg(bench_result(HOSTILE)))

    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(root.findall("{http://www.w3.org/2000/svg}svg")) == 7


def test_values_that_differ_much_are_drawn_on_a_logarithmic_axis() -> None:
    chart = ElementTree.fromstring(
        range_chart("t", [Mark("a", 10, 10, 10), Mark("b", 4000, 4000, 4000)], "µs")
    )

    ticks = [
        each.text for each in chart.iter("{http://www.w3.org/2000/svg}text") if each.get("class") == "tick"
    ]
    assert ticks == ["10", "100", "1,000", "10,000"]


@pytest.mark.parametrize("value", [0.0, 0.37, 1.0])
def test_scores_lie_where_their_axis_says(value: float) -> None:
    chart = ElementTree.fromstring(strip_chart("t", {"right": [value], "edges": [0.0, 1.0]}, "right"))

    low, high = (float(c.get("cx", "")) for c in chart.iter() if c.get("class") == "wrong")
    (x,) = (float(c.get("cx", "")) for c in chart.iter() if c.get("class") == "dot")
    assert x == pytest.approx(low + value * (high - low), abs=0.1)


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    source, page = tmp_path / "doctor.json", tmp_path / "page.html"
    source.write_text(json.dumps(doctor_result()))

    ended = CliRunner().invoke(app, ["report", str(source), "-o", str(page)])

    assert ended.exit_code == 0, ended.output
    assert page.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("content", [None, "not JSON", "[]", '{"kind": "other"}'])
def test_the_command_refuses_what_it_cannot_read(content: str | None, tmp_path: Path) -> None:
    source = tmp_path / "result.json"
    if content is not None:
        source.write_text(content)

    ended = CliRunner().invoke(app, ["report", str(source), "-o", str(tmp_path / "page.html")])

    assert ended.exit_code == 2
    assert not (tmp_path / "page.html").exists()
