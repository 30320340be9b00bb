"""`evaluate`: from a user's data to what each set-up gives, and which one to take."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from qwen3_vllm._core.prompts import DEFAULT_INSTRUCTION
from qwen3_vllm.errors import ConfigurationError, InputError
from qwen3_vllm.evaluation.data.dataset import Dataset
from qwen3_vllm.evaluation.data.reading import checked, read_dataset
from qwen3_vllm.evaluation.data.sheet import write_sheet
from qwen3_vllm.evaluation.measures.metrics import DEFAULT_METRICS, depth_of, parse_metrics
from qwen3_vllm.evaluation.measures.thresholds import Goal
from qwen3_vllm.evaluation.measuring import measure_run
from qwen3_vllm.evaluation.results import Evaluation
from qwen3_vllm.evaluation.search.quantising import VectorKind
from qwen3_vllm.evaluation.search.reranking import pool_of
from qwen3_vllm.evaluation.set_ups import Choices, Embeddings, Rerankers
from qwen3_vllm.evaluation.work import OnProgress, opened

DEFAULT_CANDIDATES = (0, 50)
_DEPTH = 100  # documents of each query that are ranked, at least


def evaluate(
    data: str | Path | Dataset,
    *,
    embeddings: Embeddings | None = None,
    rerankers: Rerankers | None = None,
    instructions: Sequence[str] = (DEFAULT_INSTRUCTION,),
    dimensions: Sequence[int] = (),
    vectors: Sequence[VectorKind] = ("float32",),
    candidates: Sequence[int] = DEFAULT_CANDIDATES,
    metrics: Sequence[str] = DEFAULT_METRICS,
    precision: float | None = None,
    recall: float | None = None,
    queries: str | Path | None = None,
    judgements: str | Path | None = None,
    keep: str | Path | None = None,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Evaluation:
    """Measure every combination of what is listed, and choose the cheapest that is not shown to be worse.

    Args:
        data: A folder in BEIR's layout, a file of questions and passages, a folder made by
            `qwen3-vllm embed`, or a `Dataset`.
        embeddings: A client, or several by name. None: the default server. Their `instruction` is not used.
        rerankers: A client, or several by name. None: the default server, if there are candidates to rerank.
        instructions: Task sentences of queries, for both models. "" embeds queries bare, and leaves rerankers
            theirs.
        dimensions: To cut vectors to. `()`: the servers' own.
        vectors: "float32", "int8", "binary".
        candidates: Documents to rerank; 0: search alone.
        metrics: By ir_measures' names. The first one decides.
        precision: Find the score from which results have this precision.
        recall: Find the score from which results have this recall.
        queries: File of queries, where `data` has none, or others are meant.
        judgements: File of judgements, likewise: TSV of BEIR or TREC, or a labelled sheet.
        keep: Folder for vectors, scores and times: another run asks for none of them again. None: they are
            dropped.
        seed: Of intervals and p-values.
        on_progress: Called as stages advance.

    Raises:
        InputError: Data that cannot be read, or do not fit together.
        ConfigurationError: Options that cannot work.
        WrongServerError: A server has another model than the one that kept vectors or scores come from.
        Qwen3VLLMError: A server failed. With `keep`, the same call resumes.
    """
    measures = parse_metrics(metrics)
    goals = _goals(precision, recall)
    choices = Choices.of(embeddings, rerankers, instructions, dimensions, vectors, candidates)
    dataset = _read(data, queries, judgements, judged=True, texts_needed=any(candidates))
    if not dataset.judgements:
        raise InputError(
            "there are no judgements: give a file of them (judgements=, --judgements), or make a sheet to "
            "label (write_labelling_sheet, --sample FILE)"
        )
    with opened(choices, dataset, keep, on_progress) as run:
        run.find(depth=max(_DEPTH, depth_of(measures)))
        run.score()
        return measure_run(run, measures, goals, seed)


def write_labelling_sheet(
    data: str | Path | Dataset,
    path: str | Path,
    *,
    embeddings: Embeddings | None = None,
    rerankers: Rerankers | None = None,
    instructions: Sequence[str] = (DEFAULT_INSTRUCTION,),
    dimensions: Sequence[int] = (),
    vectors: Sequence[VectorKind] = ("float32",),
    candidates: Sequence[int] = DEFAULT_CANDIDATES,
    depth: int = 10,
    queries: str | Path | None = None,
    keep: str | Path | None = None,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> int:
    """Write a CSV to label: the first `depth` documents of every set-up, shuffled; returns how many rows.

    Fill the column `relevant` (yes, no, or 0, 1, 2, …), and give the file to `evaluate` as `judgements`.
    Other arguments and errors are those of `evaluate`.
    """
    choices = Choices.of(embeddings, rerankers, instructions, dimensions, vectors, candidates)
    dataset = _read(data, queries, None, judged=False, texts_needed=True)
    with opened(choices, dataset, keep, on_progress) as run:
        run.find(depth=depth)
        run.score()
        pool = pool_of([(run.ranking_of(set_up), depth) for set_up in run.set_ups])
        assert dataset.texts is not None
        return write_sheet(
            Path(path), run.query_ids, run.queries, dataset.document_ids, dataset.texts, pool, seed
        )


def _read(
    data: str | Path | Dataset,
    queries: str | Path | None,
    judgements: str | Path | None,
    *,
    judged: bool,
    texts_needed: bool,
) -> Dataset:
    if not isinstance(data, Dataset):
        return read_dataset(
            data, queries=queries, judgements=judgements, judged=judged, texts_needed=texts_needed
        )
    if queries is not None or judgements is not None:
        raise ConfigurationError("a Dataset has its own queries and judgements: give no files of them")
    return checked(data if judged else replace(data, judgements={}))


def _goals(precision: float | None, recall: float | None) -> list[tuple[Goal, float]]:
    wanted: list[tuple[Goal, float | None]] = [("precision", precision), ("recall", recall)]
    goals = [(goal, target) for goal, target in wanted if target is not None]
    for goal, target in goals:
        if not 0 < target <= 1:
            raise ConfigurationError(f"{goal}={target}: must be above 0, and 1 at most")
    return goals
