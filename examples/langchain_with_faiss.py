"""LangChain with FAISS: search a corpus, rerank what was found.

Serve:  qwen3-vllm serve both
Run:    python examples/langchain_with_faiss.py "地震来了应该躲在哪里？"
Prints: the three passages that answer best, with P(yes), best first.

LangChain's FAISS store still lives in langchain-community, which warns that it is no longer maintained.
"""

import json
import sys
from pathlib import Path

from langchain_community.vectorstores import FAISS
from langchain_core.documents import Document

from qwen3_vllm.langchain import Qwen3VLLMEmbeddings, Qwen3VLLMReranker, Qwen3VLLMRetriever

question = sys.argv[1] if len(sys.argv) > 1 else "How do I keep food from sticking to an iron skillet?"
lines = (Path(__file__).parents[1] / "demo" / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
passages = [Document(row["text"], id=row["id"]) for row in map(json.loads, lines)]

store = FAISS.from_documents(passages, Qwen3VLLMEmbeddings())
retriever = Qwen3VLLMRetriever(
    retriever=store.as_retriever(search_kwargs={"k": 20}), reranker=Qwen3VLLMReranker(), k=3
)

for passage in retriever.invoke(question):
    print(f"{passage.metadata['relevance_score']:.4f}  {passage.page_content}")
