"""Options: the argument, then the environment, then the default; and keys that stay out of sight."""

import logging
import pickle
import traceback
from urllib.parse import quote

import pytest
from pydantic import SecretStr, ValidationError

from qwen3_vllm import EmbeddingClient, RerankClient, errors, langchain
from qwen3_vllm._core.settings import EmbeddingSettings, RerankSettings
from tests.fake_vllm import FakeVLLM
from tests.faults import always, instead, serve

KEY = "sk-very-secret-4711"

BOTH = pytest.mark.parametrize("settings", [EmbeddingSettings, RerankSettings])


@BOTH
def test_defaults_are_those_of_vllm(settings: type[EmbeddingSettings] | type[RerankSettings]) -> None:
    port = "8000/v1" if settings is EmbeddingSettings else "8001"

    assert settings().base_url == f"http://127.0.0.1:{port}"
    assert settings().api_key is None


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("http://a:1, http://b:1/,", ("http://a:1", "http://b:1")),
        (["http://a:1", "http://b:1/v1"], ("http://a:1", "http://b:1/v1")),
        (("http://a:1/", "http://a:1/v1", "http://a:1"), "http://a:1"),
        (["https://a/x/v1", "HTTPS://A:443/x", "https://a/y"], ("https://a/x/v1", "https://a/y")),
        (["http://a:1,http://b:1", "http://c:1"], ("http://a:1", "http://b:1", "http://c:1")),
    ],
)
def test_several_addresses_are_kept_once_each(given: str | list[str], kept: str | tuple[str, ...]) -> None:
    settings = EmbeddingSettings(base_url=given)
    assert settings.base_url == kept
    assert EmbeddingSettings.model_validate_json(settings.model_dump_json()).base_url == kept


@pytest.mark.parametrize("bad", ["c:8000", "http://user:a-password@c"])
def test_a_bad_one_of_several_addresses_is_named_by_its_place(bad: str) -> None:
    with pytest.raises(
        errors.ConfigurationError, match=r"^EmbeddingSettings: address 3 of 3: base_url must"
    ) as caught:
        EmbeddingSettings(base_url=["http://a:1", f"http://b:1,, {bad}"])
    assert bad not in str(caught.value)


def test_several_addresses_may_be_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWEN3_RERANKER_URL", "http://a:1,http://b:1")
    assert RerankSettings().base_url == ("http://a:1", "http://b:1")


@pytest.mark.parametrize(
    ("settings", "name"),
    [(EmbeddingSettings, "QWEN3_EMBEDDING_URL"), (RerankSettings, "QWEN3_RERANKER_URL")],
)
def test_the_environment_names_the_server_unless_an_argument_does(
    settings: type[EmbeddingSettings] | type[RerankSettings], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "http://elsewhere:1")

    assert settings().base_url == "http://elsewhere:1"
    assert settings(base_url="http://here:2").base_url == "http://here:2"
    assert settings(base_url=None).base_url == "http://elsewhere:1"


@BOTH
def test_the_environment_has_the_key_unless_an_argument_does(
    settings: type[EmbeddingSettings] | type[RerankSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "from-environment")

    assert settings().api_key == SecretStr("from-environment")
    assert settings(api_key=None).api_key == SecretStr("from-environment")
    assert settings(api_key="given").api_key == SecretStr("given")


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_variable_is_none(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", empty)
    monkeypatch.setenv("QWEN3_EMBEDDING_URL", "")

    assert EmbeddingSettings().api_key is None
    assert EmbeddingSettings().base_url == "http://127.0.0.1:8000/v1"


@pytest.mark.parametrize("url", ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"])
def test_a_base_url_is_taken_with_or_without_v1(url: str) -> None:
    client = EmbeddingClient(base_url=url)

    assert client._transport.root == "http://h:1"


@pytest.mark.parametrize("url", ["https://h/rerank/v1", "https://h/team/rerank", "https://h/v1/team"])
def test_a_gateways_prefix_may_be_named_like_a_route(url: str) -> None:
    assert RerankSettings(base_url=url).base_url == url


@pytest.mark.parametrize("url", ["https://h/prefix", "https://h/prefix/v1", "https://h/prefix/v1/embeddings"])
def test_a_path_before_v1_is_kept(url: str) -> None:
    assert EmbeddingClient(base_url=url)._transport.root == "https://h/prefix"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8000",
        "ftp://h",
        "http://",
        "http://h:port",
        "http://h:70000",
        "http://h:0",
        "http://user:pw@h",
        "http://h?key=1",
        "http://h#x",
        "http://[::1",
        "http://a..b",
        "http://a b",
        3,
        ["http://h", 3],
    ],
)
def test_a_base_url_that_cannot_work_is_refused(url: object) -> None:
    with pytest.raises(errors.ConfigurationError, match="base_url"):
        EmbeddingSettings(base_url=url)


@pytest.mark.parametrize(
    ("name", "value"), [("QWEN3_EMBEDDING_URL", "localhost:8000"), ("VLLM_API_KEY", "two\nlines")]
)
def test_the_environment_is_checked_like_an_argument(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(errors.ConfigurationError):
        EmbeddingSettings()


def test_a_line_end_after_a_key_of_the_environment_is_no_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "key\n")

    assert EmbeddingSettings().api_key == SecretStr("key")


@BOTH
@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": float("nan")},
        {"timeout": float("inf")},
        {"max_retries": -1},
        {"max_concurrency": 0},
        {"batch_size": 0},
        {"no_such_option": 1},
        {"api_key": "line\nbreak"},
        {"api_key": "schlüssel"},
        {"default_headers": {"X-Team": "line\r\nbreak"}},
        {"default_headers": {"X Team": "a"}},
    ],
    ids=str,
)
def test_an_option_that_cannot_work_is_refused(
    settings: type[EmbeddingSettings] | type[RerankSettings], options: dict[str, object]
) -> None:
    with pytest.raises(errors.ConfigurationError):
        settings(**options)


def test_settings_are_made_of_options_only() -> None:
    with pytest.raises((errors.ConfigurationError, ValidationError)):
        EmbeddingSettings.model_validate("http://h")


def test_the_reranker_needs_an_instruction() -> None:
    with pytest.raises(errors.ConfigurationError, match="instruction"):
        RerankSettings(instruction=" ")


@pytest.mark.parametrize(
    "key", ["Bearer sk-1", "bearer  sk-1", " BEARER sk-1 ", "Bearer Bearer sk-1", "sk-1"]
)
def test_a_key_is_taken_with_its_scheme(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert EmbeddingSettings(api_key=key).api_key == SecretStr("sk-1")
    monkeypatch.setenv("VLLM_API_KEY", key)
    assert EmbeddingSettings().api_key == SecretStr("sk-1")
    assert pickle.loads(pickle.dumps(EmbeddingSettings())).api_key == SecretStr("sk-1")


@pytest.mark.parametrize("key", ["Bearer", "Bearer ", "", "  "])
@pytest.mark.parametrize("client", [EmbeddingClient, RerankClient])
def test_a_client_that_was_given_an_empty_key_never_takes_one_of_the_environment(
    client: type[EmbeddingClient] | type[RerankClient], key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    made = client(api_key=key)

    for each in (made, made.with_options(model="m"), pickle.loads(pickle.dumps(made))):
        assert each.settings.api_key == SecretStr("")


def test_nor_do_adapters_and_their_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    made = langchain.Qwen3VLLMEmbeddings(api_key="")

    for each in (made, made.model_copy(update={"batch_size": 3}), pickle.loads(pickle.dumps(made))):
        assert each.client.settings.api_key == SecretStr("")
    with serve(FakeVLLM("embedding")) as server:
        made.base_url = server.base_url
        made.embed_documents(["a"])
    assert all("authorization" not in request.headers for request in server.requests)


@pytest.mark.parametrize("key", ["bearer-4711", "Bearersk"])
def test_a_key_that_begins_like_the_scheme_is_whole(key: str) -> None:
    assert EmbeddingSettings(api_key=key).api_key == SecretStr(key)


# --- secrets -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", [EmbeddingClient, RerankClient])
def test_secrets_are_not_shown_nor_saved(client: type[EmbeddingClient] | type[RerankClient]) -> None:
    made = client(api_key=KEY, default_headers={"X-Token": KEY})
    shown = [
        repr(made),
        str(made),
        f"{made!r}",
        str(made.settings),
        str(made.settings.model_dump()),
        made.settings.model_dump_json(),
        str(pickle.dumps(made)),
        str(pickle.dumps(made, protocol=0)),
        str(vars(made)),
    ]

    assert not [text for text in shown if KEY in text]


def test_a_pickled_client_takes_the_key_of_its_new_home(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = pickle.dumps(EmbeddingClient(api_key=KEY, batch_size=3))
    monkeypatch.setenv("VLLM_API_KEY", "local")

    client = pickle.loads(raw)

    assert client.settings.api_key == SecretStr("local")
    assert client.settings.default_headers is None
    assert client.settings.batch_size == 3


@pytest.mark.parametrize(
    "options", [{"api_key": KEY + "\n"}, {"apikey": KEY}, {"base_url": f"http://u:{KEY}@h"}]
)
def test_a_refused_option_is_not_shown(options: dict[str, object]) -> None:
    with pytest.raises(errors.ConfigurationError) as caught:
        EmbeddingSettings(**options)

    assert KEY not in "".join(traceback.format_exception(caught.value))


def everything_of(error: BaseException) -> str:
    """What an error shows, and all that hangs on it."""
    text = "".join(traceback.format_exception(error))
    at: BaseException | None = error
    while at is not None:
        text += f"{at!r} {vars(at)}"
        at = at.__cause__ or at.__context__
    return text


ECHOES = {
    "401": instead(401, {"error": f"Bearer {KEY} is wrong"}),
    "400": instead(400, {"error": {"message": f"what is {KEY}?", "type": "BadRequestError", "code": 400}}),
    "500": instead(500, f"<html>{KEY}</html>"),
    "status 200": instead(200, {"error": {"message": f"no {KEY}", "code": 401}}),
    "status 200, no JSON": instead(200, f"<html>You sent {KEY}</html>"),
    "redirect": instead(302, None, Location=f"http://login/?next={KEY}"),
    "cut short": instead(500, "x" * 390 + KEY),
    "cut short, status 200": instead(200, "x" * 390 + KEY),
    "cut short in a page, status 200": instead(200, "<html>" + "<br/>" * 317 + KEY),
    "cut short in JSON, status 200": instead(200, {"error": {"message": "x" * 390 + KEY, "code": 400}}),
    "an index": instead(200, {"data": [{"index": "x" * 390 + KEY}, {"index": 1}]}),
    "not JSON": instead(200, f"You sent {KEY}"),
    "in a URL": instead(302, None, Location="http://login/?" + quote("x" * 390 + KEY + "+")),
}


@pytest.mark.parametrize("where", ["api_key", "default_headers"])
@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)
def test_a_key_that_the_server_echoes_is_hidden(
    echo: object, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    secret = (
        {"api_key": KEY} if where == "api_key" else {"default_headers": {"Authorization": f"Bearer {KEY}"}}
    )
    with serve(FakeVLLM("embedding", api_key=KEY)) as server:
        client = EmbeddingClient(base_url=server.base_url, max_retries=1, **secret)
        client.embed_documents(["warm"])
        server.fault = always(echo)  # type: ignore[arg-type]

        with caplog.at_level(logging.DEBUG), pytest.raises(errors.Qwen3VLLMError) as caught:
            client.embed_documents(["a", "b"])

    assert server.requests[-1].headers["authorization"] == f"Bearer {KEY}"
    for text in (everything_of(caught.value), caplog.text, str(caught.value.errors)):
        assert KEY[:10] not in text


def test_headers_of_the_user_go_along_and_win() -> None:
    with serve(FakeVLLM("embedding")) as server:
        headers = {"X-Team": "search", "authorization": "Basic mine"}
        EmbeddingClient(base_url=server.base_url, api_key=KEY, default_headers=headers).embed_documents(["a"])

    sent = server.requests[-1].headers
    assert (sent["x-team"], sent["authorization"]) == ("search", "Basic mine")


# --- errors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        errors.ServerError("x", status=500, retry_after=1.0),
        errors.OverloadedError("x", status=503),
        errors.ServerUnreachableError("x", "lost"),
        errors.TooLongError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_survives_pickling_with_all_it_says(error: errors.Qwen3VLLMError) -> None:
    error.errors = {3: error}

    back = pickle.loads(pickle.dumps(error))

    assert type(back) is type(error)
    assert str(back) == "x"
    assert list(back.errors) == [3]
    assert {k: v for k, v in vars(back).items() if k != "errors"} == {
        k: v for k, v in vars(error).items() if k != "errors"
    }
