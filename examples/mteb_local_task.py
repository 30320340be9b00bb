"""mteb on a task of your own, without a model hub: both clients as mteb's encoder and cross-encoder.

Install: pip install "mteb>=2" -e .     (in an environment of its own: it brings torch)
Serve:   qwen3-vllm serve both
Run:     python examples/mteb_local_task.py
Prints:  nDCG@10 and recall@10 of search, and of the same candidates reranked.

Tasks of mteb itself take the same two models: `mteb.get_tasks(["SciFact"])`.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import mteb
import numpy as np
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.models import ModelMeta
from mteb.types import PromptType

from qwen3_vllm import EmbeddingClient, RerankClient

CANDIDATES = 20
INSTRUCTION = "Given a question, retrieve passages that answer it"
demo = Path(__file__).parents[1] / "demo"


class Questions(AbsTaskRetrieval):
    """The demo's 20 questions on its 76 passages."""

    metadata = mteb.TaskMetadata(
        name="DemoQuestions",
        description="Questions in Chinese and English, with the passages that answer them.",
        dataset={"path": "local", "revision": "1"},
        type="Retrieval",
        prompt={"query": INSTRUCTION},
        eval_langs=["eng-Latn", "cmn-Hans"],
        main_score="ndcg_at_10",
    )

    def load_data(self, **options: Any) -> None:
        """Read the demo's files."""
        passages = map(json.loads, (demo / "corpus.jsonl").read_text(encoding="utf-8").splitlines())
        questions = map(json.loads, (demo / "queries.jsonl").read_text(encoding="utf-8").splitlines())
        asked = {f"q{number}": row for number, row in enumerate(questions)}
        self.corpus = {"test": {row["id"]: {"text": row["text"]} for row in passages}}
        self.queries = {"test": {id: row["query"] for id, row in asked.items()}}
        self.relevant_docs = {"test": {id: dict.fromkeys(row["relevant"], 1) for id, row in asked.items()}}
        self.convert_v1_dataset_format_to_v2(num_proc=None)
        self.data_loaded = True


def texts_of(batches: Any) -> list[str]:
    """Join what mteb hands over in batches."""
    return [text for batch in batches for text in batch["text"]]


class Encoder:
    """An EmbeddingClient as an encoder of mteb."""

    mteb_model_meta = ModelMeta.create_empty({"name": "qwen3-vllm/embedding"})

    def __init__(self, client: EmbeddingClient) -> None:
        self.client = client

    def encode(
        self, inputs: Any, *, task_metadata: Any, prompt_type: PromptType | None = None, **options: Any
    ) -> np.ndarray:
        """Embed queries with the task's instruction, and documents without."""
        if prompt_type == PromptType.query:
            return self.client.embed_queries(texts_of(inputs), instruction=task_metadata.prompt["query"])
        return self.client.embed_documents(texts_of(inputs))

    def similarity(self, queries: Any, documents: Any) -> np.ndarray:
        """Cosines: the vectors are L2-normalised."""
        return np.asarray(queries) @ np.asarray(documents).T

    def similarity_pairwise(self, queries: Any, documents: Any) -> np.ndarray:
        """Cosines of pairs."""
        return (np.asarray(queries) * np.asarray(documents)).sum(axis=1)


class CrossEncoder:
    """A RerankClient as a cross-encoder of mteb."""

    mteb_model_meta = ModelMeta.create_empty({"name": "qwen3-vllm/reranker", "is_cross_encoder": True})

    def __init__(self, client: RerankClient) -> None:
        self.client = client

    def predict(self, inputs1: Any, inputs2: Any, *, task_metadata: Any, **options: Any) -> np.ndarray:
        """Score pairs with the task's instruction."""
        instruction = task_metadata.prompt["query"]
        return self.client.score(texts_of(inputs1), texts_of(inputs2), instruction=instruction)


def main() -> None:
    """Search, and rerank what was found."""
    with tempfile.TemporaryDirectory() as folder:
        task = Questions()
        searched = mteb.evaluate(Encoder(EmbeddingClient()), task, cache=None, prediction_folder=folder)
        task = Questions().convert_to_reranking(folder, top_k=CANDIDATES)
        reranked = mteb.evaluate(CrossEncoder(RerankClient()), task, cache=None)
    for name, result in (("search alone", searched), ("reranked", reranked)):
        scores = result.task_results[0].scores["test"][0]
        print(f"{name:12} nDCG@10 {scores['ndcg_at_10']:.4f}  recall@10 {scores['recall_at_10']:.4f}")


if __name__ == "__main__":
    main()
