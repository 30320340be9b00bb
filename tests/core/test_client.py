"""Both clients: they have settings, which do not change."""

import copy
import inspect
import pickle

import pytest
from pydantic import SecretStr

from qwen3_vllm import EmbeddingClient, RerankClient, errors, langchain
from qwen3_vllm._core.client import Client, transport_of
from qwen3_vllm._core.embedding.client import pinned
from qwen3_vllm._core.settings import EmbeddingSettings, RerankSettings
from qwen3_vllm._core.usage import Usage
from tests.conftest import Embed
from tests.fake_vllm import FakeVLLM
from tests.faults import serve

KEY = "sk-very-secret-4711"
BOTH = pytest.mark.parametrize(
    ("kind", "settings"), [(EmbeddingClient, EmbeddingSettings), (RerankClient, RerankSettings)]
)


def test_a_client_has_few_public_names() -> None:
    def public(kind: type[Client[EmbeddingSettings]] | type[Client[RerankSettings]]) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    both = {"settings", "with_options", "usage", "reset_usage", "wait_until_ready", "await_until_ready"}
    assert public(EmbeddingClient) == {
        *("embed_queries", "embed_documents", "embed_documents_as_lists", "cache_namespace"),
        *("aembed_queries", "aembed_documents", "aembed_documents_as_lists", "acache_namespace"),
        *both,
    }
    assert public(RerankClient) == {"score", "ascore", "rerank", "arerank", *both}


@BOTH
def test_the_signature_names_each_option(kind: type, settings: type) -> None:
    options = list(inspect.signature(settings).parameters.values())

    assert list(inspect.signature(kind).parameters.values()) == options
    assert list(inspect.signature(kind.with_options).parameters.values())[1:] == options  # type: ignore[attr-defined]


def test_type_checkers_know_the_options() -> None:
    """Each comment is an error where it is not needed."""
    with pytest.raises(errors.ConfigurationError, match="did you mean batch_size"):
        EmbeddingClient(batchsize=3)  # type: ignore[call-arg]
    with pytest.raises(errors.ConfigurationError, match="dimensions is not an option"):
        RerankClient().with_options(dimensions=4)  # type: ignore[call-arg]


@BOTH
def test_a_bad_option_is_refused(kind: type, settings: type) -> None:
    for make in (kind, kind().with_options):
        with pytest.raises(
            errors.ConfigurationError, match=f"^{kind.__name__}: batch_size=-1 should be"
        ) as caught:
            make(batch_size=-1)
        assert list(caught.value.problems) == ["batch_size"]


@BOTH
def test_a_client_cannot_change(kind: type, settings: type) -> None:
    client = kind()
    for name in ("batch_size", "settings", "timeuot"):
        with pytest.raises(errors.ConfigurationError, match=f"{name} cannot change; with_options"):
            setattr(client, name, 3)
        with pytest.raises(errors.ConfigurationError, match=name):
            delattr(client, name)
    with pytest.raises(errors.ConfigurationError, match="batch_size cannot change"):
        client.settings.batch_size = 3


@BOTH
def test_it_shows_its_settings(kind: type, settings: type) -> None:
    shown = repr(kind(api_key=KEY, default_headers={"X-Token": KEY}, batch_size=3))

    assert shown.startswith(f"{kind.__name__}(base_url=") and "batch_size=3" in shown
    assert KEY not in shown


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy], ids=["copy", "deepcopy"])
def test_a_used_client_can_be_copied(copied: object, embed: Embed) -> None:
    with serve(FakeVLLM("embedding", api_key=KEY)) as server:
        client = EmbeddingClient(base_url=server.base_url, api_key=KEY)
        embed(client, ["a"])

        assert embed(copied(client), ["a"]).shape == (1, 16)  # type: ignore[operator]


def test_a_copy_with_other_options_uses_them() -> None:
    with serve(FakeVLLM("embedding")) as old, serve(FakeVLLM("embedding", dimensions=4)) as new:
        client = EmbeddingClient(base_url=old.base_url)
        client.embed_documents(["a"])

        other = client.with_options(base_url=new.base_url)

        assert other.embed_documents(["a"]).shape == (1, 4)
        assert client.embed_documents(["a"]).shape == (1, 16)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickled_client_works(protocol: int, embed: Embed) -> None:
    with serve(FakeVLLM("embedding")) as server:
        client = EmbeddingClient(base_url=server.base_url, dimensions=4)
        embed(client, ["a"])

        assert embed(pickle.loads(pickle.dumps(client, protocol)), ["a"]).shape == (1, 4)


def test_a_client_for_one_model_shares_the_limit() -> None:
    client = EmbeddingClient(batch_size=3)

    one = pinned(client, "a")

    assert transport_of(one) is transport_of(client)
    assert (one.settings.model, one.settings.batch_size, client.settings.model) == ("a", 3, None)
    assert pinned(one, "a") is one


def test_a_client_for_one_model_of_several_servers_counts_for_both() -> None:
    with serve(FakeVLLM("embedding")) as first, serve(FakeVLLM("embedding")) as second:
        client = EmbeddingClient(base_url=[first.base_url, second.base_url])
        one = pinned(client, "Qwen3")

        one.embed_documents(["a"])

    assert client.usage == one.usage != Usage()


# --- adapters --------------------------------------------------------------------------------------------


def test_an_adapter_makes_its_client_anew_when_one_of_its_options_changes() -> None:
    reranker = langchain.Qwen3VLLMReranker(batch_size=3)
    client = reranker.client
    reranker.top_n = 7
    assert reranker.client is client

    reranker.batch_size = 4

    assert (reranker.client.settings.batch_size, client.settings.batch_size) == (4, 3)


@pytest.mark.parametrize("deep", [False, True])
def test_copies_share_a_client_while_they_have_its_options(deep: bool) -> None:
    reranker = langchain.Qwen3VLLMReranker(api_key=KEY)
    client = reranker.client

    assert reranker.model_copy(update={"top_n": 7, "api_key": KEY}, deep=deep).client is client
    other = reranker.model_copy(update={"timeout": 7}, deep=deep)
    assert transport_of(other.client) is not transport_of(client)
    assert other.client.settings.api_key == SecretStr(KEY)
    assert reranker.client is client
