"""The work at the servers: embedding, searching, scoring; nothing is asked for twice."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from qwen3_vllm._core.vllm_api.embeddings import Vectors
from qwen3_vllm.bulk.folder_lock import locked_folder
from qwen3_vllm.errors import ConfigurationError
from qwen3_vllm.evaluation.data.dataset import Dataset
from qwen3_vllm.evaluation.search.embedding import EmbeddedTexts
from qwen3_vllm.evaluation.search.keeping import Times
from qwen3_vllm.evaluation.search.quantising import Blocks, similarity, stored
from qwen3_vllm.evaluation.search.reranking import ScoredPairs, pool_of, scores_folder
from qwen3_vllm.evaluation.search.searching import BLOCK_DOCUMENTS, Ranking, search
from qwen3_vllm.evaluation.set_ups import Choices, SetUp


@dataclass(frozen=True)
class Progress:
    """How far a run is: `done` of `total` in this stage."""

    stage: str
    done: int
    total: int


OnProgress = Callable[[Progress], None]


class Run:
    """The work at the servers: embedding, searching, scoring."""

    def __init__(
        self, choices: Choices, dataset: Dataset, folder: Path, open_files: ExitStack, tell: OnProgress
    ) -> None:
        self.choices = choices
        self.dataset = dataset
        self.query_ids = list(dataset.queries)
        self.queries = list(dataset.queries.values())
        self._folder = folder
        self._open_files = open_files
        self._tell = tell
        self.embedded: dict[str, EmbeddedTexts] = {}
        self.found: dict[SetUp, Ranking] = {}
        self.search_seconds: dict[SetUp, float] = {}
        self._times: dict[str, Times] = {}
        self._scored: dict[tuple[str, str], ScoredPairs] = {}
        self.set_ups: list[SetUp] = []
        self.warnings = list(dataset.warnings)

    def find(self, depth: int) -> None:
        """Embed what is not embedded, and search every way."""
        own = self.dataset.embedded
        if own is not None and len(self.choices.embeddings) > 1:
            raise ConfigurationError(
                f"{own.output.folder} holds vectors of one model: give one embedding server, or the "
                "documents themselves"
            )
        for name, client in self.choices.embeddings.items():
            self.embedded[name] = EmbeddedTexts(name, client, self._folder, self._open_files)
        widths = {
            name: own.output.dimensions if own else each.dimensions for name, each in self.embedded.items()
        }
        self.set_ups, warnings = self.choices.combined(widths)
        self.warnings += warnings
        for name, embedded in self.embedded.items():
            documents = self._documents(name, embedded)
            for instruction in self.choices.instructions:
                advance = self.stage(f"embedding queries ({name})", len(self.queries))
                asked = embedded.queries(self.queries, instruction, advance)
                self._search(name, instruction, documents, asked, max(depth, *self.choices.candidates))

    def score(self) -> None:
        """Score the candidates that have no score."""
        for name, client in self.choices.rerankers.items() if any(self.choices.candidates) else ():
            times = self._times[name] = Times(scores_folder(self._folder, name) / "times.jsonl")
            for instruction in self.choices.instructions:
                scored = ScoredPairs(name, client, instruction, times, self._folder, self._open_files)
                self._scored[name, instruction] = scored
                found = [
                    (self.found[each.search], each.candidates)
                    for each in self.set_ups
                    if (each.reranker, each.instruction) == (name, instruction)
                ]
                pool = pool_of(found)
                assert self.dataset.texts is not None
                sizes = [size for size in self.choices.candidates if size]
                advance = self.stage(f"scoring pairs ({name})", sum(map(len, pool)))
                scored.score(self.queries, self.dataset.texts, pool, found[0][0], sizes, advance)

    def ranking_of(self, set_up: SetUp) -> Ranking:
        """What a set-up returns for each query; all that it found in search alone."""
        found = self.found[set_up.search]
        if set_up.reranker is None:
            return found
        assert self.dataset.texts is not None
        scored = self._scored[set_up.reranker, set_up.instruction]
        return scored.rerank(self.queries, self.dataset.texts, found, set_up.candidates)

    def _documents(self, name: str, embedded: EmbeddedTexts) -> Blocks:
        own = self.dataset.embedded
        if own is not None:
            output = own.output
            output.check_server(embedded.client)
            return lambda: (each.vectors for each in output.embedded(BLOCK_DOCUMENTS))
        assert self.dataset.texts is not None
        advance = self.stage(f"embedding documents ({name})", len(self.dataset.texts))
        return embedded.documents(self.dataset.texts, advance)

    def _search(self, name: str, instruction: str, documents: Blocks, asked: Vectors, depth: int) -> None:
        ways = {
            each.search: None
            for each in self.set_ups
            if (each.embedding, each.instruction) == (name, instruction)
        }
        advance = self.stage(f"searching ({name})", len(ways))
        for way in ways:
            blocks, queries = stored(documents, asked, way.dimensions, way.vectors)
            started = time.perf_counter()
            found = search(blocks, queries, depth)
            self.search_seconds[way] = (time.perf_counter() - started) / len(self.queries)
            scores = similarity(found.scores, way.dimensions, way.vectors)
            self.found[way] = Ranking(found.documents, scores)
            advance(1)

    def stage(self, stage: str, total: int) -> Callable[[int], None]:
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            self._tell(Progress(stage, done, total))

        advance(0)
        return advance

    def seconds(self, set_up: SetUp) -> tuple[float | None, float | None]:
        """What embedding one query takes, and scoring its candidates; None where it was not measured."""
        rerank = 0.0 if set_up.reranker is None else self._times[set_up.reranker].seconds(set_up.candidates)
        return self.embedded[set_up.embedding].seconds_per_query, rerank

    def tokens(self, set_up: SetUp) -> float | None:
        """Tokens of one query; None where a server reports none."""
        embed = self.embedded[set_up.embedding].tokens_per_query
        rerank = 0.0 if set_up.reranker is None else self._times[set_up.reranker].tokens(set_up.candidates)
        return None if embed is None or rerank is None else embed + rerank


@contextmanager
def opened(
    choices: Choices, dataset: Dataset, keep: str | Path | None, tell: OnProgress | None
) -> Iterator[Run]:
    """Open a run in the folder `keep`, or in one that is gone afterwards."""
    with ExitStack() as files:
        if keep is None:
            folder = Path(files.enter_context(tempfile.TemporaryDirectory(prefix="qwen3-vllm-evaluation-")))
        else:
            folder = Path(keep)
            files.enter_context(locked_folder(folder))
        yield Run(choices, dataset, folder, files, tell or (lambda progress: None))
