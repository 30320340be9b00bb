"""What importing the package costs, and needs. The layers are import-linter's: `lint-imports`."""

import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution, requires
from inspect import getmodulename

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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
# Imports modules as if no other packages than these were installed, and says which it cannot.
ONLY = """
import gc, sys, sysconfig

gc.disable()

installed, *modules = sys.argv[1:]
there = {*installed.split(), *sys.stdlib_module_names, sysconfig._get_sysconfigdata_name()}

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in there:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
for module in modules:
    try:
        __import__(module)
    except ImportError as error:
        print(module, "cannot be imported:", error)
"""


def test_nothing_slow_is_loaded_or_started_before_it_is_needed() -> None:
    frameworks = set(NOT_AT_IMPORT) - {"aiohttp", "numpy", "pydantic"} | {"rich", "typer"}
    loaded = run(f"""
import sys, threading
import qwen3_vllm
print([name for name in {(*NOT_AT_IMPORT, "rich", "typer")} if name in sys.modules])
from qwen3_vllm import *
print([name for name in {frameworks} if name in sys.modules])
EmbeddingClient()
print(threading.active_count())
""")

    assert loaded.splitlines() == ["[]", "[]", "1"]


def test_the_command_line_loads_nothing_slow() -> None:
    loaded = run(f"import qwen3_vllm.cli, sys; print([m for m in {NOT_AT_IMPORT} if m in sys.modules])")

    assert loaded == "[]"


def test_all_public_names_are_there() -> None:
    assert all(hasattr(qwen3_vllm, name) for name in qwen3_vllm.__all__)
    assert set(qwen3_vllm.__all__) <= set(dir(qwen3_vllm))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'qwen3_vllm' has no attribute 'Reranker'"):
        _ = qwen3_vllm.Reranker  # type: ignore[attr-defined]  # as it should be


EXTRA_OF = {
    "qwen3_vllm.langchain": "langchain",
    "qwen3_vllm.llama_index": "llama-index",
    "qwen3_vllm.bulk": "bulk",
    "qwen3_vllm.evaluation": "evaluation",
}


@pytest.mark.parametrize(("module", "extra"), EXTRA_OF.items(), ids=EXTRA_OF.values())
def test_a_public_module_needs_its_extra_alone(module: str, extra: str) -> None:
    assert run(ONLY, brought_by(extra), module) == ""


def test_the_rest_needs_no_extra_and_a_missing_one_is_named() -> None:
    modules = ["qwen3_vllm._core.embedding.client", "qwen3_vllm.serving.guard", "qwen3_vllm.doctor"]
    commands = [f"qwen3_vllm.cli.{name}" for name in cli.SUMMARIES]

    said = run(ONLY, brought_by(None), *modules, *commands, *EXTRA_OF).splitlines()

    for line, (module, extra) in zip(said, EXTRA_OF.items(), strict=True):
        assert line.startswith(module)
        assert f"qwen3-vllm[{extra}]" in line


def brought_by(extra: str | None) -> str:
    """The top-level names of `qwen3-vllm[EXTRA]` and of all that it needs, as far as it is installed."""
    names = {"qwen3_vllm"}  # whose own files, installed to be edited, are not in its record
    for needed, _ in closure(f"qwen3-vllm[{extra}]" if extra else "qwen3-vllm"):
        with suppress(PackageNotFoundError):
            for line in (distribution(needed).read_text("RECORD") or "").splitlines():
                top = line.partition(",")[0].partition("/")[0]
                names.add(getmodulename(top) or top)
    return " ".join(sorted(names))


def closure(requirement: str) -> set[tuple[str, frozenset[str]]]:
    """What a requirement brings, each with its extras, as far as it is installed."""
    seen: set[tuple[str, frozenset[str]]] = set()
    left = [Requirement(requirement)]
    while left:
        each = left.pop()
        key = (canonicalize_name(each.name), frozenset(each.extras))
        if key in seen:
            continue
        seen.add(key)
        with suppress(PackageNotFoundError):
            for text in requires(each.name) or ():
                needed = Requirement(text)
                if needed.marker is None or any(
                    needed.marker.evaluate({"extra": extra}) for extra in ("", *each.extras)
                ):
                    left.append(needed)
    return seen


def run(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
