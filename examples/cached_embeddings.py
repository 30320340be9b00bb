"""LangChain's CacheBackedEmbeddings on disk, with names that never give one vector for another.

Serve:  qwen3-vllm serve embedding
Run:    python examples/cached_embeddings.py    (cache in ./embedding_cache)
Prints: the time for a corpus and a query, the first time and from the cache.

One namespace would give a query the vector of an equal document, and 0.6B's vectors for those of 4B.
`cache_namespace` is another for queries, documents, models, instructions and dimensions.
"""

import json
import time
from pathlib import Path

from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_classic.storage import LocalFileStore

from qwen3_vllm.langchain import Qwen3VLLMEmbeddings

lines = (Path(__file__).parents[1] / "demo" / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
passages = [json.loads(line)["text"] for line in lines]
folder = Path("./embedding_cache")

embeddings = Qwen3VLLMEmbeddings()
cached = CacheBackedEmbeddings.from_bytes_store(
    embeddings,
    LocalFileStore(folder / embeddings.cache_namespace("document")),
    query_embedding_cache=LocalFileStore(folder / embeddings.cache_namespace("query")),
    key_encoder="sha256",
)

for run in ("first", "second"):
    start = time.perf_counter()
    vectors = cached.embed_documents(passages)
    query = cached.embed_query(passages[0])
    print(f"{run} time: {len(vectors)} documents and a query in {time.perf_counter() - start:.3f} s")
print("a query and a document of the same text have different vectors:", query != vectors[0])
