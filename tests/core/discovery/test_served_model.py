"""Which model of a server a client uses."""

import pytest

from qwen3_vllm import EmbeddingClient, errors
from tests.fake_vllm import FakeVLLM
from tests.faults import Reply, Request, always, honest, instead, serve


def listing(*names: str) -> Reply:
    return Reply.of_json({"data": [{"id": name} for name in names]})


def test_an_empty_list_asks_for_a_name() -> None:
    with serve(FakeVLLM("embedding"), always(instead(200, {"data": []}), "/v1/models")) as server:
        with pytest.raises(
            errors.WrongServerError, match=r"lists no model .*: pass the name of one as model"
        ):
            EmbeddingClient(base_url=server.base_url).embed_documents(["a"])

        assert EmbeddingClient(base_url=server.base_url, model="Qwen3").embed_documents(["a"]).any()


def test_where_none_of_several_is_right_they_are_named() -> None:
    def answer(request: Request) -> Reply | None:
        chats = listing("chat", "more-chat") if request.path == "/v1/models" else None
        return chats or FakeVLLM("chat")(request)

    with serve(answer) as server, pytest.raises(errors.Qwen3VLLMError, match="lists 'chat', 'more-chat'"):
        EmbeddingClient(base_url=server.base_url).embed_documents(["a"])


def test_a_server_that_is_busy_is_not_said_to_lack_a_model_that_it_does_not_list() -> None:
    with serve(FakeVLLM("embedding"), lambda request: honest) as server:
        server.fault = always(instead(503), "/v1/embeddings")
        with pytest.raises(errors.OverloadedError):
            EmbeddingClient(base_url=server.base_url, model="alias").embed_documents(["a"])
