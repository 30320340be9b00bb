"""A FastAPI service that answers queries while it builds an index.

Serve:  qwen3-vllm serve both
Run:    python examples/fastapi_service.py                                  (PORT=8020 is another port)
        curl --data-binary @demo/corpus.jsonl http://127.0.0.1:8020/documents
        curl -G http://127.0.0.1:8020/search --data-urlencode "query=地震来了应该躲在哪里？"
Prints: what uvicorn logs. A search looks at the documents that are embedded by then, and says how many.
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import uvicorn
from fastapi import BackgroundTasks, FastAPI, Request

from qwen3_vllm import EmbeddingClient, RerankClient

CANDIDATES, KEPT, AT_ONCE = 20, 3, 128

queries, reranker = EmbeddingClient(), RerankClient()
documents = EmbeddingClient(
    max_concurrency=4
)  # few requests in flight, so that queries need not wait for long
texts: list[str] = []
vectors: list[np.ndarray] = []


@asynccontextmanager
async def ready(app: FastAPI) -> AsyncIterator[None]:
    """Take requests once both servers answer: they may start after this service."""
    await queries.await_until_ready()
    await reranker.await_until_ready()
    yield


app = FastAPI(lifespan=ready)


@app.post("/documents", status_code=202)
async def add(request: Request, background: BackgroundTasks) -> dict[str, int]:
    """Accept JSON lines with a `text`, and embed them after the response."""
    new = [json.loads(line)["text"] for line in (await request.body()).splitlines() if line.strip()]
    background.add_task(embed, new)
    return {"accepted": len(new)}


async def embed(new: list[str]) -> None:
    """Embed documents, a part after the other: what is done can be found."""
    for start in range(0, len(new), AT_ONCE):
        part = new[start : start + AT_ONCE]
        embedded = await documents.aembed_documents(part)
        vectors.append(embedded)
        texts.extend(part)


@app.get("/search")
async def search(query: str) -> dict[str, object]:
    """Return the best documents of those embedded so far, with P(yes)."""
    indexed = len(texts)
    if not indexed:
        return {"indexed": 0, "results": []}
    cosines = np.concatenate(vectors)[:indexed] @ (await queries.aembed_queries([query]))[0]
    candidates = [texts[place] for place in np.argsort(-cosines)[:CANDIDATES]]
    ranked = await reranker.arerank(query, candidates, top_n=KEPT)
    results = [{"text": candidates[each.index], "relevance_score": each.relevance_score} for each in ranked]
    return {"indexed": indexed, "results": results}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8020")))
