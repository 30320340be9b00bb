"""Hybrid search: BM25 finds the words, embeddings find the meaning, the reranker decides.

Serve:  qwen3-vllm serve both
Run:    python examples/hybrid_bm25.py
Prints: the three best passages with P(yes), and whether BM25, the embeddings or both had found them.
"""

import json
import re
from pathlib import Path

from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from rank_bm25 import BM25Okapi

from qwen3_vllm.langchain import Qwen3VLLMEmbeddings, Qwen3VLLMReranker

QUESTION = "How is a password kept safe on a server?"


def words(text: str) -> list[str]:
    """Split into words, and Chinese, which has no spaces, into characters."""
    return re.findall(r"[\u4e00-\u9fff]|[^\W\u4e00-\u9fff]+", text.lower())


lines = (Path(__file__).parents[1] / "demo" / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
passages = [Document(row["text"], id=row["id"]) for row in map(json.loads, lines)]

bm25 = BM25Okapi([words(passage.page_content) for passage in passages])
by_words = bm25.get_top_n(words(QUESTION), passages, n=10)
store = InMemoryVectorStore(Qwen3VLLMEmbeddings())
store.add_documents(passages)
by_meaning = store.similarity_search(QUESTION, k=10)

# Scores of BM25 and cosines cannot be compared; the reranker reads all candidates with the same eyes.
candidates = list({passage.page_content: passage for passage in by_words + by_meaning}.values())
found_by = {"BM25": {p.page_content for p in by_words}, "embeddings": {p.page_content for p in by_meaning}}
for passage in Qwen3VLLMReranker(top_n=3).compress_documents(candidates, QUESTION):
    finders = " and ".join(name for name, texts in found_by.items() if passage.page_content in texts)
    print(f"{passage.metadata['relevance_score']:.4f}  {passage.page_content}  [{finders}]")
