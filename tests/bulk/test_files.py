"""embed_files: what lies on disk after a run, and what keeps a run from starting."""

import errno
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qwen3_vllm import EmbeddingClient, Qwen3VLLMError, ServerUnreachableError, WrongServerError
from qwen3_vllm._core.settings import EmbeddingSettings
from qwen3_vllm._core.text_files.records import records
from qwen3_vllm.bulk import Progress, embed_files
from qwen3_vllm.bulk.folder import locked
from qwen3_vllm.errors import ConfigurationError, InputError, InvalidAnswerError, ServerError
from tests.bulk.runs import DIMENSIONS, Canned, errors, ids, read_output, vectors, write_jsonl, write_lines
from tests.fake_vllm import FakeVLLM
from tests.faults import Fault, Reply, Request, SocketServer, changed, honest, instead, serve

pytestmark = pytest.mark.usefixtures("small_chunks")


@pytest.fixture
def client(server: SocketServer) -> EmbeddingClient:
    return EmbeddingClient(base_url=server.base_url, max_retries=0)


class TestOutput:
    def test_has_every_document_in_order_with_its_vector(
        self, tmp_path: Path, client: EmbeddingClient, canned: Canned
    ) -> None:
        inputs = [write_jsonl(tmp_path / "b.jsonl", 45), write_jsonl(tmp_path / "a.jsonl", 30, start=45)]
        summary = embed_files(inputs, tmp_path / "out", client=client, part_rows=20)
        assert ids(tmp_path / "out") == [f"d{n}" for n in range(75)]
        expected = [canned.vector(f"document {n}") for n in range(75)]
        np.testing.assert_allclose(vectors(tmp_path / "out"), expected, rtol=1e-6)
        assert (summary.embedded, summary.kept, summary.failed, summary.rows) == (75, 0, 0, 75)

    def test_columns(self, tmp_path: Path, client: EmbeddingClient) -> None:
        embed_files([write_jsonl(tmp_path / "a.jsonl", 3)], tmp_path / "out", client=client)
        table = read_output(tmp_path / "out")
        assert table.schema.field("embedding").type == pa.list_(pa.float32(), DIMENSIONS)
        assert table.schema.field("id").type == pa.string()
        row = table.drop(["embedding"]).to_pylist()[0]
        assert row == {"id": "d0", "model": "canned", "instruction": None, "dimensions": DIMENSIONS}

    def test_holds_parts_named_by_input_and_row_and_nothing_half_done(
        self, tmp_path: Path, client: EmbeddingClient
    ) -> None:
        inputs = [write_jsonl(tmp_path / "a.jsonl", 25), write_jsonl(tmp_path / "b.jsonl", 5)]
        embed_files(inputs, tmp_path / "out", client=client, part_rows=20)
        assert sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*")) == [
            "_lock",
            "_manifest.json",
            "_progress",
            "part-00000-000000000001.parquet",
            "part-00000-000000000021.parquet",
            "part-00001-000000000001.parquet",
        ]

    def test_is_read_as_one_data_set_by_pyarrow(self, tmp_path: Path, client: EmbeddingClient) -> None:
        embed_files([write_jsonl(tmp_path / "a.jsonl", 25)], tmp_path / "out", client=client, part_rows=20)
        assert pq.read_table(tmp_path / "out").num_rows == 25

    def test_shorter_vectors(self, tmp_path: Path, server: SocketServer) -> None:
        client = EmbeddingClient(base_url=server.base_url, dimensions=4)
        embed_files([write_jsonl(tmp_path / "a.jsonl", 3)], tmp_path / "out", client=client)
        np.testing.assert_allclose(np.linalg.norm(vectors(tmp_path / "out"), axis=1), 1, rtol=1e-6)
        assert vectors(tmp_path / "out").shape == (3, 4)

    def test_of_inputs_without_documents_is_empty(self, tmp_path: Path, client: EmbeddingClient) -> None:
        inputs = [write_lines(tmp_path / "a.jsonl", []), write_lines(tmp_path / "b.jsonl", ["", ""])]
        assert embed_files(inputs, tmp_path / "out", client=client).embedded == 0
        assert read_output(tmp_path / "out").num_rows == 0

    def test_standard_input_is_one_of_the_inputs(
        self, tmp_path: Path, client: EmbeddingClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        piped = io.BytesIO(b'{"text": "one"}\n{"text": "two"}\n')
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=piped))
        embed_files(["-"], tmp_path / "out", client=client)
        assert ids(tmp_path / "out") == ["stdin:1", "stdin:2"]
        assert not (tmp_path / "out" / "_stdin").exists()

    def test_progress_ends_with_the_summary(self, tmp_path: Path, embedding_server: SocketServer) -> None:
        seen: list[Progress] = []
        client = EmbeddingClient(base_url=embedding_server.base_url)
        path = write_jsonl(tmp_path / "a.jsonl", 25)
        summary = embed_files([path], tmp_path / "out", client=client, on_progress=seen.append)
        assert [each.rows for each in seen] == [0, 10, 20, 25]
        assert {each.total_rows for each in seen} == {25}
        assert seen[-1] == summary
        assert summary.characters == sum(len(f"document {n}") for n in range(25))
        # The fake's tokens are bytes.
        assert summary.tokens_per_character == pytest.approx(1, abs=0.02)


class TestErrors:
    BAD = ('{"id": "bad", "text": 5}', "{", "", '{"id": "no"}', '{"id": "u", "text": "\\ud800"}')

    def test_bad_rows_are_listed_and_take_no_other_with_them(
        self, tmp_path: Path, client: EmbeddingClient
    ) -> None:
        good = [json.dumps({"id": f"d{n}", "text": f"document {n}"}) for n in range(30)]
        path = write_lines(tmp_path / "a.jsonl", [*good[:15], *self.BAD, *good[15:]])
        summary = embed_files([path], tmp_path / "out", client=client)
        assert ids(tmp_path / "out") == [f"d{n}" for n in range(30)]
        found = errors(tmp_path / "out")
        assert summary.failed == len(found) == 4
        assert [(each["row"], each["id"]) for each in found] == [
            (16, "bad"),
            (17, f"{path}:17"),
            (19, "no"),
            (20, f"{path}:20"),
        ]
        assert found[0] == {"input": str(path), "row": 16, "id": "bad", "reason": "is not a string but int"}

    def test_too_long_documents_are_listed_if_they_must_not_be_cut(
        self, tmp_path: Path, embedding_server: SocketServer
    ) -> None:
        texts = ["short", "x" * 3000, "also short"]
        path = write_lines(tmp_path / "a.txt", texts)
        client = EmbeddingClient(base_url=embedding_server.base_url, truncate=False)
        embed_files([path], tmp_path / "out", client=client)
        assert ids(tmp_path / "out") == [f"{path}:1", f"{path}:3"]
        (error,) = errors(tmp_path / "out")
        assert error["row"] == 2
        assert error["reason"] == "has 3001 tokens; the server takes 2048"

    def test_a_text_that_the_server_answers_with_nonsense_is_listed(
        self, tmp_path: Path, server: SocketServer, client: EmbeddingClient
    ) -> None:
        nan = changed(lambda body: np.full(len(body) // 4, np.nan, "<f4").tobytes())
        server.fault = lambda request: nan if b'"document 7"' in request.body else honest
        embed_files([write_jsonl(tmp_path / "a.jsonl", 12)], tmp_path / "out", client=client)
        assert [each["id"] for each in errors(tmp_path / "out")] == ["d7"]
        assert len(ids(tmp_path / "out")) == 11

    def test_nonsense_for_everything_ends_the_run(
        self, tmp_path: Path, server: SocketServer, client: EmbeddingClient
    ) -> None:
        nan = changed(lambda body: np.full(len(body) // 4, np.nan, "<f4").tobytes())
        server.fault = lambda request: nan if b'"document ' in request.body else honest
        with pytest.raises(InvalidAnswerError):
            embed_files([write_jsonl(tmp_path / "a.jsonl", 12)], tmp_path / "out", client=client)
        assert errors(tmp_path / "out") == []

    def test_are_the_same_after_another_run(self, tmp_path: Path, client: EmbeddingClient) -> None:
        path = write_lines(tmp_path / "a.jsonl", ['{"text": "good"}', *self.BAD])
        embed_files([path], tmp_path / "out", client=client)
        before = errors(tmp_path / "out")
        assert embed_files([path], tmp_path / "out", client=client).failed == 4
        assert errors(tmp_path / "out") == before


class TestAnotherRun:
    def test_of_a_finished_output_needs_no_server(
        self, tmp_path: Path, server: SocketServer, client: EmbeddingClient
    ) -> None:
        path = write_jsonl(tmp_path / "a.jsonl", 25)
        embed_files([path], tmp_path / "out", client=client)
        server.stop()
        summary = embed_files([path], tmp_path / "out", client=client)
        assert (summary.embedded, summary.kept) == (0, 25)

    @pytest.mark.parametrize("cut", [1, 45, 75])
    def test_goes_on_where_the_server_failed(
        self, tmp_path: Path, server: SocketServer, client: EmbeddingClient, canned: Canned, cut: int
    ) -> None:
        path = write_jsonl(tmp_path / "a.jsonl", 100)

        def fail_late(connection: object, reply: object) -> None:
            raise ConnectionAbortedError

        server.fault = lambda request: fail_late if len(set(canned.documents())) > cut else honest
        with pytest.raises(ServerUnreachableError) as caught:
            embed_files([path], tmp_path / "out", client=client, part_rows=20)
        assert any("run the same again" in note for note in caught.value.__notes__)
        kept = set(canned.documents())
        again = Canned()  # the first server may still be hearing from the run that failed
        with serve(again) as running:
            client = EmbeddingClient(base_url=running.base_url)
            summary = embed_files([path], tmp_path / "out", client=client, part_rows=20)
        assert ids(tmp_path / "out") == [f"d{n}" for n in range(100)]
        assert summary.kept + summary.embedded == 100
        assert len(again.documents()) == summary.embedded
        assert summary.kept >= len(kept) // 10 * 10 - 30  # all but the three chunks under way

    @pytest.mark.parametrize(
        "change",
        [
            {"dimensions": 4},
            {"model": "other"},
            {"truncate": False},
            {"wire_dtype": "float16"},
            {"part_rows": 7},
            {"text_field": "id"},
            {"id_field": "id"},
            {"encoding": "gb18030"},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_with_other_options_is_refused(
        self, tmp_path: Path, server: SocketServer, client: EmbeddingClient, change: dict[str, Any]
    ) -> None:
        path = write_jsonl(tmp_path / "a.jsonl", 5)
        embed_files([path], tmp_path / "out", client=client)
        (name,) = change
        with pytest.raises(ConfigurationError, match=f"begun with {name}=.*this run has {name}="):
            if name in EmbeddingSettings.model_fields:
                client = EmbeddingClient(base_url=server.base_url, **change)
                embed_files([path], tmp_path / "out", client=client)
            else:
                embed_files([path], tmp_path / "out", client=client, **change)

    def test_with_other_inputs_is_refused(self, tmp_path: Path, client: EmbeddingClient) -> None:
        a, b = write_jsonl(tmp_path / "a.jsonl", 5), write_jsonl(tmp_path / "b.jsonl", 5)
        embed_files([a, b], tmp_path / "out", client=client)
        for inputs, message in (
            ([a], "'.*b.jsonl' is missing"),
            ([a, b, write_jsonl(tmp_path / "c.jsonl", 1)], "'.*c.jsonl' is new"),
            ([b, a], "another order"),
        ):
            with pytest.raises(ConfigurationError, match=message):
                embed_files(inputs, tmp_path / "out", client=client)
        a.write_text(a.read_text().replace("document 3", "document 9"))
        with pytest.raises(ConfigurationError, match=r"'.*a.jsonl' has changed"):
            embed_files([a, b], tmp_path / "out", client=client)

    @pytest.mark.parametrize("dimensions", [DIMENSIONS, 4])
    def test_with_another_model_of_the_same_name_is_refused(
        self, tmp_path: Path, server: SocketServer, client: EmbeddingClient, dimensions: int
    ) -> None:
        path = write_jsonl(tmp_path / "a.jsonl", 25)
        embed_files([path], tmp_path / "out", client=client, part_rows=10)
        (tmp_path / "out" / "part-00000-000000000011.parquet").unlink()
        server.answer = Canned(seed=1, dimensions=dimensions)
        fresh = EmbeddingClient(base_url=server.base_url)
        with pytest.raises((WrongServerError, ConfigurationError), match=r"another model|dimensions=8"):
            embed_files([path], tmp_path / "out", client=fresh, part_rows=10)

    def test_after_the_model_changed_in_mid_run_has_vectors_of_the_first_only(
        self, tmp_path: Path, server: SocketServer, client: EmbeddingClient, canned: Canned
    ) -> None:
        path = write_jsonl(tmp_path / "a.jsonl", 100)
        other = Canned(seed=1)
        server.answer = lambda request: (other if len(canned.documents()) > 50 else canned)(request)
        with pytest.raises(WrongServerError, match="another model"):
            embed_files([path], tmp_path / "out", client=client, part_rows=30)
        server.answer = canned
        embed_files([path], tmp_path / "out", client=client, part_rows=30)
        expected = [canned.vector(f"document {n}") for n in range(100)]
        np.testing.assert_allclose(vectors(tmp_path / "out"), expected, rtol=1e-6)


class TestChangedInput:
    """A file that other lines come into while it is read, as many and as long as before."""

    @pytest.mark.parametrize("kind", ["jsonl", "parquet"])
    def test_ends_the_run_and_nothing_of_it_is_kept(
        self, tmp_path: Path, server: SocketServer, client: EmbeddingClient, canned: Canned, kind: str
    ) -> None:
        path = tmp_path / f"a.{kind}"

        def fill(word: str) -> None:
            texts = [f"{word} {n:03}" for n in range(200)]
            if kind == "parquet":
                pq.write_table(pa.table({"text": texts}), path)
            else:
                write_lines(path, (json.dumps({"text": text}) for text in texts))

        def answer(request: Request) -> Reply | None:
            if b"document 000" in request.body:
                fill("intruder")
            return canned(request)

        fill("document")
        server.answer = answer
        with pytest.raises(InputError, match="was changed while it was read") as ended:
            embed_files([path], tmp_path / "out", client=client)
        assert "run the same again" in ended.value.__notes__[0]
        with pytest.raises(ConfigurationError, match="has changed"):
            embed_files([path], tmp_path / "out", client=client)
        fill("document")
        server.answer = canned
        if kind == "jsonl":  # Parquet says when it was written
            assert embed_files([path], tmp_path / "out", client=client).kept < 200
            expected = [canned.vector(f"document {n:03}") for n in range(200)]
            np.testing.assert_allclose(vectors(tmp_path / "out"), expected, rtol=1e-6)

    def test_that_is_being_written_is_refused_at_the_start(
        self, tmp_path: Path, client: EmbeddingClient, canned: Canned, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write_jsonl(tmp_path / "a.jsonl", 5)
        real = records

        def growing(*arguments: Any) -> Any:
            write_jsonl(path, 6)
            return real(*arguments)

        monkeypatch.setattr("qwen3_vllm.bulk.scan.records", growing)
        with pytest.raises(ConfigurationError, match="is being written to"):
            embed_files([path], tmp_path / "out", client=client)
        assert canned.texts == []


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(
        {"empty": b"", "cut": content[:middle], "zeros": bytes(len(content)), "garbage": b"\xff" * 99}[how]
    )


@pytest.mark.parametrize("how", ["empty", "cut", "zeros", "garbage"])
class TestDamage:
    def test_of_a_chunk_costs_embedding_it_again(
        self, tmp_path: Path, server: SocketServer, client: EmbeddingClient, canned: Canned, how: str
    ) -> None:
        path = write_lines(tmp_path / "a.jsonl", ["{", *(f'{{"text": "document {n}"}}' for n in range(99))])
        down = Reply.of_json({}, 500)
        server.answer = lambda request: down if len(canned.documents()) > 60 else canned(request)
        with pytest.raises(Qwen3VLLMError):
            embed_files([path], tmp_path / "out", client=client)
        chunks = sorted((tmp_path / "out" / "_progress").glob("*.arrow"))
        damage(chunks[0], how)
        server.answer = canned
        summary = embed_files([path], tmp_path / "out", client=client)
        assert summary.kept == 10 * (len(chunks) - 1) > 0
        assert ids(tmp_path / "out") == [f"{path}:{n}" for n in range(2, 101)]
        assert [each["row"] for each in errors(tmp_path / "out")] == [1]

    def test_of_a_part_is_refused_with_what_to_do(
        self, tmp_path: Path, client: EmbeddingClient, canned: Canned, how: str
    ) -> None:
        path = write_jsonl(tmp_path / "a.jsonl", 30)
        embed_files([path], tmp_path / "out", client=client, part_rows=10)
        part = tmp_path / "out" / "part-00000-000000000011.parquet"
        damage(part, how)
        canned.texts.clear()
        with pytest.raises(ConfigurationError, match=f"{part} is damaged: remove it, and run the same again"):
            embed_files([path], tmp_path / "out", client=client, part_rows=10)
        assert canned.texts == []
        part.unlink()
        assert embed_files([path], tmp_path / "out", client=client, part_rows=10).kept == 20
        assert ids(tmp_path / "out") == [f"d{n}" for n in range(30)]

    def test_of_the_manifest_is_refused(self, tmp_path: Path, client: EmbeddingClient, how: str) -> None:
        path = write_jsonl(tmp_path / "a.jsonl", 5)
        embed_files([path], tmp_path / "out", client=client)
        damage(tmp_path / "out" / "_manifest.json", how)
        with pytest.raises(ConfigurationError, match="put it back as it was, or give a new folder"):
            embed_files([path], tmp_path / "out", client=client)


def test_a_full_disk_ends_the_run_and_leaves_nothing_half_written(
    tmp_path: Path, client: EmbeddingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", 30)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left") as ended:
        patch.setattr(pq.ParquetWriter, "write_table", full)
        embed_files([path], tmp_path / "out", client=client)
    assert "run the same again" in ended.value.__notes__[0]
    assert [each.suffix for each in (tmp_path / "out" / "_progress").iterdir()] == [".arrow"] * 3
    assert embed_files([path], tmp_path / "out", client=client).kept == 30


class TestTruncation:
    @pytest.mark.parametrize("cut", [1, 25, 55])
    def test_counts_are_those_of_the_whole_output_however_often_it_was_stopped(
        self, tmp_path: Path, embedding_server: SocketServer, cut: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        texts = [f"{n} " + ("x" * (3000 + n) if n % 7 == 3 else "short") for n in range(60)]
        path = write_lines(tmp_path / "a.txt", texts)
        client = EmbeddingClient(base_url=embedding_server.base_url, max_retries=0)
        seen = 0

        def fail_late(request: Request) -> Fault:
            nonlocal seen
            seen += request.path == "/v1/embeddings"
            return instead(500) if seen > 2 + cut // 10 else honest

        embedding_server.fault = fail_late
        with pytest.raises(ServerError):
            embed_files([path], tmp_path / "out", client=client, part_rows=20)
        embedding_server.fault = lambda request: honest
        caplog.clear()

        embed_files([path], tmp_path / "out", client=client, part_rows=20)
        summary = embed_files([path], tmp_path / "out", client=client, part_rows=20)

        expected = {
            "truncated": 9,
            "perhaps_truncated": 0,
            "longest_truncated": len(texts[59]) + 1,
            "truncated_to": 2048,
        }
        assert {name: getattr(summary, name) for name in expected} == expected
        manifest = json.loads((tmp_path / "out" / "_manifest.json").read_text())
        assert {name: manifest[name] for name in expected} == expected
        longest = len(texts[59]) + 1
        assert caplog.messages == 2 * [
            f"9 of 60 documents had to be cut to the server's 2048 tokens; the longest had {longest}"
        ]

    def test_of_a_server_that_counts_no_tokens_says_how_many_it_may_have_cut(self, tmp_path: Path) -> None:
        path = write_lines(tmp_path / "a.txt", ["x" * 3000, "y", "z" * 3000])
        with serve(FakeVLLM("embedding", missing=("/tokenize",))) as server:
            client = EmbeddingClient(base_url=server.base_url)
            summary = embed_files([path], tmp_path / "out", client=client)

        assert (summary.truncated, summary.perhaps_truncated, summary.truncated_to) == (0, 2, 2048)

    def test_is_read_from_parts_of_earlier_releases(self, tmp_path: Path, client: EmbeddingClient) -> None:
        embed_files([write_jsonl(tmp_path / "a.jsonl", 3)], tmp_path / "out", client=client)
        (path,) = (tmp_path / "out").glob("*.parquet")
        ours = {name for name in pq.read_metadata(path).metadata if name.startswith(b"qwen3_vllm")}
        assert ours == {b"qwen3_vllm.failures", b"qwen3_vllm.truncation", b"qwen3_vllm.usage"}


class TestRefused:
    def test_a_folder_that_another_run_writes_to(self, tmp_path: Path, client: EmbeddingClient) -> None:
        path = write_jsonl(tmp_path / "a.jsonl", 5)
        with locked(tmp_path / "out"), pytest.raises(ConfigurationError, match="another run is writing"):
            embed_files([path], tmp_path / "out", client=client)

    def test_a_folder_that_holds_something_else(self, tmp_path: Path, client: EmbeddingClient) -> None:
        path = write_jsonl(tmp_path / "a.jsonl", 5)
        with pytest.raises(ConfigurationError, match=r"holds 'a.jsonl' and no output"):
            embed_files([path], tmp_path, client=client)

    def test_a_damaged_manifest(self, tmp_path: Path, client: EmbeddingClient) -> None:
        path = write_jsonl(tmp_path / "a.jsonl", 5)
        embed_files([path], tmp_path / "out", client=client)
        (tmp_path / "out" / "_manifest.json").write_text("{}")
        with pytest.raises(ConfigurationError, match="damaged"):
            embed_files([path], tmp_path / "out", client=client)

    def test_a_server_of_no_embeddings_leaves_nothing_to_go_on_with(self, tmp_path: Path) -> None:
        path = write_jsonl(tmp_path / "a.jsonl", 5)
        with serve(FakeVLLM("reranker")) as server, pytest.raises(WrongServerError):
            embed_files([path], tmp_path / "out", client=EmbeddingClient(base_url=server.base_url))
        assert not (tmp_path / "out" / "_manifest.json").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"inputs": None},
        {"inputs": "a.jsonl"},
        {"inputs": [5]},
        {"out": 5},
        {"client": "http://127.0.0.1:8000"},
        {"text_field": b"text"},
        {"part_rows": 1.5},
        {"part_rows": 0},
        {"engine": "dask"},
        {"workers": 4},
        {"on_progress": 5},
    ],
    ids=str,
)
def test_a_wrong_argument_is_named(tmp_path: Path, wrong: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"inputs": [tmp_path / "a.jsonl"], "out": tmp_path / "out", **wrong}

    with pytest.raises(ConfigurationError, match=f"^EmbedFiles: .*{next(iter(wrong))}"):
        embed_files(**arguments)

    assert list(tmp_path.iterdir()) == []
