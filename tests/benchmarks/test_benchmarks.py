"""The bench: its arithmetic, its canned server, and that a run has every client and every figure."""

import gc
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests
from typer.testing import CliRunner

from benchmarks import clients as contestants
from benchmarks.__main__ import app
from benchmarks.bars import with_bars
from benchmarks.canned import canned_server
from benchmarks.load import app as load_app
from benchmarks.measure import Case, Plan, Result, Round, Series, ratio, rounds, spread
from benchmarks.run import run_bench
from qwen3_vllm import EmbeddingClient, RerankClient
from qwen3_vllm.errors import ConfigurationError, Qwen3VLLMError
from tests.fake_vllm import FakeVLLM
from tests.faults import serve

SMALL = ["--documents", "4", "--calls", "1", "--rounds", "1", "--queries", "1", "--rankings", "1"]


@pytest.fixture(autouse=True)
def _no_collections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what comes before each turn for the sake of the figures: it takes longer than the turn."""
    monkeypatch.setattr(gc, "collect", lambda: 0)


@pytest.fixture(scope="module")
def canned() -> Iterator[str]:
    """A canned server."""
    with canned_server() as url:
        yield url


def series(client: str, *turns: tuple[float, float], case: Case = "documents", size: int = 100) -> Series:
    """One call per round; `turns` are its seconds and its seconds of CPU."""
    return Series(case, client, size, tuple(Round((wall,), cpu) for wall, cpu in turns))


# --- arithmetic ----------------------------------------------------------------------------------------


def test_figures_are_for_a_document_and_a_second() -> None:
    measured = Series("documents", "a", 100, (Round((0.1, 0.3), 0.02),))

    assert measured.per_second == (500,)
    assert measured.cpu_us == pytest.approx((100,))
    assert measured.latency_ms(50) == pytest.approx(200)


def test_ratios_hold_within_a_round() -> None:
    # The machine was ten times slower in the second round, for both.
    assert ratio([6, 60], [2, 20]) == spread([3, 3])


def test_a_result_has_each_client_as_times_the_first() -> None:
    first, other = series("a", (1, 2), (10, 20)), series("b", (2, 6), (20, 60))

    row = Result(Plan(), {}, (first, other)).as_json()["results"][1]

    assert row["speed_ratio_to_first"] == {"median": 0.5, "low": 0.5, "high": 0.5}
    assert row["cpu_ratio_to_first"] == {"median": 3.0, "low": 3.0, "high": 3.0}


def test_every_client_has_its_turn_and_none_is_always_first() -> None:
    order: list[str] = []
    clients = {name: (lambda name=name: order.append(name)) for name in ("a", "b", "c")}

    measured = rounds("query", 1, 1, 3, clients)

    assert order == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]
    assert [(each.client, len(each.rounds)) for each in measured] == [("a", 3), ("b", 3), ("c", 3)]


def bars_of(*measured: Series, canned: bool) -> dict[str, bool]:
    result = with_bars(Result(Plan(), {}, measured), canned=canned)
    return {bar.name: bar.met for bar in result.bars}


@pytest.mark.parametrize(("microseconds", "met"), [(39, True), (41, False)])
def test_cpu_is_promised_in_microseconds_a_document(microseconds: float, met: bool) -> None:
    ours = series(contestants.OUR_LISTS, (1, microseconds * 1e-4))

    assert bars_of(ours, canned=True) == {"qwen3-vllm, LangChain: CPU µs per document": met}


@pytest.mark.parametrize(("times", "met"), [(5.1, True), (4.9, False)])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (contestants.OUR_LISTS, contestants.LANGCHAIN),
        (contestants.OUR_LLAMA_INDEX, contestants.LLAMA_INDEX),
    ],
)
def test_cpu_is_promised_as_a_part_of_the_frameworks_own_class(
    ours: str, theirs: str, times: float, met: bool
) -> None:
    bars = bars_of(series(ours, (1, 1e-4)), series(theirs, (1, times * 1e-4)), canned=True)

    assert bars[f"CPU of {theirs} over {ours}"] is met


@pytest.mark.parametrize(("seconds", "met"), [(1.04, True), (1.07, False)])
def test_throughput_is_promised_beside_bare_requests(seconds: float, met: bool) -> None:
    bars = bars_of(
        series(contestants.OUR_NUMPY, (seconds, 1)), series(contestants.BARE, (1, 1)), canned=False
    )

    assert list(bars.values()) == [met]


@pytest.mark.parametrize(("milliseconds", "met"), [(2.9, True), (3.1, False)])
def test_a_query_may_take_a_millisecond_more_than_raw(milliseconds: float, met: bool) -> None:
    raw = series(contestants.REQUESTS, (2e-3, 1), case="query", size=1)
    ours = series(contestants.ASYNC, (milliseconds * 1e-3, 1), case="query", size=1)

    assert list(bars_of(raw, ours, canned=True).values()) == [met]


@pytest.mark.parametrize(("seconds", "met"), [(1.09, True), (1.11, False)])
def test_a_ranking_is_held_against_the_best_split(seconds: float, met: bool) -> None:
    ours = series(contestants.OUR_RANKING, (seconds, 1), case="rerank", size=1)
    splits = [
        series(contestants.split_name(count), (wall, 1), case="rerank", size=1)
        for count, wall in ((1, 2.0), (10, 1.0), (100, 3.0))
    ]

    assert bars_of(ours, *splits, canned=False) == {
        "time of qwen3-vllm, rerank over the best split (bare aiohttp, 10 requests)": met
    }


# --- the canned server ---------------------------------------------------------------------------------


def test_the_canned_server_gives_unit_vectors_of_real_size(canned: str) -> None:
    vectors = EmbeddingClient(base_url=canned).embed_documents([f"text {n}" for n in range(40)])

    assert vectors.shape == (40, 1024)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_the_canned_server_gives_half_precision_too(canned: str) -> None:
    whole, half = (
        EmbeddingClient(base_url=canned, wire_dtype=dtype).embed_documents(["a", "b"])
        for dtype in ("float32", "float16")
    )

    assert not np.array_equal(whole, half)
    np.testing.assert_allclose(whole, half, atol=1e-3)


@pytest.mark.parametrize("encoding", ["float", "base64", "bytes_only"])
def test_the_canned_server_speaks_every_encoding(canned: str, encoding: str) -> None:
    body = {"model": "canned", "input": ["a", "b"], "encoding_format": encoding}
    answer = requests.post(f"{canned}/v1/embeddings", json=body, timeout=10)

    if encoding == "bytes_only":
        assert len(answer.content) == 2 * 1024 * 4
    else:
        assert [item["index"] for item in answer.json()["data"]] == [0, 1]


def test_the_canned_server_passes_for_a_qwen3_reranker(canned: str) -> None:
    ranked = RerankClient(base_url=canned).rerank("query", ["one", "two", "three"])

    assert sorted(result.index for result in ranked) == [0, 1, 2]


def test_a_paced_server_embeds_at_its_rate() -> None:
    with canned_server(rate=1000) as url:
        result = run_bench(
            Plan(url, documents=256, calls=1, rounds=1, batch=32, queries=1, only=("bare aiohttp",))
        )

    assert result.of("documents")[0].per_second[0] <= 1100  # a busy machine may be slower


def test_the_canned_server_ends_with_its_block() -> None:
    before = set(psutil.Process().children())
    with canned_server():
        (process,) = set(psutil.Process().children()) - before

    assert not process.is_running()


# --- a run ---------------------------------------------------------------------------------------------


def test_a_run_measures_every_installed_client(canned: str) -> None:
    result = run_bench(Plan(canned, canned, documents=4, calls=1, rounds=1, queries=1, rankings=1))

    measured = {each.client for each in result.of("documents")}
    assert measured | set(result.left_out) == set(contestants.DOCUMENTS)
    assert {contestants.OUR_NUMPY, contestants.OUR_LISTS, contestants.BARE, contestants.REQUESTS} <= measured
    assert {contestants.SYNC, contestants.ASYNC} <= {each.client for each in result.of("query")}
    assert len(result.of("rerank")) == 1 + len(contestants.SPLITS)
    assert all(len(each.rounds) == 1 and each.per_second[0] > 0 for each in result.series)


def test_only_some_clients_can_be_asked_for(canned: str) -> None:
    result = run_bench(Plan(canned, documents=4, calls=1, rounds=1, queries=1, only=("numpy", "raw")))

    assert {each.client for each in result.of("documents")} == {
        contestants.OUR_NUMPY,
        contestants.OUR_DEFAULTS,
        contestants.REQUESTS,
    }


def test_no_client_of_that_name_is_refused(canned: str) -> None:
    with pytest.raises(ConfigurationError, match="nobody"):
        run_bench(Plan(canned, only=("nobody",)))


def test_no_server_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="address"):
        run_bench(Plan())


def test_texts_never_repeat() -> None:
    """Else a server with a prefix cache would answer the second client faster than the first."""
    seen: list[str] = []
    fake = FakeVLLM("embedding")
    with serve(fake) as running:
        run_bench(Plan(running.base_url, documents=3, calls=2, rounds=2, queries=1, batch=2, only=("raw",)))
        for body in running.bodies("/v1/embeddings"):
            seen += [text for text in body["input"] if text.count(" ") > 90]

    assert len(seen) == 3 * (1 + 2 * 2)
    assert len(set(seen)) == len(seen)


def test_an_old_server_is_measured_without_binary_answers() -> None:
    with serve(FakeVLLM("embedding", version="0.12.0")) as running:
        result = run_bench(Plan(running.base_url, documents=2, calls=1, rounds=1, queries=1, only=("bare",)))

    assert [each.client for each in result.of("documents")] == [contestants.BARE]


def test_the_wrong_server_is_one_clear_error() -> None:
    with serve(FakeVLLM("chat")) as running, pytest.raises(Qwen3VLLMError):
        run_bench(Plan(embedding_url=running.base_url))


def test_a_client_that_fails_in_mid_run_is_one_clear_error(
    canned: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks_later(target: contestants.Target, tools: contestants.Tools) -> contestants.Embed:
        calls = iter(range(2))

        def embed(texts: list[str]) -> object:
            if next(calls) == 1:
                raise requests.ConnectionError("gone")
            return None

        return embed

    monkeypatch.setitem(contestants.DOCUMENTS, contestants.REQUESTS, ("requests", breaks_later))

    with pytest.raises(Qwen3VLLMError, match="mid-run: gone"):
        run_bench(Plan(canned, documents=2, calls=1, rounds=1, queries=1, only=("raw",)))


def test_the_result_is_json_with_every_round(canned: str) -> None:
    plan = Plan(canned, documents=4, calls=2, rounds=3, queries=1, only=("numpy",))

    result = json.loads(json.dumps(run_bench(plan, canned=True).as_json()))

    row = result["results"][0]
    assert row["case"] == "documents"
    assert len(row["rounds"]) == 3
    assert len(row["rounds"][0]["latencies"]) == 2
    assert row["cpu_us"]["low"] <= row["cpu_us"]["median"] <= row["cpu_us"]["high"]
    assert result["plan"]["documents"] == 4
    assert [bar["limit"] for bar in result["bars"]] == ["≤ 25"]


# --- the command ---------------------------------------------------------------------------------------


def test_the_command_writes_json_and_a_plot(canned: str, tmp_path: Path) -> None:
    json_file, plot = tmp_path / "bench.json", tmp_path / "bench.svg"
    files = ["--json", str(json_file), "--plot", str(plot)]
    arguments = ["--embedding-url", canned, *SMALL, "--only", "numpy", *files]

    ended = CliRunner().invoke(app, arguments)

    assert ended.exit_code == 0, ended.output
    assert contestants.OUR_NUMPY in ended.stdout
    assert json.loads(json_file.read_text())["kind"] == "bench"
    assert "<svg " in plot.read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--stub", "--embedding-url", "http://127.0.0.1:9"],
        ["--stub-rate", "10", "--embedding-url", "http://127.0.0.1:9"],
        ["--stub", "--json", "/no/such/folder/bench.json"],
        ["--embedding-url", "nonsense"],
    ],
)
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == 2


def test_no_server_there_ends_with_1() -> None:
    ended = CliRunner().invoke(app, ["--embedding-url", "http://127.0.0.1:9"])

    assert ended.exit_code == 1
    assert "start one" in ended.output


# --- load ----------------------------------------------------------------------------------------------


def test_load_measures_bulk_and_queries_beside_it_and_rankings(canned: str) -> None:
    small = ("--seconds", "0.2", "--rounds", "1", "--documents", "8", "--words", "4")

    done = CliRunner().invoke(load_app, ["--embedding-url", canned, "--reranker-url", canned, *small])

    assert done.exit_code == 0, done.output
    for figure in ("documents/s beside queries", "query beside bulk, p95 ms", "rankings/s of 20 documents"):
        assert figure in done.output


def test_load_names_what_a_server_refused() -> None:
    done = CliRunner().invoke(load_app, ["--reranker-url", "http://127.0.0.1:9", "--seconds", "0.2"])

    assert done.exit_code == 1
    assert "127.0.0.1:9" in done.output
