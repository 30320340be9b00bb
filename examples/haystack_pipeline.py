"""Haystack: the clients as three small components.

Serve:  qwen3-vllm serve both
Run:    python examples/haystack_pipeline.py
Prints: the three passages that answer best, with P(yes), best first.
"""

import json
from dataclasses import replace
from pathlib import Path

from haystack import Document, Pipeline, component
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore

from qwen3_vllm import EmbeddingClient, RerankClient

embedding, reranker = EmbeddingClient(), RerankClient()


@component
class Qwen3DocumentEmbedder:
    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]):
        vectors = embedding.embed_documents([document.content for document in documents])
        pairs = zip(documents, vectors.tolist(), strict=True)
        return {"documents": [replace(document, embedding=vector) for document, vector in pairs]}


@component
class Qwen3TextEmbedder:
    @component.output_types(embedding=list[float])
    def run(self, text: str):
        return {"embedding": embedding.embed_queries([text])[0].tolist()}


@component
class Qwen3Ranker:
    @component.output_types(documents=list[Document])
    def run(self, query: str, documents: list[Document], top_k: int = 3):
        ranked = reranker.rerank(query, [document.content for document in documents], top_n=top_k)
        return {"documents": [replace(documents[r.index], score=r.relevance_score) for r in ranked]}


lines = (Path(__file__).parents[1] / "demo" / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
passages = [Document(id=row["id"], content=row["text"]) for row in map(json.loads, lines)]
store = InMemoryDocumentStore()
store.write_documents(Qwen3DocumentEmbedder().run(documents=passages)["documents"])

pipeline = Pipeline()
pipeline.add_component("embedder", Qwen3TextEmbedder())
pipeline.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=20))
pipeline.add_component("ranker", Qwen3Ranker())
pipeline.connect("embedder.embedding", "retriever.query_embedding")
pipeline.connect("retriever.documents", "ranker.documents")

question = "怎样让平底锅不粘？"
found = pipeline.run({"embedder": {"text": question}, "ranker": {"query": question}})
for document in found["ranker"]["documents"]:
    print(f"{document.score:.4f}  {document.content}")
