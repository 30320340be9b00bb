"""A server of vectors that no model makes, and chunks of a few documents."""

from collections.abc import Iterator

import pytest

from qwen3_vllm.bulk import pipeline
from tests.bulk.runs import Canned
from tests.faults import SocketServer, serve


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "CHUNK_DOCUMENTS", 10)


@pytest.fixture
def canned() -> Canned:
    return Canned()


@pytest.fixture
def server(canned: Canned) -> Iterator[SocketServer]:
    with serve(canned) as running:
        yield running
