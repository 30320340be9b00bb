"""The Ray engine on a cluster of two nodes: against a fake server that counts, and against a real vLLM."""

import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

from qwen3_vllm import EmbeddingClient, ServerUnreachableError
from qwen3_vllm._core.embedding.same_model import PROBE
from qwen3_vllm._core.text_files.sources import find_sources
from qwen3_vllm.bulk import embed_files, pipeline
from qwen3_vllm.bulk.engine import Job
from qwen3_vllm.bulk.parts import Fields
from qwen3_vllm.bulk.ray_engine import PartEmbedder
from qwen3_vllm.bulk.scan import scan
from tests.bulk.runs import Canned, errors, ids, read_output, vectors, write_jsonl, write_lines
from tests.faults import Reply, Request, SocketServer, serve

from .conftest import RunningServer


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes: two raylets, each with a worker pool of its own, as two hosts would have."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        nodes.add_node(num_cpus=1)
        patch.setenv("RAY_ADDRESS", nodes.address)
        try:
            yield nodes
        finally:
            ray.shutdown()
            nodes.shutdown()


@pytest.fixture
def canned() -> Canned:
    return Canned()


@pytest.fixture
def server(canned: Canned) -> Iterator[SocketServer]:
    with serve(canned) as running:
        yield running


@pytest.fixture
def client(server: SocketServer) -> EmbeddingClient:
    return EmbeddingClient(base_url=server.base_url)


@pytest.mark.usefixtures("cluster")
class TestRay:
    def test_gives_the_same_folder_as_the_local_engine(self, tmp_path: Path, client: EmbeddingClient) -> None:
        inputs = [
            write_jsonl(tmp_path / "a.jsonl", 950),
            write_lines(tmp_path / "b.jsonl", ['{"text": "x"}', "{", "", '{"text": 1}']),
            write_lines(tmp_path / "c.csv", ["id,text", *(f'{n},"line\n{n}"' for n in range(120))]),
        ]
        local = embed_files(inputs, tmp_path / "local", client=client, part_rows=100)
        on_ray = embed_files(
            inputs, tmp_path / "ray", client=client, part_rows=100, engine="ray", workers=(2, 2)
        )
        names = [path.name for path in sorted((tmp_path / "local").glob("*.parquet"))]
        assert [path.name for path in sorted((tmp_path / "ray").glob("*.parquet"))] == names
        assert read_output(tmp_path / "ray").equals(read_output(tmp_path / "local"))
        assert errors(tmp_path / "ray") == errors(tmp_path / "local")
        assert (on_ray.embedded, on_ray.failed, on_ray.characters) == (
            local.embedded,
            local.failed,
            local.characters,
        )

    def test_works_on_both_nodes(self, tmp_path: Path) -> None:
        canned = Canned()
        raylets: set[int] = set()

        def answer(request: Request) -> Reply | None:
            raylets.update(process.ppid() for process in actor_processes())
            return canned(request)

        path = write_jsonl(tmp_path / "a.jsonl", 500)
        with serve(answer) as server:
            client = EmbeddingClient(base_url=server.base_url)
            embed_files([path], tmp_path / "out", client=client, part_rows=50, engine="ray", workers=(2, 2))
        assert len(raylets) == 2

    def test_goes_on_where_the_local_engine_was_stopped(
        self, tmp_path: Path, server: SocketServer, canned: Canned, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pipeline, "CHUNK_DOCUMENTS", 50)
        path = write_jsonl(tmp_path / "a.jsonl", 1000)
        impatient = EmbeddingClient(base_url=server.base_url, max_retries=0)

        def gone(connection: object, reply: object) -> None:
            raise ConnectionAbortedError

        whole, server.fault = server.fault, lambda r: gone if len(canned.documents()) > 500 else whole(r)
        with pytest.raises(ServerUnreachableError):
            embed_files([path], tmp_path / "out", client=impatient, part_rows=100)
        server.fault = whole
        done = {f"document {id[1:]}" for id in ids(tmp_path / "out")}
        canned.texts.clear()
        embed_files([path], tmp_path / "out", client=impatient, part_rows=100, engine="ray")
        assert ids(tmp_path / "out") == [f"d{n}" for n in range(1000)]
        assert len(done) > 200
        assert done.isdisjoint(canned.documents())

    def test_a_failing_server_ends_it_with_the_error_of_the_client(
        self, tmp_path: Path, server: SocketServer, client: EmbeddingClient, canned: Canned
    ) -> None:
        path = write_jsonl(tmp_path / "a.jsonl", 1000)

        def gone(connection: object, reply: object) -> None:
            raise ConnectionAbortedError

        whole, server.fault = server.fault, lambda r: gone if len(canned.documents()) > 300 else whole(r)
        client = EmbeddingClient(base_url=server.base_url, max_retries=0)
        with pytest.raises(ServerUnreachableError) as caught:
            embed_files([path], tmp_path / "out", client=client, part_rows=100, engine="ray")
        assert any("run the same again" in note for note in caught.value.__notes__)
        server.fault = whole
        embed_files([path], tmp_path / "out", client=client, part_rows=100, engine="ray")
        assert ids(tmp_path / "out") == [f"d{n}" for n in range(1000)]

    def test_a_part_handed_out_again_after_it_appeared_is_not_embedded_again(
        self, tmp_path: Path, client: EmbeddingClient, canned: Canned
    ) -> None:
        path = write_jsonl(tmp_path / "a.jsonl", 60)
        out = tmp_path / "out"
        embed_files([path], out, client=client, part_rows=60)
        canned.texts.clear()
        (source,) = find_sources([path])
        (part,) = scan(0, source, 60, Fields()).parts
        job = Job(client, [source], Fields(), out, "canned", canned.vector(PROBE))
        batch = {name: np.array([value]) for name, value in part._asdict().items()}
        done = PartEmbedder(pickle.dumps(job))(batch)
        step = pickle.loads(done["outcome"][0])
        assert (step.rows, step.kept) == (60, 60)
        assert canned.texts == []

    def test_outlives_a_worker_that_is_killed(self, tmp_path: Path) -> None:
        canned, killed = Canned(), threading.Event()

        def answer(request: Request) -> Reply | None:
            if len(canned.documents()) > 1500 and not killed.is_set():
                killed.set()
                actor_processes()[0].kill()
            time.sleep(0.01)
            return canned(request)

        path = write_jsonl(tmp_path / "a.jsonl", 4000)
        with serve(answer) as server:
            client = EmbeddingClient(base_url=server.base_url)
            embed_files([path], tmp_path / "out", client=client, part_rows=500, engine="ray", workers=(2, 2))
        assert killed.is_set()
        assert ids(tmp_path / "out") == [f"d{n}" for n in range(4000)]
        expected = [canned.vector(f"document {n}") for n in range(4000)]
        np.testing.assert_allclose(vectors(tmp_path / "out"), expected, rtol=1e-6)
        assert list((tmp_path / "out" / "_progress").glob("*.arrow")) == []

    def test_embeds_as_the_local_engine_does_with_a_real_vllm(
        self, tmp_path: Path, embedding_server: RunningServer
    ) -> None:
        path = write_lines(tmp_path / "in.txt", [f"第{n}篇 document {n}" for n in range(200)])
        client = EmbeddingClient(base_url=embedding_server.base_url)
        embed_files([path], tmp_path / "local", client=client, part_rows=50)
        embed_files([path], tmp_path / "ray", client=client, part_rows=50, engine="ray", workers=(2, 2))
        assert ids(tmp_path / "ray") == ids(tmp_path / "local")
        # A vector depends a little on the others in its batch.
        both = [np.asarray(vectors(tmp_path / name), np.float32) for name in ("local", "ray")]
        assert np.einsum("ij,ij->i", *both).min() > 0.9999


def actor_processes() -> list[psutil.Process]:
    """The processes of this test's cluster that run a PartEmbedder."""
    running = psutil.Process().children(recursive=True)
    return [process for process in running if "MapWorker" in " ".join(process.cmdline())]
