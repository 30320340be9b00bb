"""The bare HTTP calls, by `openai` and `requests`, without this package.

Serve:  qwen3-vllm serve both
Run:    python examples/plain_python.py
Prints: the cosine of a query and each document; then P(yes) and the label by the reranker.
"""

import os

import numpy as np
import requests
from openai import OpenAI

TASK = "Given a web search query, retrieve relevant passages that answer the query"
HEAD = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the "
    'Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
TAIL = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
EMBEDDING = os.environ.get("QWEN3_EMBEDDING_URL", "http://127.0.0.1:8000").rstrip("/").removesuffix("/v1")
RERANKER = os.environ.get("QWEN3_RERANKER_URL", "http://127.0.0.1:8001").rstrip("/").removesuffix("/v1")
KEY = os.environ.get("VLLM_API_KEY", "EMPTY")
QUERY, DOCUMENTS = "中国的首都是哪里？", ["The capital of China is Beijing.", "绿茶宜用八十度左右的水冲泡。"]

client = OpenAI(base_url=f"{EMBEDDING}/v1", api_key=KEY)
texts = [f"Instruct: {TASK}\nQuery:{QUERY}", *DOCUMENTS]  # queries get the instruction, documents none
answer = client.embeddings.create(model=client.models.list().data[0].id, input=texts)
query, *documents = np.array([item.embedding for item in answer.data])
for text, vector in zip(DOCUMENTS, documents, strict=True):
    print(f"cosine {query @ vector:.4f}  {text}")


def score(text_1: str, text_2: list[str], **more: str) -> dict:
    """Score pairs; vLLM puts `text_1` and each of `text_2` together without anything in between."""
    body = {"model": reranker, "text_1": text_1, "text_2": text_2, **more}
    return session.post(f"{RERANKER}/v1/score", json=body, timeout=60).json()


session = requests.Session()
session.headers["Authorization"] = f"Bearer {KEY}"
reranker = session.get(f"{RERANKER}/v1/models", timeout=60).json()["data"][0]["id"]
if score("a", ["b"])["usage"]["prompt_tokens"] > 2:  # the server has a chat template and writes the prompt
    answer = score(QUERY, DOCUMENTS, instruction=TASK)
else:
    head = f"{HEAD}<Instruct>: {TASK}\n<Query>: {QUERY}\n"  # the newline counts
    answer = score(head, [f"<Document>: {text}{TAIL}" for text in DOCUMENTS])
for item in answer["data"]:
    label = "yes" if item["score"] >= 0.5 else "no"  # the server sends no label
    print(f"P(yes) {item['score']:.4f} {label:3}  {DOCUMENTS[item['index']]}")
