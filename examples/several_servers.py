"""One client for several servers of one model: they share the work, and one of them may die meanwhile.

Serve:  qwen3-vllm serve embedding --port 8000; qwen3-vllm serve embedding --port 8010   (on any hosts)
Run:    QWEN3_EMBEDDING_URL=http://127.0.0.1:8000,http://127.0.0.1:8010 python examples/several_servers.py
Prints: the servers, then the passages that are nearest to a question, with their cosines.
"""

import json
import sys
from pathlib import Path

import numpy as np

from qwen3_vllm import EmbeddingClient

CORPUS = Path(__file__).parent.parent / "demo" / "corpus.jsonl"


def main(question: str) -> None:
    # The same as base_url=["http://127.0.0.1:8000", …], in the classes for LangChain and LlamaIndex too. Each
    # server gets requests of 8 texts here, and 16 at once fill one on a large GPU.
    client = EmbeddingClient(batch_size=8, max_concurrency=2 * 16)
    client.wait_until_ready(60)  # one is enough to begin with; the others join when they answer
    print("servers:", client.settings.base_url)
    texts = [json.loads(line)["text"] for line in CORPUS.read_text(encoding="utf-8").splitlines()]
    documents = client.embed_documents(texts)
    cosines = documents @ client.embed_queries([question])[0]
    for place in np.argsort(-cosines)[:3]:
        print(f"{cosines[place]:.4f}  {texts[place]}")


if __name__ == "__main__":
    main(*sys.argv[1:] or ["为什么我们看不到月亮的背面？"])
