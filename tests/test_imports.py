"""What importing the package costs, and needs. The layers are import-linter's: `lint-imports`."""

import subprocess
import sys

import pytest

import qwen3_vllm
from qwen3_vllm import cli

NOT_AT_IMPORT = (
    "aiohttp",
    "numpy",
    "pydantic",
    "langchain",
    "langchain_core",
    "llama_index",
    "torch",
    "vllm",
    "transformers",
    "openai",
    "ir_measures",
    "matplotlib",
    "pyarrow",
    "ray",
)
# Hides every package that `qwen3-vllm[EXTRA]` does not bring, as if it were not installed.
ONLY_WITH_EXTRA = """
import sys
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

def brought(name, extras, seen):
    key = (canonicalize_name(name), frozenset(extras))
    if key in seen:
        return
    seen.add(key)
    try:
        needed = distribution(name).requires or ()
    except PackageNotFoundError:
        return
    for each in map(Requirement, needed):
        if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            brought(each.name, each.extras, seen)

extra, *modules = sys.argv[1:]
closure = set()
brought("qwen3-vllm", {extra} - {""}, closure)
here = {name for name, _ in closure}
owners = {top: set(map(canonicalize_name, names)) for top, names in packages_distributions().items()}

class Hidden:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in owners and not owners[top] & here:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
for module in modules:
    __import__(module)
"""


@pytest.mark.parametrize(
    ("module", "others"), [("qwen3_vllm", ("rich", "typer")), ("qwen3_vllm.cli", ())], ids=["root", "cli"]
)
def test_an_import_loads_nothing_that_is_slow(module: str, others: tuple[str, ...]) -> None:
    loaded = run(f"import {module}, sys; print([m for m in {NOT_AT_IMPORT + others} if m in sys.modules])")

    assert loaded == "[]"


def test_the_clients_load_no_framework() -> None:
    frameworks = set(NOT_AT_IMPORT) - {"aiohttp", "numpy", "pydantic"} | {"rich", "typer"}
    loaded = run(
        f"from qwen3_vllm import *; import sys; print([m for m in {frameworks} if m in sys.modules])"
    )

    assert loaded == "[]"


def test_importing_the_root_starts_nothing() -> None:
    threads = run(
        "import qwen3_vllm, threading; qwen3_vllm.EmbeddingClient(); print(threading.active_count())"
    )

    assert threads == "1"


def test_all_public_names_are_there() -> None:
    assert all(hasattr(qwen3_vllm, name) for name in qwen3_vllm.__all__)
    assert set(qwen3_vllm.__all__) <= set(dir(qwen3_vllm))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'qwen3_vllm' has no attribute 'Reranker'"):
        _ = qwen3_vllm.Reranker  # type: ignore[attr-defined]  # as it should be


@pytest.mark.parametrize(
    ("modules", "extra"),
    [
        ("qwen3_vllm.langchain", "langchain"),
        ("qwen3_vllm.llama_index", "llama-index"),
        ("qwen3_vllm.bulk", "bulk"),
        ("qwen3_vllm.evaluation", "evaluation"),
        ("qwen3_vllm._core.embedding.client qwen3_vllm.serving.guard qwen3_vllm.doctor", ""),
        (" ".join(f"qwen3_vllm.cli.{name}" for name in cli.SUMMARIES), ""),
    ],
    ids=lambda value: value.split()[0] if value else "",
)
def test_a_public_module_needs_its_extra_alone(modules: str, extra: str) -> None:
    run(ONLY_WITH_EXTRA, extra, *modules.split())


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("langchain", "langchain"),
        ("llama_index", "llama-index"),
        ("bulk", "bulk"),
        ("evaluation", "evaluation"),
    ],
)
def test_a_missing_extra_is_named(module: str, extra: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        run(ONLY_WITH_EXTRA, "", f"qwen3_vllm.{module}")

    assert f"qwen3-vllm[{extra}]" in failed.value.stderr


def run(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
