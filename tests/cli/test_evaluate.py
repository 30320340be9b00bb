"""`qwen3-vllm evaluate`, as a user and as a script meet it."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from qwen3_vllm.cli import _evaluation, app
from qwen3_vllm.cli._terminal import Console

from ..faults import SocketServer


@pytest.fixture(autouse=True)
def _servers(
    embedding_server: SocketServer,
    rerank_server: SocketServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("QWEN3_EMBEDDING_URL", embedding_server.base_url)
    monkeypatch.setenv("QWEN3_RERANKER_URL", rerank_server.base_url)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    lines = ["question,passage", *(f"Who is {n}?,Number {n} is {n * n}." for n in range(30))]
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    return tmp_path / "pairs.csv"


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


GRID = ("--dimensions", "16,8", "--vectors", "float32,int8", "--candidates", "0,5")


def test_json_has_all_that_was_measured(pairs: Path, tmp_path: Path) -> None:
    done = run(pairs, *GRID, "--json", "--precision", "0.1", "--compare", "1,2", "--seed", "3")

    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["metric"] == "nDCG@10"
    assert found["seed"] == 3
    assert len(found["set_ups"]) == 8
    assert found["set_ups"][0]["set_up"]["dimensions"] == 16
    assert len(found["set_ups"][0]["values"]["nDCG@10"]) == 30
    assert found["thresholds"]
    assert found["comparisons"][0]["p_value"] <= 1
    assert len(found["verdict"]) == 2
    assert (tmp_path / "pairs.csv.evaluation").is_dir()


@pytest.mark.parametrize("width", [80, 160])
def test_a_table_fits_the_terminal(pairs: Path, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_evaluation, "out", Console(width=width))

    done = run(pairs, *GRID, "--recall", "0.9", "--instruction", "Find it", "--instruction", "Find that")

    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= width
    rows = [line for line in lines if "rerank 5" in line or "search alone" in line]
    assert len([row for row in rows if "0." in row]) >= 16
    assert ("Success@1" in done.stdout) == (width == 160)
    assert "A: Find it" in done.stdout
    assert "recall 0.9" in done.stdout


def test_the_table_ends_with_the_verdict(pairs: Path) -> None:
    done = run(pairs, "--candidates", "0")
    assert "nothing was compared" in done.stdout.splitlines()[-1]


def test_a_page_is_written_too(pairs: Path, tmp_path: Path) -> None:
    assert run(pairs, "--candidates", "0", "--html", tmp_path / "page.html").exit_code == 0
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_servers_have_names(pairs: Path, embedding_server: SocketServer, rerank_server: SocketServer) -> None:
    url, other = embedding_server.base_url, rerank_server.base_url
    servers = ("--embedding", f"small={url}", "--embedding", f"big={url}", "--reranker", f"big={other}")
    found = json.loads(run(pairs, *servers, "--candidates", "5", "--json").stdout)
    assert found["servers"] == {"embedding": {"small": url, "big": url}, "reranker": {"big": other}}
    assert [each["name"] for each in found["set_ups"]] == ["small", "big"]


def test_a_sheet_is_made_and_read_back(pairs: Path, tmp_path: Path) -> None:
    made = run(pairs, "--candidates", "0", "--sample", "sheet.csv", "--sample-depth", "2")
    assert made.exit_code == 0, made.output
    assert "60 rows to label in sheet.csv" in made.stderr
    sheet = tmp_path / "sheet.csv"
    lines = sheet.read_text("utf-8-sig").splitlines()
    sheet.write_text("\n".join([lines[0], *(f"{line}yes" for line in lines[1:])]))
    done = run(pairs, "--candidates", "0", "--judgements", sheet, "--json")
    assert json.loads(done.stdout)["set_ups"][0]["metrics"]["Success@1"]["value"] == 1.0


def test_warnings_go_to_standard_error(pairs: Path) -> None:
    pairs.write_text(pairs.read_text() + "\nWho is 0?,Number 0 is 0.\n")
    done = run(pairs, "--candidates", "0", "--json")
    assert json.loads(done.stdout)["warnings"]
    assert "warning: 1 repeated pair in" in done.stderr


HERE, THERE = "http://127.0.0.1:1", "http://127.0.0.1:2"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--candidates", "many"], "--candidates many: use whole numbers"),
        (["--dimensions", "99"], "dimensions=99"),
        (["--vectors", "int4"], "use float32, int8, binary"),
        (["--metrics", "nDGC@10"], "is not a metric of ir_measures"),
        (["--compare", "1"], "--compare 1: use two numbers"),
        (["--compare", "1,9"], "there is no set-up 9"),
        (["--embedding", HERE, "--embedding", THERE], "name each of several servers"),
        (["--embedding", f"a={HERE}", "--embedding", f"a={THERE}"], "a name of its own"),
        (["--embedding", "a=localhost"], "base_url must look like"),
        (["--html", "/nowhere/page.html"], "there is no folder /nowhere"),
        (["--judgements", "nowhere.tsv"], "cannot be read"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(pairs: Path, arguments: list[str], said: str) -> None:
    done = run(pairs, *arguments)
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert said in done.stderr


def test_data_that_are_not_there_are_refused() -> None:
    done = run("nowhere")
    assert (done.exit_code, done.stderr) == (2, "error: nowhere is not there\n")


def test_a_server_that_is_not_there_is_a_failure(pairs: Path) -> None:
    done = run(pairs, "--embedding", "http://127.0.0.1:9")
    assert done.exit_code == 1
    assert "the same command resumes" in done.stderr
