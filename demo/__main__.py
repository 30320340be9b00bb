"""Search and rerank a corpus with LangChain, served by vLLM servers that this program starts and stops.

scripts/demo.sh installs what it needs and runs it.
"""

import json
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from statistics import mean
from types import FrameType

from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from rich.console import Console

from demo.corpus import CorpusError, Passage, read_corpus
from demo.tables import Ranked, ranking
from qwen3_vllm._core.official_models import Role
from qwen3_vllm.errors import Qwen3VLLMError
from qwen3_vllm.langchain import Qwen3VLLMEmbeddings, Qwen3VLLMReranker
from qwen3_vllm.serving import LaunchError, Progress, ServeOptions, Server, ServerDied, make_server, running
from qwen3_vllm.serving.machine.checkpoint import resolve_model
from qwen3_vllm.serving.machine.ports import is_port_taken
from qwen3_vllm.serving.options import DEFAULT_PORT

DEMO = Path(__file__).parent
CORPUS = DEMO / "corpus.jsonl"
QUERIES = DEMO / "queries.jsonl"
DEMO_MODELS = DEMO / "models"
MODELS_VARIABLE = "QWEN3_MODELS"
LOGS = DEMO.parent / ".cache" / "logs"

ROLES: tuple[Role, ...] = ("embedding", "reranker")
SHOWN_QUERIES = 3
CANDIDATES = 8
JUDGED = 20  # candidates a labelled query is reranked over
EMBED_AT_ONCE = 256

# Tables need a width where there is no terminal.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)


@dataclass(frozen=True)
class Query:
    """A question, and the ids of the passages that answer it where they are known.

    `across`: its answers are in another language than the question.
    """

    text: str
    relevant: frozenset[str] = frozenset()
    across: bool = False


def main() -> int:
    """Run the demo; the exit status is 1 where a server failed, 2 for a file or a model of no use."""
    signal.signal(signal.SIGTERM, _interrupt)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a GBK console has no ✓
    try:
        passages, queries = choose_texts(sys.argv[1:])
        demonstrate(passages, queries)
    except (CorpusError, LaunchError) as error:
        console.print(f"demo: {error}", style="red", markup=False)
        return 2
    except (ServerDied, Qwen3VLLMError) as error:
        console.print(f"demo: {error}", style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("stopped")
        return 130
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def choose_texts(arguments: Sequence[str]) -> tuple[list[Passage], list[Query]]:
    """Return the user's file and question, or the shipped ones.

    Raises:
        CorpusError: The file or the question is of no use.
    """
    if arguments:
        path, question = arguments
        if not question.strip():
            raise CorpusError("the query is empty")
        return read_corpus(Path(path)), [Query(question)]
    records = [json.loads(line) for line in QUERIES.read_text(encoding="utf-8").splitlines()]
    queries = [
        Query(
            record["query"],
            frozenset(record["relevant"]),
            across=not any(name.startswith(record["lang"]) for name in record["relevant"]),
        )
        for record in records
    ]
    return read_corpus(CORPUS), queries


def demonstrate(passages: Sequence[Passage], queries: Sequence[Query]) -> None:
    """Serve the models, and show what they do with the queries."""
    with served() as (embedding, reranker):
        store = InMemoryVectorStore(Qwen3VLLMEmbeddings(base_url=embedding.base_url))
        embed(store, passages)
        present(queries, store, Qwen3VLLMReranker(base_url=reranker.base_url, top_n=None))
        console.print("Stopping the servers")


@contextmanager
def served() -> Iterator[list[Server]]:
    """Serve both models; yields the embedding server and the reranker once they answer."""
    models = find_models()
    servers = [new_server(role, model) for role, model in models.items()]
    for server in servers:
        console.print(f"Starting the {server.name} server on {server.base_url} (log: {server.log_path})")
    with progress_shown() as on_progress, running(servers, on_progress=on_progress):
        on_progress(None)
        yield servers


def present(
    queries: Sequence[Query],
    store: InMemoryVectorStore,
    reranker: Qwen3VLLMReranker,
    *,
    shown: int = SHOWN_QUERIES,
) -> None:
    """Show the first queries' candidates after reranking, and how good the rankings of all are."""
    for query in queries[:shown]:
        show(query, store, reranker)
    legend = "Moved: places up or down from vector search, which ranks by cosine."
    judged = [query for query in queries if query.relevant]
    if not judged:
        console.print(legend)
        return
    console.print(f"{legend} ✓: known to answer.")
    judge([query for query in judged if not query.across], store, reranker)
    across = [query for query in judged if query.across]
    if os.environ.get(MODELS_VARIABLE):
        judge(across, store, reranker)
    else:
        console.print(
            f"{len(across)} questions in another language are left out: these models do not translate"
        )


def find_models() -> dict[Role, str]:
    """Return the folder for each role: from QWEN3_MODELS, else the demo's own."""
    folder = os.environ.get(MODELS_VARIABLE)
    if folder:
        return {role: resolve_model(None, role, Path(folder).expanduser()) for role in ROLES}
    console.print(
        "These are tiny models, made for this demo: they match words, and know little of the world.\n"
        f"{MODELS_VARIABLE}=DIR serves real ones: DIR/Qwen3-Embedding-0.6B and DIR/Qwen3-Reranker-0.6B, say.",
        style="yellow",
    )
    return {role: resolve_model(None, role, DEMO_MODELS) for role in ROLES}


def new_server(role: Role, model: str) -> Server:
    """Make a server on the role's usual port, or on a free one where that is taken."""
    port = 0 if is_port_taken("127.0.0.1", DEFAULT_PORT[role]) else DEFAULT_PORT[role]
    return make_server(ServeOptions(role, model, port=port), log_path=LOGS / f"{role}.log")


@contextmanager
def progress_shown() -> Iterator[Callable[[Progress | None], None]]:
    """Show boots as one moving line on a terminal, else as a line a server and stage; None ends it."""
    stages: dict[str, str] = {}
    with console.status("Starting") as status:

        def show_progress(progress: Progress | None) -> None:
            if progress is None:
                status.stop()
                return
            if console.is_terminal:
                stages[progress.name] = f"{progress.name}: {progress.stage}, {progress.seconds:.0f} s"
                status.update(" · ".join(stages.values()))
                return
            step = f"{progress.stage}{progress.seconds // 15}"
            if stages.get(progress.name) != step:
                stages[progress.name] = step
                console.print(f"{progress.name}: {progress.stage}, {progress.seconds:.0f} s")

        yield show_progress


def embed(store: InMemoryVectorStore, passages: Sequence[Passage]) -> None:
    """Embed the passages into the store, and report the progress."""
    for start in range(0, len(passages), EMBED_AT_ONCE):
        part = passages[start : start + EMBED_AT_ONCE]
        store.add_documents([Document(passage.text, metadata={"id": passage.id}) for passage in part])
        console.print(f"Embedded {start + len(part)} of {len(passages)} passages")


def show(query: Query, store: InMemoryVectorStore, reranker: Qwen3VLLMReranker) -> None:
    """Print the candidates of one query, best first after reranking."""
    found = store.similarity_search_with_score(query.text, k=CANDIDATES)
    candidates = [
        Document(document.page_content, metadata={**document.metadata, "before": place, "cosine": cosine})
        for place, (document, cosine) in enumerate(found, start=1)
    ]
    passages = [
        Ranked(
            document.page_content,
            before=document.metadata["before"],
            cosine=document.metadata["cosine"],
            relevance_score=document.metadata["relevance_score"],
            is_answer=document.metadata["id"] in query.relevant,
        )
        for document in reranker.compress_documents(candidates, query.text)
    ]
    console.print()
    console.print(ranking(query.text, passages))


def judge(queries: Sequence[Query], store: InMemoryVectorStore, reranker: Qwen3VLLMReranker) -> None:
    """Print nDCG@10 over labelled queries, before and after reranking."""
    before, after = [], []
    for query in queries:
        found = store.similarity_search(query.text, k=JUDGED)
        before.append(ndcg(query, found))
        after.append(ndcg(query, reranker.compress_documents(found, query.text)))
    language = "another language than" if queries[0].across else "the language of"
    console.print(
        f"nDCG@10 of {len(queries)} questions in {language} their answers: "
        f"{mean(before):.2f} by vector search, {mean(after):.2f} reranked"
    )


def ndcg(query: Query, ranking: Sequence[Document], k: int = 10) -> float:
    """Return nDCG@k of a ranking: 1 where all passages that answer the query come first."""
    gains = [document.metadata["id"] in query.relevant for document in ranking[:k]]
    best = [True] * min(k, len(query.relevant))
    return discounted(gains) / discounted(best)


def discounted(gains: Sequence[bool]) -> float:
    """Return the sum of gains, each worth less the later it comes."""
    return sum(gain / math.log2(place + 2) for place, gain in enumerate(gains))


if __name__ == "__main__":
    sys.exit(main())
