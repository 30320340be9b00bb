"""Spans of a search and its ranking, on the console; any exporter of OpenTelemetry's SDK does in its place.

Serve:  qwen3-vllm serve both
Run:    python examples/opentelemetry_spans.py
Prints: three spans: of the embeddings, of the ranking, and of the search around them.

vLLM's own spans join them when it is started with `--otlp-traces-endpoint` (docs/usage.md).
"""

import json
from pathlib import Path

from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from qwen3_vllm.langchain import Qwen3VLLMEmbeddings, Qwen3VLLMReranker

lines = (Path(__file__).parents[1] / "demo" / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
store = InMemoryVectorStore(Qwen3VLLMEmbeddings())
store.add_documents([Document(json.loads(line)["text"]) for line in lines])

# An application does this once, at its start. So late, the corpus has no span.
provider = TracerProvider(resource=Resource({"service.name": "search"}))
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
trace.set_tracer_provider(provider)

with trace.get_tracer("example").start_as_current_span("search"):
    question = "Why can we not see the far side of the Moon?"
    found = store.similarity_search(question, k=20)
    Qwen3VLLMReranker(top_n=3).compress_documents(found, question)
