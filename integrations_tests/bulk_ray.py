"""The Ray engine against a real vLLM. Not collected by itself: Ray is large and starts slowly.

pip install -e '.[ray]' && pytest integrations_tests/bulk_ray.py
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
from ray.cluster_utils import Cluster

from qwen3_vllm import EmbeddingClient
from qwen3_vllm.bulk import embed_files

from .conftest import RunningServer


@pytest.fixture
def cluster() -> Iterator[None]:
    """Two nodes on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        nodes.add_node(num_cpus=1)
        patch.setenv("RAY_ADDRESS", nodes.address)
        yield
        ray.shutdown()
        nodes.shutdown()


@pytest.mark.usefixtures("cluster")
def test_gives_the_same_folder_as_the_local_engine(embedding_server: RunningServer, tmp_path: Path) -> None:
    source = tmp_path / "in.txt"
    source.write_text("\n".join(f"第{n}篇 document {n}" for n in range(200)), "utf-8")
    client = EmbeddingClient(base_url=embedding_server.base_url)
    embed_files([source], tmp_path / "local", client=client, part_rows=50)
    embed_files([source], tmp_path / "ray", client=client, part_rows=50, engine="ray", workers=(2, 2))
    local, on_ray = (pq.read_table(sorted((tmp_path / n).glob("*.parquet"))) for n in ("local", "ray"))
    assert on_ray.drop(["embedding"]).equals(local.drop(["embedding"]))
    vectors = [np.array(t.column("embedding").to_pylist(), np.float32) for t in (local, on_ray)]
    # A vector depends a little on the others in its batch.
    assert np.einsum("ij,ij->i", *vectors).min() > 0.9999
