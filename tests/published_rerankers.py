"""`RerankerTests` on rerankers that others have published; no part of this package's own tests.

    pip install langchain-cohere langchain-nvidia-ai-endpoints langchain-voyageai
    pytest tests/published_rerankers.py

Cohere's client speaks to a real vLLM where RERANKER_URL is set; else, as the others, to a canned server.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from langchain_cohere import CohereRerank
from langchain_core.documents import BaseDocumentCompressor
from langchain_nvidia_ai_endpoints import NVIDIARerank
from langchain_voyageai import VoyageAIRerank

from qwen3_vllm.testing import RerankerTests
from tests.faults import Reply, Request, serve

MODEL = os.environ.get("RERANKER_MODEL", "qwen3_reranker")
KEY = "a-secret-key"


def answer(request: Request) -> Reply:
    """Rank as the three services do; a score is a hash of query and text."""
    if request.method == "GET":
        return Reply.of_json({"object": "list", "data": [{"id": MODEL, "object": "model"}]})
    body = request.json
    if request.path.endswith("/ranking"):
        ranked = _ranked(body["query"]["text"], [passage["text"] for passage in body["passages"]])
        return Reply.of_json({"rankings": [{"index": i, "logit": 20 * score - 10} for i, score in ranked]})
    ranked = _ranked(body["query"], body["documents"])[: body.get("top_n") or body.get("top_k")]
    results = [{"index": index, "relevance_score": score} for index, score in ranked]
    usage = {"total_tokens": 1}
    return Reply.of_json({"id": "1", "model": MODEL, "results": results, "data": results, "usage": usage})


def _ranked(query: str, documents: Sequence[str]) -> list[tuple[int, float]]:
    scores = [hashlib.sha256((query + text).encode()).digest()[0] / 255 for text in documents]
    return sorted(enumerate(scores), key=lambda pair: -pair[1])


class OnCannedServer(RerankerTests):
    """Tests that need an address first."""

    base_url: str

    @pytest.fixture(autouse=True)
    def _server(self) -> Iterator[None]:
        with serve(answer) as server:
            self.base_url = server.base_url
            yield


class TestCohere(OnCannedServer):
    """langchain-cohere, at /v2/rerank."""

    @property
    def reranker_constructor(self) -> type[BaseDocumentCompressor]:
        return CohereRerank

    @property
    def reranker_constructor_params(self) -> dict[str, Any]:
        url = os.environ.get("RERANKER_URL", self.base_url)
        return {"base_url": url, "model": MODEL, "cohere_api_key": KEY}

    @property
    def secrets(self) -> dict[str, str]:
        return {"cohere_api_key": KEY}


class TestNVIDIA(OnCannedServer):
    """langchain-nvidia-ai-endpoints, at /v1/ranking."""

    @property
    def reranker_constructor(self) -> type[BaseDocumentCompressor]:
        return NVIDIARerank

    @property
    def reranker_constructor_params(self) -> dict[str, Any]:
        url = f"{self.base_url}/v1"
        return {"base_url": url, "model": MODEL, "api_key": KEY, "usage_telemetry_enabled": False}

    @property
    def secrets(self) -> dict[str, str]:
        return {"api_key": KEY}


class TestVoyageAI(OnCannedServer):
    """langchain-voyageai, at /v1/rerank."""

    @property
    def reranker_constructor(self) -> type[BaseDocumentCompressor]:
        return VoyageAIRerank

    @property
    def reranker_constructor_params(self) -> dict[str, Any]:
        return {"base_url": f"{self.base_url}/v1", "model": MODEL, "api_key": KEY}

    @property
    def num_results_arg_name(self) -> str:
        return "top_k"

    @property
    def secrets(self) -> dict[str, str]:
        return {"api_key": KEY}
