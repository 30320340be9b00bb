"""A whole LlamaIndex query pipeline on real servers: index, retriever, postprocessor."""

import asyncio

import numpy as np
import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import TextNode

from qwen3_vllm.llama_index import Qwen3VLLMEmbeddings, Qwen3VLLMReranker

from .conftest import RunningServer
from .reference import ReferenceEmbedding, ReferenceReranker

TEXTS = [
    "月球总以同一面朝向地球。",
    "Tides rise and fall twice a day.",
    "绿茶宜用八十度左右的水冲泡。",
    "A rainbow shows with the Sun behind you.",
    "高铁刹车时会把电送回电网。",
    "Save a cup of the cooking water of pasta.",
]
QUERY = "为什么看不到月亮的背面？"
RETRIEVED, KEPT = 4, 2


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_query_engine_keeps_what_the_reference_would(
    is_async: bool,
    embedding_server: RunningServer,
    reranker_server: RunningServer,
    embedding_reference: ReferenceEmbedding,
    reranker_reference: ReferenceReranker,
) -> None:
    index = VectorStoreIndex(
        [TextNode(text=text) for text in TEXTS],
        embed_model=Qwen3VLLMEmbeddings(base_url=embedding_server.base_url),
    )
    engine = RetrieverQueryEngine.from_args(
        index.as_retriever(similarity_top_k=RETRIEVED),
        llm=MockLLM(),
        node_postprocessors=[Qwen3VLLMReranker(base_url=reranker_server.base_url, top_n=KEPT)],
    )

    response = asyncio.run(engine.aquery(QUERY)) if is_async else engine.query(QUERY)

    similarity = embedding_reference.documents(TEXTS) @ embedding_reference.queries([QUERY])[0]
    retrieved = [TEXTS[place] for place in np.argsort(-similarity)[:RETRIEVED]]
    scores = reranker_reference.scores(QUERY, retrieved)
    kept = np.argsort(-scores)[:KEPT]
    assert [node.text for node in response.source_nodes] == [retrieved[place] for place in kept]
    np.testing.assert_allclose([node.get_score() for node in response.source_nodes], scores[kept], atol=1e-4)
