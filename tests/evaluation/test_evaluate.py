"""`evaluate` from end to end, at servers that answer as vLLM does: what is asked for, kept and found."""

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen3_vllm import EmbeddingClient, RerankClient
from qwen3_vllm._core.prompts import DEFAULT_INSTRUCTION, rerank_prompt
from qwen3_vllm.bulk import embed_files
from qwen3_vllm.bulk.folder_lock import locked_folder
from qwen3_vllm.errors import ConfigurationError, InputError, ServerError, WrongServerError
from qwen3_vllm.evaluation import Dataset, Evaluation, Progress, evaluate, read_dataset, write_labelling_sheet

from ..fake_vllm import FakeVLLM
from ..faults import Chooser, SocketServer, always, honest, instead, serve

DOCUMENTS = {f"d{n}": f"Document {n} is about {n}." for n in range(40)}
QUERIES = {f"q{n}": f"What is about {n}?" for n in range(12)}
JUDGEMENTS = {f"q{n}": {f"d{n}": 1} for n in range(12)}
DATASET = Dataset.of(DOCUMENTS, QUERIES, JUDGEMENTS)


@pytest.fixture
def embedding(embedding_server: SocketServer) -> EmbeddingClient:
    return EmbeddingClient(base_url=embedding_server.base_url)


@pytest.fixture
def reranker(rerank_server: SocketServer) -> RerankClient:
    return RerankClient(base_url=rerank_server.base_url)


@pytest.fixture
def options(embedding: EmbeddingClient, reranker: RerankClient) -> dict[str, Any]:
    return {"embeddings": embedding, "rerankers": reranker, "candidates": [0, 5, 10]}


def sent_texts(server: SocketServer, path: str = "/v1/embeddings", field: str = "input") -> list[str]:
    """All texts that reached a server."""
    bodies = [request.json for request in server.requests if request.path == path]
    return [text for body in bodies for text in body[field]]


def documents_sent(server: SocketServer) -> list[str]:
    return [text for text in sent_texts(server) if text in set(DOCUMENTS.values())]


def pairs_sent(server: SocketServer) -> list[tuple[str, str]]:
    found = []
    for request in server.requests:
        if request.path.endswith("/score"):
            heads = request.json["text_1"]
            tails = request.json["text_2"]
            heads = [heads] * len(tails) if isinstance(heads, str) else heads
            found += [
                pair
                for pair in zip(heads, tails, strict=True)
                if "Document" in pair[1].split("<|im_end|>")[0]
            ]
    return [pair for pair in found if "is about" in pair[1]]


def test_metrics_are_those_of_searching_and_scoring_by_hand(
    embedding: EmbeddingClient, reranker: RerankClient, options: dict[str, Any]
) -> None:
    result = evaluate(DATASET, **options, metrics=["Success@1", "RR"])

    cosines = (
        embedding.embed_queries(list(QUERIES.values()))
        @ embedding.embed_documents(list(DOCUMENTS.values())).T
    )
    for measured in result.measured:
        expected = []
        for row, query in enumerate(QUERIES.values()):
            order = np.argsort(-cosines[row], kind="stable")
            if measured.set_up.candidates:
                order = order[: measured.set_up.candidates]
                scores = reranker.score(query, [f"Document {n} is about {n}." for n in order])
                order = order[np.argsort(-scores, kind="stable")]
            place = np.flatnonzero(order == row)
            expected.append(1 / (place[0] + 1) if len(place) else 0)
        assert measured.values["RR"] == pytest.approx(expected)
        assert measured.metrics["RR"].value == pytest.approx(np.mean(expected))
        assert measured.metrics["Success@1"].value == pytest.approx(np.mean(np.array(expected) == 1))


def test_nothing_is_asked_for_twice(
    options: dict[str, Any], embedding_server: SocketServer, rerank_server: SocketServer, tmp_path: Path
) -> None:
    grid = {**options, "dimensions": [16, 8], "vectors": ["float32", "int8", "binary"]}
    first = evaluate(DATASET, **grid, keep=tmp_path / "kept")

    assert sorted(documents_sent(embedding_server)) == sorted(DOCUMENTS.values())
    pairs = pairs_sent(rerank_server)
    assert len(pairs) == len(set(pairs)) > 0

    embedding_server.requests.clear()
    rerank_server.requests.clear()
    again = evaluate(DATASET, **{**grid, "dimensions": [16, 8, 4]}, keep=tmp_path / "kept")

    assert documents_sent(embedding_server) == []
    assert not set(sent_texts(embedding_server)) & set(QUERIES.values())
    assert not set(pairs_sent(rerank_server)) & set(pairs)
    assert [each.metrics for each in again.measured[:18]] == [each.metrics for each in first.measured]
    times = [[each.seconds_per_query for each in result.measured[:18]] for result in (first, again)]
    assert times[0] == times[1]


def test_a_corpus_that_grew_costs_only_what_is_new(
    options: dict[str, Any], embedding_server: SocketServer, tmp_path: Path
) -> None:
    evaluate(DATASET, **options, keep=tmp_path)
    embedding_server.requests.clear()
    evaluate(
        Dataset.of({"new": "Something new is about 99.", **DOCUMENTS}, QUERIES, JUDGEMENTS),
        **options,
        keep=tmp_path,
    )
    assert [text for text in sent_texts(embedding_server) if "is about" in text] == [
        "Something new is about 99."
    ]


def test_documents_of_one_text_are_embedded_once_and_all_found(
    embedding: EmbeddingClient, embedding_server: SocketServer
) -> None:
    twins = {f"t{n}": "The same." for n in range(5)}
    result = evaluate(
        Dataset.of(twins, {"q": "same?"}, {"q": {"t4": 1}}),
        embeddings=embedding,
        candidates=[0],
        metrics=["RR", "R@5"],
    )
    assert sent_texts(embedding_server).count("The same.") == 1
    assert {name: each.value for name, each in result.measured[0].metrics.items()} == {"RR": 0.2, "R@5": 1.0}


def test_a_document_that_cannot_be_embedded_is_named_after_all_others_are(
    embedding_server: SocketServer, tmp_path: Path
) -> None:
    client = EmbeddingClient(base_url=embedding_server.base_url, truncate=False)
    documents = {**DOCUMENTS, "long": "Too long. " * 1000, "last": "The last is about 99."}
    with pytest.raises(InputError, match=r"1 of 42 documents cannot .* is number 41: .*tokens"):
        evaluate(Dataset.of(documents, QUERIES, JUDGEMENTS), embeddings=client, candidates=[0], keep=tmp_path)
    assert "The last is about 99." in sent_texts(embedding_server)


def test_a_run_that_was_stopped_resumes(reranker: RerankClient, tmp_path: Path) -> None:
    failing: list[bool] = [True]

    def choose(request: Any) -> Any:
        return (
            instead(400, {"error": {"message": "no", "code": 400}})
            if failing[0] and b"What is about" in request.body
            else honest
        )

    with serve(FakeVLLM("embedding"), choose) as server:
        client = EmbeddingClient(base_url=server.base_url, max_retries=0)
        with pytest.raises((ServerError, InputError)):
            evaluate(DATASET, embeddings=client, rerankers=reranker, keep=tmp_path)
        assert sorted(documents_sent(server)) == sorted(DOCUMENTS.values())
        server.requests.clear()
        failing[0] = False
        evaluate(DATASET, embeddings=client, rerankers=reranker, keep=tmp_path)
        assert documents_sent(server) == []


@pytest.mark.parametrize("role", ["embedding", "reranker"])
def test_another_model_under_the_same_name_is_refused(
    role: str, options: dict[str, Any], tmp_path: Path
) -> None:
    evaluate(DATASET, **options, keep=tmp_path)
    with serve(FakeVLLM(role, seed="another")) as server:  # type: ignore[arg-type]
        name = "embeddings" if role == "embedding" else "rerankers"
        other = type(options[name])(base_url=server.base_url)
        with pytest.raises(WrongServerError, match="another model, whatever its name"):
            evaluate(DATASET, **{**options, name: other}, keep=tmp_path)
        renamed = evaluate(DATASET, **{**options, name: {"new": other}}, keep=tmp_path)
        assert "new" in renamed.servers[role]


def test_a_folder_is_for_one_run_at_a_time(options: dict[str, Any], tmp_path: Path) -> None:
    with locked_folder(tmp_path), pytest.raises(ConfigurationError, match="another run is writing"):
        evaluate(DATASET, **options, keep=tmp_path)


def test_both_models_get_the_instruction(
    options: dict[str, Any], embedding_server: SocketServer, rerank_server: SocketServer
) -> None:
    evaluate(DATASET, **options, instructions=["Find it", ""])
    query = QUERIES["q3"]
    assert {text for text in sent_texts(embedding_server) if text.endswith(query)} == {
        query,
        f"Instruct: Find it\nQuery:{query}",
    }
    heads = {head for head, _ in pairs_sent(rerank_server) if query in head}
    tasks = ["Find it", DEFAULT_INSTRUCTION]
    assert heads == {rerank_prompt(query, "", task).partition("<Document>")[0] for task in tasks}


def test_times_are_those_of_calls_with_one_query_and_so_many_candidates(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str | None, int]] = []
    score = RerankClient.score

    def noted(self: RerankClient, query: Any, documents: Any, **options: Any) -> Any:
        calls.append((query if isinstance(query, str) else None, len(documents)))
        return score(self, query, documents, **options)

    monkeypatch.setattr(RerankClient, "score", noted)
    result = evaluate(DATASET, **{**options, "candidates": [3, 10]})

    _, *timed, rest = calls  # the first asks whether the server is the same
    assert timed == [(query, (3, 10)[row % 2]) for row, query in enumerate(QUERIES.values())]
    assert rest == (None, 6 * 7)
    for each in result.measured:
        assert each.embed_seconds
        assert each.rerank_seconds
        assert each.seconds_per_query == each.embed_seconds + each.rerank_seconds
    assert len({each.embed_seconds for each in result.measured}) == 1


def test_a_number_of_candidates_added_later_has_a_time_between_those_measured(
    options: dict[str, Any], tmp_path: Path
) -> None:
    evaluate(DATASET, **{**options, "candidates": [2, 10]}, keep=tmp_path)
    two, six, ten = evaluate(DATASET, **{**options, "candidates": [2, 6, 10]}, keep=tmp_path).measured
    assert two.rerank_seconds and six.rerank_seconds and ten.rerank_seconds
    assert six.rerank_seconds == pytest.approx((two.rerank_seconds + ten.rerank_seconds) / 2)


def test_an_embedded_folder_is_searched_as_it_is(
    options: dict[str, Any], embedding_server: SocketServer, tmp_path: Path
) -> None:
    corpus, queries, qrels = tmp_path / "corpus.jsonl", tmp_path / "queries.jsonl", tmp_path / "qrels.tsv"
    corpus.write_text("\n".join(json.dumps({"id": id, "text": text}) for id, text in DOCUMENTS.items()))
    queries.write_text("\n".join(json.dumps({"_id": id, "text": text}) for id, text in QUERIES.items()))
    qrels.write_text("".join(f"{q}\t{d}\t1\n" for q, of_query in JUDGEMENTS.items() for d in of_query))
    embed_files([corpus], tmp_path / "vectors", client=options["embeddings"], part_rows=16)
    embedding_server.requests.clear()

    files: dict[str, Any] = {"queries": queries, "judgements": qrels}
    result = evaluate(tmp_path / "vectors", **options, **files, dimensions=[16, 8])

    assert documents_sent(embedding_server) == []
    same = evaluate(DATASET, **options, dimensions=[16, 8])
    assert [each.metrics for each in result.measured] == [each.metrics for each in same.measured]

    corpus.unlink()
    alone = evaluate(tmp_path / "vectors", **{**options, "candidates": [0]}, **files)
    assert alone.measured[0].values["RR@10"].tolist() == same.measured[0].values["RR@10"].tolist()
    with pytest.raises(InputError, match="is not here any more"):
        evaluate(tmp_path / "vectors", **options, **files)
    with pytest.raises(InputError, match="give a file of queries"):
        read_dataset(tmp_path / "vectors", texts_needed=False)
    two = {"a": options["embeddings"], "b": options["embeddings"]}
    with pytest.raises(ConfigurationError, match="vectors of one model"):
        evaluate(tmp_path / "vectors", **{**options, "candidates": [0], "embeddings": two}, **files)
    with serve(FakeVLLM("embedding", seed="other")) as other, pytest.raises(WrongServerError):
        client = EmbeddingClient(base_url=other.base_url)
        evaluate(tmp_path / "vectors", embeddings=client, candidates=[0], **files)


def test_a_sheet_is_labelled_and_read_back(options: dict[str, Any], tmp_path: Path) -> None:
    unlabelled = replace(DATASET, judgements={})
    sheet = tmp_path / "sheet.csv"

    rows = write_labelling_sheet(unlabelled, sheet, **options, depth=3, keep=tmp_path / "kept")

    with sheet.open(encoding="utf-8-sig", newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == rows
    assert len({(row["query_id"], row["document_id"]) for row in table}) == rows
    order = list(dict.fromkeys(row["query_id"] for row in table))
    assert sorted(order) == sorted(QUERIES)
    assert order != list(QUERIES), "in the order of the file, a part of the sheet would be no fair sample"
    assert {row["relevant"] for row in table} == {""}
    for row in table:
        row["relevant"] = "yes" if row["document_id"][1:] == row["query_id"][1:] else "no"
    with sheet.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)
    folder = tmp_path / "data"
    folder.mkdir()
    for name, texts in (("corpus", DOCUMENTS), ("queries", QUERIES)):
        lines = [json.dumps({"_id": id, "text": text}) for id, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    result = evaluate(folder, **options, judgements=sheet, keep=tmp_path / "kept")
    found = {row["query_id"] for row in table if row["relevant"] == "yes"}
    assert set(result.query_ids) == found


def test_a_sheet_asks_about_all_queries_judged_or_not(embedding: EmbeddingClient, tmp_path: Path) -> None:
    some = replace(DATASET, judgements={"q1": {"d1": 1}})
    write_labelling_sheet(some, tmp_path / "sheet.csv", embeddings=embedding, candidates=[0], depth=1)
    assert len((tmp_path / "sheet.csv").read_text().splitlines()) == 1 + len(QUERIES)


def test_a_sheet_that_may_hold_labels_is_not_overwritten(options: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "sheet.csv").write_text("labels")
    with pytest.raises(InputError, match="may hold labels"):
        write_labelling_sheet(DATASET, tmp_path / "sheet.csv", **options)


def test_a_sheet_runs_no_formula(embedding: EmbeddingClient, tmp_path: Path) -> None:
    hostile = Dataset.of({"d": '=HYPERLINK("http://x")'}, {"q": "+1?"})
    write_labelling_sheet(hostile, tmp_path / "sheet.csv", embeddings=embedding, candidates=[0])
    with (tmp_path / "sheet.csv").open(encoding="utf-8-sig", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["query"], row["document"]) == ("'+1?", '\'=HYPERLINK("http://x")')


def test_thresholds_are_found_for_the_best_and_the_recommended(options: dict[str, Any]) -> None:
    result = evaluate(DATASET, **options, precision=0.01, recall=1.0)
    assert set(result.thresholds) == {result.best.number, result.recommended.number}
    for found in result.thresholds.values():
        assert [(each.goal, each.target) for each in found] == [("precision", 0.01), ("recall", 1.0)]


def test_two_set_ups_are_compared(options: dict[str, Any]) -> None:
    result = evaluate(DATASET, **options)
    compared = result.compare(1, 2)
    values = [result.measured[place].values["nDCG@10"] for place in (0, 1)]
    assert compared.difference.value == pytest.approx(np.mean(values[0] - values[1]))
    assert result.compare(2, 2, "RR@10").p_value == 1.0
    with pytest.raises(ConfigurationError, match="there is no set-up 9: they are 1 to 3"):
        result.compare(1, 9)
    with pytest.raises(ConfigurationError, match="'P@3' was not measured"):
        result.compare(1, 2, "P@3")


def test_a_result_is_json_and_the_same_each_time(options: dict[str, Any], tmp_path: Path) -> None:
    results = [evaluate(DATASET, **options, keep=tmp_path).as_json() for _ in range(2)]
    for result in results:
        for set_up in result["set_ups"]:
            set_up.pop("search_seconds")
    assert json.loads(json.dumps(results[0])) == json.loads(json.dumps(results[1]))


def test_progress_reaches_its_total_in_each_stage(options: dict[str, Any]) -> None:
    seen: dict[str, Progress] = {}

    def note(progress: Progress) -> None:
        before = seen.get(progress.stage)
        assert before is None or progress.done >= before.done
        seen[progress.stage] = progress

    evaluate(DATASET, **options, on_progress=note)
    assert [each.stage.partition(" (")[0] for each in seen.values()] == [
        "embedding documents",
        "embedding queries",
        "searching",
        "scoring pairs",
        "measuring",
    ]
    assert all(each.done == each.total for each in seen.values())


def test_a_server_that_fails_is_an_error_and_no_result(embedding: EmbeddingClient) -> None:
    broken: Chooser = always(instead(500, {"error": "broken"}))
    with serve(FakeVLLM("reranker"), broken) as server:
        client = RerankClient(base_url=server.base_url, max_retries=0)
        with pytest.raises(ServerError):
            evaluate(DATASET, embeddings=embedding, rerankers=client)


@pytest.mark.parametrize(("name", "value"), [("precision", 0.0), ("recall", 1.5)])
def test_goals_that_mean_nothing_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=f"{name}="):
        evaluate(DATASET, **{name: value})  # type: ignore[arg-type]


@pytest.fixture
def result(options: dict[str, Any]) -> Iterator[Evaluation]:
    yield evaluate(DATASET, **options, dimensions=[16, 8], precision=0.01, instructions=["<b>find</b>", "y"])


def test_a_page_loads_nothing_and_shows_texts_as_text(result: Evaluation) -> None:
    from qwen3_vllm.evaluation.report.page import report_html

    page = report_html(result)
    assert page == report_html(result)
    assert page.count("<img") == 2 + len(result.candidates)
    assert page.count("src=") == page.count('src="data:image/svg+xml;base64,')
    for named in result.servers.values():
        for address in named.values():
            assert address in page
            page = page.replace(address, "")
    assert "http" not in page
    assert "<b>find" not in page
    assert "A: &lt;b&gt;find&lt;/b&gt;" in page
    for sentence in result.verdict.sentences:
        assert sentence in page
