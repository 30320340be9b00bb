"""Documents of every length score as in Transformers, which cuts the same tokens away."""

from collections.abc import Callable

import numpy as np
import pytest

from qwen3_vllm import RerankClient, TooLongError

from .conftest import RunningServer
from .reference import INSTRUCTION, ReferenceReranker

TOLERANCE = 1e-3
CONTEXT = 2048
QUERIES = {
    "short": "法国的首都是哪里？",
    "long": "Where is Paris, 巴黎在哪里, and what is it known for? " * 40,
}
WORDS = {
    "zh": "法国的首都是巴黎，它位于塞纳河畔，以卢浮宫和埃菲尔铁塔闻名。",
    "en": "Paris, the capital of France, lies on the Seine and is known for the Louvre. ",
    "mixed": "巴黎 Paris：the capital 首都 of France 法国, naïve café 🗼! ",
}
Write = Callable[[str, str, int], str]

pytestmark = pytest.mark.parametrize(
    "server", ["reranker_server", "templated_reranker_server"], ids=["client-templates", "server-templates"]
)


@pytest.fixture(scope="module")
def write(reranker_reference: ReferenceReranker) -> Write:
    """A function that writes a document whose prompt with the query has exactly so many tokens."""

    def count(query: str, document: str) -> int:
        return len(reranker_reference.prompt_ids(query, document, INSTRUCTION, max_length=10**6))

    def write(language: str, query: str, tokens: int) -> str:
        text = WORDS[language] * (tokens // 8)
        fits, too_long = 0, len(text)
        while too_long - fits > 1:
            middle = (fits + too_long) // 2
            fits, too_long = (middle, too_long) if count(query, text[:middle]) <= tokens else (fits, middle)
        document = text[:fits]
        while count(query, document) < tokens:  # a character may bring two tokens; a digit is always one
            document += "7"
        assert count(query, document) == tokens
        return document

    return write


@pytest.fixture
def client(server: str, request: pytest.FixtureRequest) -> Callable[..., RerankClient]:
    running: RunningServer = request.getfixturevalue(server)
    return lambda **options: RerankClient(base_url=running.base_url, **options)


@pytest.mark.parametrize(
    ("language", "query"), [("zh", "short"), ("en", "short"), ("mixed", "short"), ("mixed", "long")]
)
def test_at_and_around_the_limit(
    client: Callable[..., RerankClient],
    reranker_reference: ReferenceReranker,
    write: Write,
    language: str,
    query: str,
) -> None:
    lengths = (CONTEXT - 1, CONTEXT, CONTEXT + 1, 2 * CONTEXT)
    documents = [write(language, QUERIES[query], length) for length in lengths]

    scores = client().score(QUERIES[query], documents)

    expected = reranker_reference.scores(QUERIES[query], documents, max_length=CONTEXT)
    assert np.abs(scores - expected).max() < TOLERANCE


def test_long_documents_do_not_score_alike(
    client: Callable[..., RerankClient], reranker_reference: ReferenceReranker
) -> None:
    """They do where the prompt's end is cut away with the document's."""
    documents = [words * 200 for words in WORDS.values()]

    scores = client().score(QUERIES["short"], documents)

    expected = reranker_reference.scores(QUERIES["short"], documents, max_length=CONTEXT)
    assert np.ptp(expected) > 0.01
    assert np.abs(scores - expected).max() < TOLERANCE


@pytest.mark.parametrize("limit", [1, 50, 500])
@pytest.mark.parametrize("language", WORDS)
def test_max_tokens_per_doc_keeps_whole_characters_of_that_many_tokens(
    client: Callable[..., RerankClient],
    reranker_reference: ReferenceReranker,
    language: str,
    limit: int,
) -> None:
    documents = [WORDS[language] * 60, "short"]
    tokenizer = reranker_reference._tokenizer

    scores = client(max_tokens_per_doc=limit).score(QUERIES["short"], documents)

    kept = [
        tokenizer.decode(tokenizer.encode(document, add_special_tokens=False)[:limit]).rstrip("\ufffd")
        for document in documents
    ]
    assert np.abs(scores - reranker_reference.scores(QUERIES["short"], kept)).max() < TOLERANCE


def test_max_tokens_per_doc_beyond_the_context_is_cut_to_fit(
    client: Callable[..., RerankClient], reranker_reference: ReferenceReranker
) -> None:
    documents = [WORDS["en"] * 400]

    scores = client(max_tokens_per_doc=3000).score(QUERIES["short"], documents)

    expected = reranker_reference.scores(QUERIES["short"], documents, max_length=CONTEXT)
    assert np.abs(scores - expected).max() < TOLERANCE


def test_without_truncation_only_what_is_too_long_is_refused(
    client: Callable[..., RerankClient], reranker_reference: ReferenceReranker, write: Write
) -> None:
    query = QUERIES["short"]
    documents = [write("en", query, CONTEXT + 1), write("en", query, CONTEXT), "巴黎。", WORDS["zh"] * 300]

    with pytest.raises(TooLongError) as caught:
        client(truncate=False).score(query, documents)

    assert list(caught.value.errors) == [0, 3]
    assert caught.value.partial is not None
    expected = reranker_reference.scores(query, documents[1:3], max_length=CONTEXT)
    assert np.abs(caught.value.partial[1:3] - expected).max() < TOLERANCE


def test_a_query_as_long_as_the_context_is_refused_not_cut(client: Callable[..., RerankClient]) -> None:
    with pytest.raises(TooLongError, match=r"^the query is too long"):
        client().score(WORDS["en"] * 200, ["巴黎。"])
