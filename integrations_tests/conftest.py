"""Real vLLM servers, each booted once a session when the first test asks for it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Self

import grpc
import pytest
import yaml
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

from qwen3_vllm.serving import ServeOptions, start_server

from .random_checkpoints import make
from .reference import ReferenceEmbedding, ReferenceReranker

ROOT = Path(__file__).parent.parent
CHECKPOINTS = ROOT / ".cache" / "models"
BOOT_SECONDS = 300
OWN_SERVERS = (
    "test_evaluation.py",
    "test_lora_names.py",
    "test_serving.py",
    "test_several_servers.py",
    "test_tuning.py",
)
KEY = "a-key-that-nobody-may-see-4711"  # of `guarded`
# scripts/old_vllm.sh runs it, with a vLLM of its own.
collect_ignore = [] if "OLD_VLLM_PYTHON" in os.environ else ["test_old_server.py"]
# What a user may have set for servers and clients of their own.
ENVIRONMENT = (
    "VLLM_API_KEY",
    "QWEN3_VLLM_API_KEY_FILE",
    "QWEN3_EMBEDDING_URL",
    "QWEN3_RERANKER_URL",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
)


@dataclass(frozen=True)
class RunningServer:
    """A vLLM that answers. `base_url` has no `/v1`; `shown` is what its launcher prints of it."""

    base_url: str
    model_path: Path
    log_path: Path
    shown: str


Boot = Callable[..., list[RunningServer]]
"""Boots servers of the given options at the same time, which two cores do in half the time."""


def need(tool: str) -> str:
    """Return the path of a program; without it, CI fails and other machines skip the test."""
    path = shutil.which(tool)
    if path is None and os.environ.get("CI"):
        pytest.fail(f"{tool} is not installed", pytrace=False)
    if path is None:
        pytest.skip(f"{tool} is not installed")
    return path


def environment(folder: Path, *packages: str) -> str:
    """Make a virtual environment of packages that vLLM's cannot hold; returns its Python.

    torch is large, and here already: what this Python has, that one finds, behind its own.
    """
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    (own,) = folder.glob("lib/python*/site-packages")
    paths = [path for path in sys.path if path.endswith("site-packages")]
    (own / "outer.pth").write_text("\n".join([*paths, str(ROOT / "src")]))
    python = str(folder / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


def kubernetes_probe(manifest: str, base_url: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Ask a server with the key of `guarded` as a pod of this manifest is asked whether it is ready."""
    deployment, _ = yaml.safe_load_all((ROOT / "deploy" / manifest).read_text(encoding="utf-8"))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    *_, code = container["readinessProbe"]["exec"]["command"]
    keys = folder / "keys"
    keys.write_text(f"{KEY}\n")
    port = str(container["ports"][0]["containerPort"])
    code = code.replace("/run/secrets/vllm_api_key", str(keys)).replace(port, base_url.rpartition(":")[2])
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def pytest_xdist_auto_num_workers() -> int:
    """Run in this process: the servers use all cores and are shared."""
    return 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the test that happens to boot a server the time for it, and begin with those that end their own.

    Later, seven servers stay up for the others, and 24 GiB do not hold two more.
    """
    items.sort(key=lambda item: item.path.name not in OWN_SERVERS)
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(BOOT_SECONDS + 60))


@pytest.fixture(scope="session", autouse=True)
def clean_environment() -> Iterator[None]:
    """Keep the user's own servers, keys and proxies out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ENVIRONMENT:
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def checkpoints() -> Path:
    """Folder with the random-weight checkpoints."""
    make(CHECKPOINTS)
    return CHECKPOINTS


@pytest.fixture(scope="session")
def embedding_reference(checkpoints: Path) -> ReferenceEmbedding:
    """Transformers on the checkpoint of `embedding_server`."""
    return ReferenceEmbedding(checkpoints / "Qwen3-Embedding-random")


@pytest.fixture(scope="session")
def reranker_reference(checkpoints: Path) -> ReferenceReranker:
    """Transformers on the checkpoint of the reranker servers."""
    return ReferenceReranker(checkpoints / "Qwen3-Reranker-random")


@contextmanager
def booting(folder: Path) -> Iterator[Boot]:
    """Yield a function that boots servers, with their logs in `folder`; all stop at the end."""
    running: list[AbstractContextManager[object]] = []
    numbers = count()

    def start_one(options: ServeOptions) -> RunningServer:
        log_path = folder / f"{next(numbers)}-{options.role}.log"
        starting = start_server(options, log_path=log_path, timeout=BOOT_SECONDS)
        server = starting.__enter__()
        running.append(starting)
        return RunningServer(server.base_url, Path(options.model), log_path, f"{server!r} {server.command}")

    with ThreadPoolExecutor() as threads:
        yield lambda *options: list(threads.map(start_one, options))
        list(threads.map(lambda server: server.__exit__(None, None, None), running))


@pytest.fixture(scope="session")
def boot(tmp_path_factory: pytest.TempPathFactory, clean_environment: None) -> Iterator[Boot]:
    """Return a function that boots servers; all stop with the session."""
    with booting(tmp_path_factory.mktemp("servers")) as boots:
        yield boots


@pytest.fixture(scope="module")
def boot_for_module(tmp_path_factory: pytest.TempPathFactory, clean_environment: None) -> Iterator[Boot]:
    """Return a function that boots servers; all stop with the module."""
    with booting(tmp_path_factory.mktemp("servers")) as boots:
        yield boots


@pytest.fixture(scope="session")
def shared(boot: Boot, checkpoints: Path, request: pytest.FixtureRequest) -> Callable[[str], RunningServer]:
    """Return a function that gives a server by its fixture's name, booting all needed at once."""
    embedding = str(checkpoints / "Qwen3-Embedding-random")
    reranker = str(checkpoints / "Qwen3-Reranker-random")
    # Left to itself, vLLM serves a float32 checkpoint in half precision.
    options = {
        "embedding_server": ServeOptions("embedding", embedding, port=0, dtype="float32"),
        "reranker_server": ServeOptions("reranker", reranker, port=0, dtype="float32", chat_template=False),
        "templated_reranker_server": ServeOptions("reranker", reranker, port=0, dtype="float32"),
    }
    wanted = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    booted: dict[str, RunningServer] = {}

    def server(name: str) -> RunningServer:
        if name not in booted:
            names = [each for each in options if each == name or (each in wanted and each not in booted)]
            booted.update(zip(names, boot(*(options[each] for each in names)), strict=True))
        return booted[name]

    return server


class TraceReceiver(trace_service_pb2_grpc.TraceServiceServicer):
    """What vLLM exports its spans to, by OTLP over gRPC."""

    def __init__(self) -> None:
        self._spans: list[trace_pb2.Span] = []
        self._server = grpc.server(ThreadPoolExecutor())
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None)

    def Export(
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: object
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        """Take what a server sends."""
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self._spans += scope.spans
        return trace_service_pb2.ExportTraceServiceResponse()

    def spans_in(self, trace_id: bytes) -> list[trace_pb2.Span]:
        """Spans of one trace so far."""
        return [span for span in self._spans if span.trace_id == trace_id]


@pytest.fixture(scope="session")
def trace_receiver() -> Iterator[TraceReceiver]:
    """Take the spans of the demo's servers."""
    with TraceReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def demo_servers(trace_receiver: TraceReceiver, boot: Boot) -> list[RunningServer]:
    """Serve the demo models, which export spans; the reranker takes any prompt as it is."""
    models = ROOT / "demo" / "models"
    traced = ("--otlp-traces-endpoint", trace_receiver.endpoint)
    return boot(
        ServeOptions("embedding", str(models / "Qwen3-Embedding-demo"), port=0, extra_args=traced),
        ServeOptions(
            "reranker", str(models / "Qwen3-Reranker-demo"), port=0, chat_template=False, extra_args=traced
        ),
    )


@pytest.fixture(scope="session")
def wrong_servers(
    boot: Boot, checkpoints: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[RunningServer]:
    """Serve the embedding model with another pooling, and the reranker with a wrong template and a key."""
    pooler = json.dumps({"pooling_type": "MEAN", "use_activation": False})
    # As vLLM ships it: Jinja strips the last newline, and the prompt ends one short.
    template = tmp_path_factory.mktemp("templates") / "stock.jinja"
    ours = ROOT / "src" / "qwen3_vllm" / "templates" / "qwen3_reranker.jinja"
    template.write_text(ours.read_text().removesuffix("\n"))
    return boot(
        ServeOptions(
            "embedding",
            str(checkpoints / "Qwen3-Embedding-random"),
            port=0,
            dtype="float32",
            extra_args=("--pooler-config", pooler),
        ),
        ServeOptions(
            "reranker",
            str(checkpoints / "Qwen3-Reranker-random"),
            port=0,
            dtype="float32",
            api_key=KEY,
            extra_args=("--chat-template", str(template)),
        ),
    )


@pytest.fixture(scope="session")
def guarded(wrong_servers: list[RunningServer]) -> RunningServer:
    """Serve a reranker with a key."""
    return wrong_servers[1]


@pytest.fixture(scope="session")
def embedding_server(shared: Callable[[str], RunningServer]) -> RunningServer:
    """Serve the embedding model."""
    return shared("embedding_server")


@pytest.fixture(scope="session")
def reranker_server(shared: Callable[[str], RunningServer]) -> RunningServer:
    """Serve the reranker without a chat template: clients send finished prompts."""
    return shared("reranker_server")


@pytest.fixture(scope="session")
def templated_reranker_server(shared: Callable[[str], RunningServer]) -> RunningServer:
    """Serve the reranker with our chat template: clients may send raw texts."""
    return shared("templated_reranker_server")
