"""Imports go one way, and the root loads nothing heavy."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import qwen3_vllm

PACKAGE = Path(qwen3_vllm.__file__).parent

# A module imports from layers above its own only. Beside each other they do not import, but for what
# WITHIN names.
LAYERS = (
    {"errors", "fields", "prompts", "truncation"},
    {
        "options",
        "concurrency",
        "buffers",
        "pool",
        "masking",
        "proxies",
        "disconnections",
        "request_ids",
        "pace",
        "outages",
    },
    {"settings"},
    {"wire"},
    {"transport"},
    {"batching", "discovery"},
    {"probing"},
    {"fitting"},
    {"caching"},
    {"embedding", "reranking"},
    {
        "langchain",
        "llama_index",
        "_llama_index_cache",
        "bulk",
        "doctor",
        "serving",
        "testing",
    },
    {"cli"},
)
WITHIN = {("llama_index", "_llama_index_cache")}
CORE = set().union(*LAYERS[:10])
NOT_AT_IMPORT = (
    "langchain",
    "langchain_core",
    "llama_index",
    "torch",
    "vllm",
    "transformers",
    "openai",
    "pyarrow",
    "ray",
    "rich",
    "typer",
)


@cache
def modules() -> dict[str, set[str]]:
    """What each module of the package imports of the package; a folder counts as one module."""
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] != "__init__":
            found.setdefault(parts[0], set()).update(imported(path) - {parts[0]})
    return found


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            package, _, rest = node.module.partition(".")
            if package == "qwen3_vllm":
                names |= {rest.partition(".")[0]} if rest else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            for alias in node.names:
                package, _, rest = alias.name.partition(".")
                if package == "qwen3_vllm":
                    names.add(rest.partition(".")[0])
    return names


def layer(name: str) -> int:
    return next(number for number, names in enumerate(LAYERS) if name in names)


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_module_has_a_layer_and_imports_from_above_only(name: str) -> None:
    ours = {target for target in modules()[name] if target in modules()}

    wrong = {target for target in ours if layer(target) >= layer(name) and (name, target) not in WITHIN}

    assert wrong == set()


@pytest.mark.parametrize("name", sorted(CORE))
def test_the_core_is_there(name: str) -> None:
    assert (PACKAGE / f"{name}.py").is_file()


def test_importing_the_root_loads_no_framework() -> None:
    loaded = run(f"import qwen3_vllm, sys; print([m for m in {NOT_AT_IMPORT} if m in sys.modules])")

    assert loaded == "[]"


def test_importing_the_root_starts_nothing() -> None:
    threads = run(
        "import qwen3_vllm, threading; qwen3_vllm.EmbeddingClient(); print(threading.active_count())"
    )

    assert threads == "1"


def test_all_public_names_are_there() -> None:
    assert all(hasattr(qwen3_vllm, name) for name in qwen3_vllm.__all__)


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()
