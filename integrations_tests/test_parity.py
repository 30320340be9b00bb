"""Every way through the package gives the numbers of Transformers, from real servers."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import pytest
import requests
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode

from qwen3_vllm import ConfigurationError, EmbeddingClient, RerankClient, WrongServerError
from qwen3_vllm._core.http.flow import send
from qwen3_vllm._core.http.transport import Transport
from qwen3_vllm._core.settings import EmbeddingSettings
from qwen3_vllm._core.vllm_api.embeddings import Encoding, WireDtype, embed
from qwen3_vllm.langchain import Qwen3VLLMEmbeddings as LangChainEmbeddings
from qwen3_vllm.langchain import Qwen3VLLMReranker as LangChainReranker
from qwen3_vllm.llama_index import Qwen3VLLMEmbeddings as LlamaIndexEmbeddings
from qwen3_vllm.llama_index import Qwen3VLLMReranker as LlamaIndexReranker
from tests.faults import Reply, Request, serve

from .conftest import RunningServer
from .reference import INSTRUCTION, PREFIX, SUFFIX, ReferenceEmbedding, ReferenceReranker

TOLERANCE = 1e-4
TEXTS = [
    "法国的首都是巴黎。",
    "Berlin is the capital of Germany, on the river Spree.",
    "香蕉是黄色的水果，富含钾。",
    "Mixed 中英文 text,\nwith a newline and an emoji 🌋.",
]
QUERIES = ["法国首都是哪里？", "What is the capital of Germany?"]
# Two documents that differ before the cut: 2,048 tokens are the models' context.
LONG_TEXTS = ["巴黎是法国的首都。" * 500, "Berlin is the capital of Germany. " * 500]
INSTRUCTIONS = [None, "Given a question in any language, find the passage of an encyclopedia that answers it"]

EMBED_DOCUMENTS: dict[str, Callable[[str], Any]] = {
    "client": lambda url: EmbeddingClient(base_url=url).embed_documents(TEXTS),
    "client-async": lambda url: asyncio.run(EmbeddingClient(base_url=url).aembed_documents(TEXTS)),
    "client-lists": lambda url: EmbeddingClient(base_url=url).embed_documents_as_lists(TEXTS),
    "client-float16": lambda url: EmbeddingClient(base_url=url, wire_dtype="float16").embed_documents(TEXTS),
    "langchain": lambda url: LangChainEmbeddings(base_url=url).embed_documents(TEXTS),
    "langchain-async": lambda url: asyncio.run(LangChainEmbeddings(base_url=url).aembed_documents(TEXTS)),
    "llama-index": lambda url: LlamaIndexEmbeddings(base_url=url).get_text_embedding_batch(TEXTS),
    "llama-index-async": lambda url: asyncio.run(
        LlamaIndexEmbeddings(base_url=url).aget_text_embedding_batch(TEXTS)
    ),
}
EMBED_QUERY: dict[str, Callable[[str, str], Any]] = {
    "client": lambda url, query: EmbeddingClient(base_url=url).embed_queries([query])[0],
    "client-async": lambda url, query: asyncio.run(EmbeddingClient(base_url=url).aembed_queries([query]))[0],
    "langchain": lambda url, query: LangChainEmbeddings(base_url=url).embed_query(query),
    "langchain-async": lambda url, query: asyncio.run(LangChainEmbeddings(base_url=url).aembed_query(query)),
    "llama-index": lambda url, query: LlamaIndexEmbeddings(base_url=url).get_query_embedding(query),
    "llama-index-async": lambda url, query: asyncio.run(
        LlamaIndexEmbeddings(base_url=url).aget_query_embedding(query)
    ),
}


@pytest.mark.parametrize("embed", EMBED_DOCUMENTS.values(), ids=EMBED_DOCUMENTS)
def test_documents_embed_as_in_transformers(
    embed: Callable[[str], Any], embedding_server: RunningServer, embedding_reference: ReferenceEmbedding
) -> None:
    vectors = np.array(embed(embedding_server.base_url))

    assert cosines(vectors, embedding_reference.documents(TEXTS)).min() > 0.9999


@pytest.mark.parametrize("encoding", ["bytes_only", "base64"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_every_form_of_an_answer_holds_the_same_vectors(
    encoding: Encoding,
    dtype: WireDtype,
    embedding_server: RunningServer,
    embedding_reference: ReferenceEmbedding,
) -> None:
    call = embed("qwen3_embedding", TEXTS, encoding=encoding, dtype=dtype)
    settings = EmbeddingSettings(base_url=embedding_server.base_url)
    (vectors,) = Transport(settings, start_command="").run(send(call))

    assert cosines(vectors, embedding_reference.documents(TEXTS)).min() > 0.9999


@pytest.mark.parametrize("query", QUERIES, ids=["zh", "en"])
@pytest.mark.parametrize("embed", EMBED_QUERY.values(), ids=EMBED_QUERY)
def test_queries_embed_as_in_transformers(
    embed: Callable[[str, str], Any],
    query: str,
    embedding_server: RunningServer,
    embedding_reference: ReferenceEmbedding,
) -> None:
    vector = np.array([embed(embedding_server.base_url, query)])

    assert cosines(vector, embedding_reference.queries([query])).min() > 0.9999


def test_long_documents_embed_as_cut_by_transformers(
    embedding_server: RunningServer, embedding_reference: ReferenceEmbedding
) -> None:
    vectors = EmbeddingClient(base_url=embedding_server.base_url).embed_documents(LONG_TEXTS)

    assert cosines(vectors, embedding_reference.documents(LONG_TEXTS)).min() > 0.9999


def test_a_query_without_its_instruction_embeds_differently(
    embedding_server: RunningServer, embedding_reference: ReferenceEmbedding
) -> None:
    vectors = EmbeddingClient(base_url=embedding_server.base_url).embed_documents(QUERIES)

    assert cosines(vectors, embedding_reference.queries(QUERIES)).max() < 0.99


def cosines(vectors: object, expected: np.ndarray) -> np.ndarray:
    """Row by row; `expected` has length 1, `vectors` must have it too."""
    assert isinstance(vectors, np.ndarray)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    return (vectors * expected).sum(axis=1)


class ThroughClient:
    """RerankClient."""

    def __init__(self, url: str, instruction: str | None) -> None:
        self.reranker = RerankClient(base_url=url, instruction=instruction or INSTRUCTION)

    def scores(self, query: str) -> np.ndarray:
        return self.reranker.score(query, TEXTS)

    async def ascores(self, query: str) -> np.ndarray:
        return await self.reranker.ascore(query, TEXTS)


class ThroughLangChain:
    """The document compressor, its answer put back into the order of the documents."""

    def __init__(self, url: str, instruction: str | None) -> None:
        self.reranker = LangChainReranker(base_url=url, top_n=None, instruction=instruction or INSTRUCTION)
        self.documents = [Document(text, metadata={"place": place}) for place, text in enumerate(TEXTS)]

    def scores(self, query: str) -> Sequence[float]:
        return self._in_order(self.reranker.compress_documents(self.documents, query))

    async def ascores(self, query: str) -> Sequence[float]:
        return self._in_order(await self.reranker.acompress_documents(self.documents, query))

    def _in_order(self, ranked: Sequence[Document]) -> Sequence[float]:
        by_place = {document.metadata["place"]: document.metadata["relevance_score"] for document in ranked}
        return [by_place[place] for place in range(len(TEXTS))]


class ThroughLlamaIndex:
    """The node postprocessor, its answer put back into the order of the nodes."""

    def __init__(self, url: str, instruction: str | None) -> None:
        self.reranker = LlamaIndexReranker(
            base_url=url, top_n=len(TEXTS), instruction=instruction or INSTRUCTION
        )
        self.nodes = [NodeWithScore(node=TextNode(text=text, id_=str(n))) for n, text in enumerate(TEXTS)]

    def scores(self, query: str) -> Sequence[float]:
        return self._in_order(self.reranker.postprocess_nodes(self.nodes, query_str=query))

    async def ascores(self, query: str) -> Sequence[float]:
        return self._in_order(await self.reranker.apostprocess_nodes(self.nodes, query_str=query))

    def _in_order(self, ranked: Sequence[NodeWithScore]) -> Sequence[float]:
        by_id = {node.node.node_id: node.get_score() for node in ranked}
        return [by_id[str(place)] for place in range(len(TEXTS))]


Through = type[ThroughClient] | type[ThroughLangChain] | type[ThroughLlamaIndex]


@pytest.fixture(params=["reranker_server", "templated_reranker_server"])
def any_reranker_server(request: pytest.FixtureRequest) -> RunningServer:
    """Give each reranker server in turn: who applies the template must not matter to a caller."""
    server: RunningServer = request.getfixturevalue(request.param)
    return server


@pytest.mark.parametrize("instruction", INSTRUCTIONS, ids=["default", "own"])
@pytest.mark.parametrize("query", QUERIES, ids=["zh", "en"])
@pytest.mark.parametrize("through", [ThroughClient, ThroughLangChain, ThroughLlamaIndex])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_scores_are_those_of_transformers(
    is_async: bool,
    through: Through,
    query: str,
    instruction: str | None,
    any_reranker_server: RunningServer,
    reranker_reference: ReferenceReranker,
) -> None:
    way = through(any_reranker_server.base_url, instruction)

    scores = np.asarray(asyncio.run(way.ascores(query)) if is_async else way.scores(query))

    expected = reranker_reference.scores(query, TEXTS, instruction or INSTRUCTION)
    print(f"worst difference of a score: {np.abs(scores - expected).max():.7f}")
    np.testing.assert_allclose(scores, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("option", "server"),
    [
        ("client", "reranker_server"),
        ("client", "templated_reranker_server"),
        ("server", "templated_reranker_server"),
    ],
)
def test_whoever_is_told_to_apply_the_template_scores_are_those_of_transformers(
    option: Literal["client", "server"],
    server: str,
    request: pytest.FixtureRequest,
    reranker_reference: ReferenceReranker,
) -> None:
    running: RunningServer = request.getfixturevalue(server)
    client = RerankClient(base_url=running.base_url, template=option)

    scores = client.score(QUERIES[0], TEXTS + LONG_TEXTS, instruction=INSTRUCTIONS[1])

    expected = reranker_reference.scores(QUERIES[0], TEXTS + LONG_TEXTS, INSTRUCTIONS[1] or INSTRUCTION)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=TOLERANCE)


def test_a_server_without_a_template_contradicts_template_server(reranker_server: RunningServer) -> None:
    with pytest.raises(ConfigurationError, match="applies no chat template"):
        RerankClient(base_url=reranker_server.base_url, template="server").score(QUERIES[0], TEXTS)


@contextmanager
def gateway(server: str, leaves_out: Sequence[str]) -> Iterator[str]:
    """A gateway that passes on some routes, drops `usage` perhaps, and answers /version for itself."""

    def answer(request: Request) -> Reply:
        if request.path == "/version":
            return Reply.of_json({"version": "0.9.0"})
        if request.path in leaves_out:
            return Reply.of_json({"detail": "Not Found"}, 404)
        passed = requests.request(
            request.method,
            server + request.path,
            data=request.body or None,
            headers={"Content-Type": "application/json"},
            timeout=60,
        )
        body = passed.json()
        if "usage" in leaves_out:
            body.pop("usage", None)
        return Reply.of_json(body, passed.status_code)

    with serve(answer) as running:
        yield running.base_url


@pytest.mark.parametrize(
    "leaves_out", [(), ("/classify",), ("/classify", "usage"), ("/classify", "/tokenize", "usage")], ids=str
)
def test_behind_a_gateway_scores_are_those_of_transformers(
    leaves_out: tuple[str, ...], any_reranker_server: RunningServer, reranker_reference: ReferenceReranker
) -> None:
    # A cut text, which goes out where there is no /classify, cannot end in half a character.
    texts = {0: TEXTS + LONG_TEXTS, 3: TEXTS}.get(len(leaves_out), [*TEXTS, LONG_TEXTS[1]])
    with gateway(any_reranker_server.base_url, leaves_out) as url:
        try:
            scores = RerankClient(base_url=url).score(QUERIES[0], texts, instruction=INSTRUCTIONS[1])
        except WrongServerError as error:
            assert "could not check" in str(error)
            client = RerankClient(base_url=url, template="server")
            scores = client.score(QUERIES[0], texts, instruction=INSTRUCTIONS[1])

    expected = reranker_reference.scores(QUERIES[0], texts, INSTRUCTIONS[1] or INSTRUCTION)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("query", QUERIES, ids=["zh", "en"])
def test_long_documents_score_as_cut_by_the_reference(
    query: str, any_reranker_server: RunningServer, reranker_reference: ReferenceReranker
) -> None:
    scores = RerankClient(base_url=any_reranker_server.base_url).score(query, LONG_TEXTS)

    expected = reranker_reference.scores(query, LONG_TEXTS)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("head", "tail"),
    [
        (f"{PREFIX}<Instruct>: {INSTRUCTION}\n<Query>: {{query}}", f"<Document>: {{document}}{SUFFIX}"),
        ("{query}", "{document}"),
    ],
    ids=["no-newline-after-query", "raw"],
)
def test_known_wrong_prompts_score_differently(
    head: str, tail: str, reranker_server: RunningServer, reranker_reference: ReferenceReranker
) -> None:
    worst = []
    for query in QUERIES:
        pairs = {
            "text_1": head.format(query=query),
            "text_2": [tail.format(document=text) for text in TEXTS],
        }
        answer = requests.post(f"{reranker_server.base_url}/score", json=pairs, timeout=60).json()
        scores = np.array([item["score"] for item in answer["data"]])
        worst.append(np.abs(scores - reranker_reference.scores(query, TEXTS)).max())

    print(f"worst difference of a score: {max(worst):.4f}")  # README's table shows it
    assert min(worst) > 100 * TOLERANCE
