"""LlamaIndex ingestion with a cache on disk: what was embedded once is not asked for again.

Serve:  qwen3-vllm serve embedding
Run:    python examples/llama_index_ingestion.py    (cache in ./ingestion_cache.json)
Prints: how many texts the server embedded for each of two runs; the second needs none.
"""

import json
import os
from pathlib import Path

import requests
from llama_index.core import Document
from llama_index.core.ingestion import IngestionCache, IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter

from qwen3_vllm.llama_index import Qwen3VLLMEmbeddings

CACHE = "./ingestion_cache.json"
embed_model = Qwen3VLLMEmbeddings()


def texts_embedded() -> int:
    """What vLLM itself has counted since it started."""
    key = {"Authorization": f"Bearer {os.environ.get('VLLM_API_KEY')}"}
    url = embed_model.base_url.removesuffix("/v1") + "/metrics"
    metrics = requests.get(url, headers=key, timeout=10).text
    counts = [line for line in metrics.splitlines() if line.startswith("vllm:request_success_total")]
    return int(sum(float(line.rpartition(" ")[2]) for line in counts))


lines = (Path(__file__).parents[1] / "demo" / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
documents = [Document(text=row["text"], id_=row["id"]) for row in map(json.loads, lines)]
for run in ("first", "second"):
    before = texts_embedded()
    cache = IngestionCache.from_persist_path(CACHE) if Path(CACHE).exists() else IngestionCache()
    pipeline = IngestionPipeline(transformations=[SentenceSplitter(), embed_model], cache=cache)
    nodes = pipeline.run(documents=documents)
    cache.persist(CACHE)
    print(f"{run} run: {len(nodes)} nodes with vectors, {texts_embedded() - before} texts embedded")
