"""Where a server's API may be, by what a user pasted."""

import pytest

from qwen3_vllm._core.http.connections.addresses import places_of


@pytest.mark.parametrize(
    ("pasted", "places"),
    [
        ("http://h:8000", ["http://h:8000/v1", "http://h:8000"]),
        ("http://h/", ["http://h/v1", "http://h"]),
        ("http://h/v1", ["http://h/v1"]),
        ("http://h/api/v3", ["http://h/api/v3", "http://h/api/v3/v1"]),
        ("http://h/v1/embeddings", ["http://h/v1", "http://h/v1/embeddings/v1"]),
        ("http://h/rerank", ["http://h/v1", "http://h", "http://h/rerank/v1"]),
        ("http://h/openai/rerank", ["http://h/openai", "http://h/openai/v1", "http://h/openai/rerank/v1"]),
        ("http://h/v2/rerank", ["http://h/v2", "http://h/v2/v1", "http://h/v1", "http://h/v2/rerank/v1"]),
    ],
)
def test_an_address_stands_for_places_in_order(pasted: str, places: list[str]) -> None:
    assert list(places_of(pasted)) == places
