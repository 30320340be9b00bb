"""Run a plan against its servers."""

import os
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from pydantic import SecretStr

from benchmarks import clients
from benchmarks.bars import with_bars
from benchmarks.clients import Target, Tools, tools
from benchmarks.measure import Case, Plan, Result, Series, Work, rounds
from benchmarks.texts import fresh_texts
from qwen3_vllm import errors
from qwen3_vllm._core.client import transport_of
from qwen3_vllm._core.embedding import client as embedding_client
from qwen3_vllm._core.embedding.client import EmbeddingClient
from qwen3_vllm._core.reranking import client as rerank_client
from qwen3_vllm._core.reranking.client import RerankClient
from qwen3_vllm._core.settings import ServerSettings

_QUERY = "How much does an answer cost its client?"
_RANKED = 100
_PACKAGES = (
    "qwen3-vllm",
    "langchain-openai",
    "llama-index-embeddings-openai-like",
    "vllm-haystack",
    "openai",
    "aiohttp",
    "requests",
    "numpy",
)
Say = Callable[[str], None]


def run_bench(plan: Plan, *, canned: bool = False, say: Say = lambda line: None) -> Result:
    """Measure every client of `plan` and judge the bars; `say` hears what is being measured.

    Args:
        canned: The servers are canned ones: then CPU is judged, and not throughput.

    Raises:
        Qwen3VLLMError: A server does not answer, or is not what its case needs.
        ConfigurationError: Nothing to measure.
    """
    if plan.embedding_url is None and plan.reranker_url is None:
        raise errors.ConfigurationError("give the address of an embedding server, a reranker, or both")
    environment = _environment()
    series: list[Series] = []
    left_out: list[str] = []
    with tools() as shared:
        if plan.embedding_url is not None:
            target = _embedding_target(plan)
            environment["embedding server"] = target.model
            works, left_out = _document_works(target, shared)
            series += _measured("documents", plan.documents, plan.calls, plan, works, say)
            queries = _chosen(clients.query_works(target, shared, _QUERY), plan)
            series += _measured("query", 1, plan.queries, plan, queries, say)
        if plan.reranker_url is not None:
            target, server_templates = _reranker_target(plan)
            environment["reranker"] = target.model
            works = clients.rerank_works(
                target,
                shared,
                server_templates=server_templates,
                query=_QUERY,
                documents=fresh_texts(words=plan.words, count=_RANKED),
            )
            series += _measured("rerank", 1, plan.rankings, plan, _chosen(works, plan), say)
    if not series:
        raise errors.ConfigurationError(f"no client's name contains {' or '.join(map(repr, plan.only))}")
    return with_bars(Result(plan, environment, tuple(series), tuple(left_out)), canned=canned)


class ContestantError(errors.Qwen3VLLMError):
    """A client that is measured failed at this server."""


def _measured(
    case: Case, size: int, calls: int, plan: Plan, works: dict[str, Work], say: Say
) -> list[Series]:
    if not works:
        return []
    say(f"{case}: {len(works)} clients, {plan.rounds} rounds")
    for (
        name,
        work,
    ) in works.items():  # connections are made, and the server asked what it is, before it counts
        try:
            work()
        except clients.failures() as error:
            raise ContestantError(f"{name} failed at this server: {error}") from error
    try:
        return rounds(case, size, calls, plan.rounds, works)
    except clients.failures() as error:
        raise ContestantError(f"a client failed in mid-run: {error}") from error


def _document_works(target: Target, shared: Tools) -> tuple[dict[str, Work], list[str]]:
    """Every installed client, and the names of the others."""
    works: dict[str, Work] = {}
    left_out: list[str] = []
    for name, (module, make) in clients.DOCUMENTS.items():
        if not _is_chosen(name, target.plan):
            continue
        if not clients.installed(module):
            left_out.append(name)
            continue
        works[name] = _embedding(
            make(target, shared), fresh_texts(words=target.plan.words, count=target.plan.documents)
        )
    return works, left_out


def _embedding(embed: clients.Embed, texts: Callable[[], list[str]]) -> Work:
    return lambda: embed(texts())


def _chosen(works: dict[str, Work], plan: Plan) -> dict[str, Work]:
    return {name: work for name, work in works.items() if _is_chosen(name, plan)}


def _is_chosen(name: str, plan: Plan) -> bool:
    return not plan.only or any(part.lower() in name.lower() for part in plan.only)


def _embedding_target(plan: Plan) -> Target:
    client = EmbeddingClient(base_url=plan.embedding_url)
    root, key = transport_of(client).root, _key(client.settings)
    server = embedding_client.server_of(client)
    encoding = clients.OCTETS if server.encoding == "bytes_only" else "base64"
    return Target(root, server.model, key, plan, encoding)


def _reranker_target(plan: Plan) -> tuple[Target, bool]:
    client = RerankClient(base_url=plan.reranker_url)
    server = rerank_client.server_of(client)
    return Target(transport_of(client).root, server.model, _key(client.settings), plan), server.templates


def _key(settings: ServerSettings) -> str:
    return settings.api_key.get_secret_value() if isinstance(settings.api_key, SecretStr) else ""


def _environment() -> dict[str, str]:
    found = {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }
    if hasattr(os, "getloadavg"):
        found["load before"] = f"{os.getloadavg()[0]:.1f}"
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
