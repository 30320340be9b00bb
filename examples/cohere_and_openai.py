"""Cohere's and OpenAI's own clients at the same servers, without this package.

Serve:  qwen3-vllm serve both
Run:    python examples/cohere_and_openai.py
Prints: the cosine of a query and each document by either client, which are equal; then P(yes) by Cohere's.

The launcher makes this right: its reranker applies the chat template, and from vLLM 0.18 its embedding server
puts the instruction before queries that come with Cohere's `input_type`. OpenAI's API has no such field, so
the instruction is part of the text.
"""

import os

import cohere
import numpy as np
from openai import OpenAI

TASK = "Given a web search query, retrieve relevant passages that answer the query"
EMBEDDING = os.environ.get("QWEN3_EMBEDDING_URL", "http://127.0.0.1:8000").rstrip("/").removesuffix("/v1")
RERANKER = os.environ.get("QWEN3_RERANKER_URL", "http://127.0.0.1:8001").rstrip("/").removesuffix("/v1")
KEY = os.environ.get("VLLM_API_KEY", "EMPTY")
QUERY, DOCUMENTS = "法国的首都是哪里？", ["中国的首都是北京。", "法国的首都是巴黎。"]

by_openai = OpenAI(base_url=f"{EMBEDDING}/v1", api_key=KEY)
by_cohere = cohere.ClientV2(base_url=EMBEDDING, api_key=KEY)
model = by_openai.models.list().data[0].id


def openai_vectors(texts: list[str]) -> np.ndarray:
    """Embed texts as they are."""
    answer = by_openai.embeddings.create(model=model, input=texts)
    return np.array([item.embedding for item in answer.data])


def cohere_vectors(texts: list[str], input_type: str) -> np.ndarray:
    """Embed texts as queries or as documents."""
    answer = by_cohere.embed(model=model, texts=texts, input_type=input_type, embedding_types=["float"])
    return np.array(answer.embeddings.float_)


cosines = openai_vectors(DOCUMENTS) @ openai_vectors([f"Instruct: {TASK}\nQuery:{QUERY}"])[0]
others = cohere_vectors(DOCUMENTS, "search_document") @ cohere_vectors([QUERY], "search_query")[0]
for text, cosine, other in zip(DOCUMENTS, cosines, others, strict=True):
    print(f"cosine {cosine:.4f} {other:.4f}  {text}")

reranking = cohere.ClientV2(base_url=RERANKER, api_key=KEY)
served = OpenAI(base_url=f"{RERANKER}/v1", api_key=KEY).models.list().data[0].id
for result in reranking.rerank(model=served, query=QUERY, documents=DOCUMENTS).results:
    print(f"P(yes) {result.relevance_score:.4f}  {DOCUMENTS[result.index]}")
