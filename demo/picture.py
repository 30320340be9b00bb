"""Draw what the demo prints as an SVG, for the README.

    python -m demo.picture docs/images/demo.svg

It boots the demo's servers. The picture loads no font of another host, and has a background of its own, so it
looks the same on a light and on a dark page.
"""

import io
import re
import sys
from html import unescape
from pathlib import Path

from langchain_core.vectorstores import InMemoryVectorStore
from rich.cells import cell_len
from rich.console import Console

from demo import __main__ as program
from qwen3_vllm.langchain import Qwen3VLLMEmbeddings, Qwen3VLLMReranker

COLUMNS = 104
SHOWN = 2
_FONT_FACE = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)
_RUN_OF_TEXT = re.compile(r'(<text [^>]*textLength=")([\d.]+)("[^>]*>)([^<]+)')
_FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def main(path: Path) -> None:
    """Run the demo on its own questions, and write what it shows of the first ones."""
    passages, queries = program.choose_texts([])
    with program.served() as (embedding, reranker):
        store = InMemoryVectorStore(Qwen3VLLMEmbeddings(base_url=embedding.base_url))
        program.embed(store, passages)
        program.console = Console(
            record=True, file=io.StringIO(), width=COLUMNS, force_terminal=True, highlight=False
        )
        compressor = Qwen3VLLMReranker(base_url=reranker.base_url, top_n=None)
        program.present(queries, store, compressor, shown=SHOWN)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(drawn(program.console), encoding="utf-8")


def drawn(console: Console) -> str:
    """Return what a console recorded as an SVG that needs nothing from elsewhere."""
    svg = console.export_svg(title="scripts/demo.sh", unique_id="demo")
    svg = _FONT_FACE.sub("", svg).replace("Fira Code, monospace", _FONTS)
    svg = _RUN_OF_TEXT.sub(_with_width_in_cells, svg)
    return "".join(f"{line.rstrip()}\n" for line in svg.splitlines())


def _with_width_in_cells(run: re.Match[str]) -> str:
    """Give a run of text its width on a terminal: rich counts a Chinese character as one cell, not two."""
    start, width, between, text = run.groups()
    characters = unescape(text)
    return f"{start}{float(width) * cell_len(characters) / len(characters):.1f}{between}{text}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
