"""Embed a corpus as one step of a Ray Data pipeline of your own.

Install: pip install -e '.[ray]'
Serve:   qwen3-vllm serve embedding
Run:     python examples/ray_bulk_embed.py demo/corpus.jsonl vectors
Prints:  how many documents are in the output, and its columns.

On a cluster set RAY_ADDRESS, and give an INPUT, an OUTPUT and a QWEN3_EMBEDDING_URL that every host reaches.
To embed files only, with resumption: qwen3-vllm embed corpus.jsonl -o vectors --engine ray
"""

import sys
from typing import Any

import numpy as np
import ray

from qwen3_vllm import EmbeddingClient


class Embedder:
    """One a worker process, so that a client and its connections live as long as the work."""

    def __init__(self) -> None:
        self.client = EmbeddingClient()

    def __call__(self, batch: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        return {**batch, "embedding": self.client.embed_documents(batch["text"].tolist())}


def main(source: str, output: str) -> None:
    read = ray.data.read_parquet if source.endswith(".parquet") else ray.data.read_json
    embedded = read(source).map_batches(
        Embedder,
        batch_size=512,  # what a client has in flight at once
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=4),
    )
    embedded.write_parquet(output)
    stored = ray.data.read_parquet(output)
    print(f"{stored.count()} documents in {output}: {', '.join(stored.schema().names)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
