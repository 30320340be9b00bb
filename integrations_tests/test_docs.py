"""Every Python example of the documentation runs as printed, on real servers."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import RunningServer

ROOT = Path(__file__).parent.parent
PAGES = (
    "README.md",
    "README.zh-CN.md",
    "docs/caching.md",
    "docs/langchain.md",
    "docs/llama-index.md",
    "docs/options.md",
    "docs/tasks/long-documents.md",
    "docs/usage.md",
)


def python_blocks(page: str) -> list[str]:
    """Python examples of a page, in order."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.parametrize("page", PAGES)
def test_examples_of_a_page_run(
    page: str, embedding_server: RunningServer, templated_reranker_server: RunningServer, tmp_path: Path
) -> None:
    """One after another, as a reader would type them."""
    blocks = python_blocks(page)
    assert blocks
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks), encoding="utf-8")
    servers = {
        "QWEN3_EMBEDDING_URL": f"{embedding_server.base_url}/v1",
        "QWEN3_RERANKER_URL": templated_reranker_server.base_url,
    }
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=os.environ | servers,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
