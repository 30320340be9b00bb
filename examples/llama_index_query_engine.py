"""LlamaIndex: a FAISS vector store behind a query engine, reranked, without an LLM.

Serve:  qwen3-vllm serve both
Run:    python examples/llama_index_query_engine.py
Prints: the three nodes that answer best, with P(yes), best first.

With an LLM as `Settings.llm`, leave `response_mode` out and print the response.
"""

import json
from pathlib import Path

import faiss
from llama_index.core import Document, Settings, StorageContext, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.vector_stores.faiss import FaissVectorStore

from qwen3_vllm.llama_index import Qwen3VLLMEmbeddings, Qwen3VLLMReranker

lines = (Path(__file__).parents[1] / "demo" / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
documents = [Document(text=row["text"], id_=row["id"]) for row in map(json.loads, lines)]

Settings.llm = MockLLM()
Settings.embed_model = Qwen3VLLMEmbeddings()
length = len(Settings.embed_model.get_query_embedding("How long is a vector?"))
store = FaissVectorStore(faiss_index=faiss.IndexFlatIP(length))
index = VectorStoreIndex.from_documents(
    documents, storage_context=StorageContext.from_defaults(vector_store=store)
)
engine = index.as_query_engine(
    similarity_top_k=20, node_postprocessors=[Qwen3VLLMReranker(top_n=3)], response_mode="no_text"
)

for node in engine.query("怎样修改刚刚做的提交？").source_nodes:
    print(f"{node.score:.4f}  {node.text}")
