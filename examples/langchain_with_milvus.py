"""LangChain with Milvus: embedded in this process, or a Milvus server.

Serve:  qwen3-vllm serve both
Run:    python examples/langchain_with_milvus.py                                      (data in ./milvus.db)
        MILVUS_URI=http://127.0.0.1:19530 python examples/langchain_with_milvus.py    (a Milvus server)
Prints: the three passages that answer best, with P(yes), best first.
"""

import json
import os
from pathlib import Path

from langchain_core.documents import Document
from langchain_milvus import Milvus

from qwen3_vllm.langchain import Qwen3VLLMEmbeddings, Qwen3VLLMReranker, Qwen3VLLMRetriever

lines = (Path(__file__).parents[1] / "demo" / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
rows = [json.loads(line) for line in lines]
passages = [Document(row["text"], metadata={"lang": row["lang"]}) for row in rows]

store = Milvus(
    Qwen3VLLMEmbeddings(),
    collection_name="passages",
    connection_args={"uri": os.environ.get("MILVUS_URI", "./milvus.db")},
    index_params={"index_type": "FLAT", "metric_type": "COSINE"},
    drop_old=True,
)
# Pinecone: store = PineconeVectorStore(index_name="passages", embedding=Qwen3VLLMEmbeddings())
# Weaviate: store = WeaviateVectorStore(client, "Passages", "text", Qwen3VLLMEmbeddings())
store.add_documents(passages, ids=[row["id"] for row in rows])

retriever = Qwen3VLLMRetriever(
    retriever=store.as_retriever(search_kwargs={"k": 20}), reranker=Qwen3VLLMReranker(), k=3
)
for passage in retriever.invoke("地震来了应该躲在哪里？"):
    print(f"{passage.metadata['relevance_score']:.4f}  {passage.page_content}")
