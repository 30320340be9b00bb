"""Options of the way to a server: certificates, keys that change, fields of the future."""

import asyncio
import logging
import pickle
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from qwen3_vllm import EmbeddingClient, RerankClient, errors
from qwen3_vllm._core.http.connections import tls
from qwen3_vllm.langchain import Qwen3VLLMEmbeddings
from tests.certificates import make_authority
from tests.conftest import Embed
from tests.fake_vllm import FakeVLLM
from tests.faults import Reply, Request, SocketServer, always, instead, serve


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a private authority, and a certificate and key for 127.0.0.1 that it signed."""
    return make_authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def tls_server(authority: Path) -> Iterator[SocketServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "cert.pem", authority / "key.pem")
    with serve(FakeVLLM("embedding"), tls=context) as server:
        yield server


@pytest.mark.parametrize("how", ["path", "Path", "context", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "both"])
def test_a_private_authority_can_be_trusted(
    how: str, tls_server: SocketServer, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = str(authority / "ca.pem")
    verify: object = {
        "path": file,
        "Path": authority / "ca.pem",
        "context": ssl.create_default_context(cafile=file),
    }.get(how, True)
    if how in ("SSL_CERT_FILE", "both"):
        monkeypatch.setenv("SSL_CERT_FILE", file)
    if how in ("REQUESTS_CA_BUNDLE", "both"):
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", file)

    client = EmbeddingClient(base_url=tls_server.base_url, verify=verify)

    assert client.embed_documents(["a"]).shape == (1, 16)


def test_a_folder_of_authorities_can_be_trusted(
    tls_server: SocketServer, authority: Path, tmp_path: Path
) -> None:
    command = ["openssl", "x509", "-hash", "-noout", "-in", str(authority / "ca.pem")]
    name = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    shutil.copy(authority / "ca.pem", tmp_path / f"{name}.0")

    client = EmbeddingClient(base_url=tls_server.base_url, verify=tmp_path)

    assert client.embed_documents(["a"]).shape == (1, 16)


def test_an_unknown_authority_is_an_error_that_says_what_to_pass(tls_server: SocketServer) -> None:
    with pytest.raises(errors.ServerUnreachableError, match="pass the authority's file as verify"):
        EmbeddingClient(base_url=tls_server.base_url).embed_documents(["a"])


def test_no_verification_is_warned_of_once(
    tls_server: SocketServer, caplog: pytest.LogCaptureFixture
) -> None:
    tls.warn_of_no_verification.cache_clear()

    for _ in range(2):
        assert EmbeddingClient(base_url=tls_server.base_url, verify=False).embed_documents(["a"]).any()

    assert [r.levelno for r in caplog.records if "verify=False" in r.message] == [logging.WARNING]


def test_a_server_may_ask_for_a_certificate(authority: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "cert.pem", authority / "key.pem")
    context.load_verify_locations(authority / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    with serve(FakeVLLM("embedding"), tls=context) as server:
        options = {"base_url": server.base_url, "verify": str(authority / "ca.pem"), "max_retries": 0}
        with_one = EmbeddingClient(**options, cert=(str(authority / "cert.pem"), authority / "key.pem"))
        assert with_one.embed_documents(["a"]).shape == (1, 16)
        with pytest.raises(errors.ServerUnreachableError):
            EmbeddingClient(**options).embed_documents(["a"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"verify": "/nowhere.pem"}, "verify: '/nowhere.pem' cannot be loaded"),
        ({"cert": "/nowhere.pem"}, "cert: '/nowhere.pem' cannot be loaded"),
        ({"cert": "/a.pem", "verify": ssl.create_default_context()}, "exclude each other"),
        ({"verify": 3}, "verify must be"),
        ({"verify": ""}, "verify must be"),
        ({"cert": ("a", "b", "c")}, "cert must be"),
        ({"proxy": True}, "proxy must be"),
        ({"api_key": 3}, "api_key must be a string, or a function"),
        ({"extra_body": {"model": "x"}}, "extra_body must leave model to the client"),
        ({"extra_body": {"a": object()}}, "extra_body must hold what JSON can write"),
    ],
)
def test_what_cannot_work_is_refused_at_once(options: dict[str, object], words: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=words):
        EmbeddingClient(base_url="https://h", **options)


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_a_variable_that_names_nothing_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "/nowhere.pem")
    with pytest.raises(errors.ConfigurationError, match=f"{name} .*'/nowhere.pem', which does not exist"):
        EmbeddingClient(base_url="https://h")
    EmbeddingClient(base_url="http://h")


# --- keys ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [False, True])
def test_a_function_gives_the_key_of_each_request_and_is_asked_again_after_a_401(
    is_async: bool, embed: Embed
) -> None:
    keys = iter(["old", *["new-secret-key"] * 100])

    def ask() -> str:
        return next(keys)

    async def ask_later() -> str:
        await asyncio.sleep(0)
        return next(keys)

    with serve(FakeVLLM("embedding", api_key="new-secret-key")) as server:
        client = EmbeddingClient(base_url=server.base_url, api_key=ask_later if is_async else ask)

        assert embed(client, ["a"]).shape == (1, 16)
        assert server.requests[0].headers["authorization"] == "Bearer old"
        assert server.paths()[:2] == ["/v1/models"] * 2

        server.fault = always(instead(400, {"error": {"message": "you sent new-secret-key"}}))
        with pytest.raises(errors.Qwen3VLLMError) as caught:
            embed(client, ["a"])
        assert "new-secret-key" not in str(caught.value)


def test_a_function_may_return_what_is_awaited_or_a_secret() -> None:
    async def later() -> SecretStr:
        return SecretStr("a-key")

    with serve(FakeVLLM("embedding", api_key="a-key")) as server:
        client = EmbeddingClient(base_url=server.base_url, api_key=lambda: later())

        assert client.embed_documents(["a"]).shape == (1, 16)


def test_a_key_without_permission_is_not_asked_for_again() -> None:
    asked: list[None] = []

    def ask() -> str:
        asked.append(None)
        return "a-key"

    with serve(FakeVLLM("embedding"), always(instead(403))) as server:
        with pytest.raises(errors.AuthenticationError, match="403"):
            EmbeddingClient(base_url=server.base_url, api_key=ask, model="Qwen3").embed_documents(["a"])

        assert len(asked) == len(server.requests)


@pytest.mark.parametrize(
    ("given", "words"),
    [(None, "not NoneType"), ("", "empty"), ("é", "unprintable"), (KeyError("x"), "KeyError")],
)
def test_a_function_that_gives_no_key_is_told(given: object, words: str) -> None:
    def ask() -> str:
        if isinstance(given, Exception):
            raise given
        return given  # type: ignore[return-value]

    with serve(FakeVLLM("embedding")) as server, pytest.raises(errors.ConfigurationError, match=words):
        EmbeddingClient(base_url=server.base_url, api_key=ask).embed_documents(["a"])


# --- more ----------------------------------------------------------------------------------------------


def test_fields_of_the_future_go_along_with_what_runs_the_model() -> None:
    with serve(FakeVLLM("embedding")) as server:
        EmbeddingClient(base_url=server.base_url, extra_body={"cache_salt": "x"}).embed_documents(
            ["a", "b" * 3000]
        )
        sent = [(r.path, r.json.get("cache_salt")) for r in server.requests if r.body]
    assert dict(sent) == {"/v1/embeddings": "x", "/tokenize": None}


def test_fields_that_change_vectors_change_the_name_of_their_cache(embedding_server: SocketServer) -> None:
    names = {
        EmbeddingClient(base_url=embedding_server.base_url, extra_body=fields).cache_namespace("document")
        for fields in (None, {"a": 1}, {"a": 2})
    }
    assert len(names) == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"api_key": lambda: "k"}, "api_key is a function.*VLLM_API_KEY"),
        ({"verify": ssl.create_default_context()}, "verify is an SSLContext.*path"),
        ({"proxy": "http://u:p@h:1"}, "proxy holds a password"),
    ],
)
def test_what_cannot_be_pickled_says_so(options: dict[str, object], words: str) -> None:
    for kind in (EmbeddingClient, RerankClient, Qwen3VLLMEmbeddings):
        made = kind(base_url="http://h", **options)
        with pytest.raises(errors.ConfigurationError, match=f"^{kind.__name__} cannot be pickled: {words}"):
            pickle.dumps(made)


def test_a_proxy_can_be_passed_and_what_it_answers_is_told_to_be_its_own(
    embedding_server: SocketServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def proxy(request: Request) -> Reply:
        return Reply(403, b"<html>Blocked by policy</html>", {"Content-Type": "text/html"})

    with serve(proxy) as between:
        address = between.base_url.replace("://", "://user:hush@")
        client = EmbeddingClient(base_url=embedding_server.base_url, proxy=address)
        with pytest.raises(
            errors.AuthenticationError, match=r"through the proxy .*which proxy sets"
        ) as caught:
            client.embed_documents(["a"])
        assert "hush" not in str(caught.value)

        monkeypatch.setenv("http_proxy", address)
        monkeypatch.setenv("no_proxy", "")
        direct = EmbeddingClient(base_url=embedding_server.base_url, proxy=False)
        assert direct.embed_documents(["a"]).shape == (1, 16)


def test_a_proxy_that_wants_a_password_is_told(embedding_server: SocketServer) -> None:
    with serve(lambda _: Reply(407, b"who are you")) as between:
        client = EmbeddingClient(base_url=embedding_server.base_url, proxy=between.base_url)
        with pytest.raises(errors.ServerUnreachableError, match="user and password in proxy") as caught:
            client.embed_documents(["a"])
    assert caught.value.cause == "proxy"
