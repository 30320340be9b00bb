"""LlamaIndex's RetrieverEvaluator: what search gives alone and reranked, on 20 questions with known answers.

Serve:  qwen3-vllm serve both
Run:    python examples/llama_index_evaluation.py
Prints: hit rate, MRR and nDCG of the first three nodes, without and with the reranker.

For intervals, costs and a choice among many set-ups, see `qwen3-vllm evaluate`.
"""

import json
from pathlib import Path

from llama_index.core import VectorStoreIndex
from llama_index.core.evaluation import RetrieverEvaluator
from llama_index.core.schema import TextNode

from qwen3_vllm.llama_index import Qwen3VLLMEmbeddings, Qwen3VLLMReranker

METRICS = ["hit_rate", "mrr", "ndcg"]
KEPT = 3
demo = Path(__file__).parents[1] / "demo"
passages = list(map(json.loads, (demo / "corpus.jsonl").read_text(encoding="utf-8").splitlines()))
questions = list(map(json.loads, (demo / "queries.jsonl").read_text(encoding="utf-8").splitlines()))

nodes = [TextNode(text=row["text"], id_=row["id"]) for row in passages]
index = VectorStoreIndex(nodes, embed_model=Qwen3VLLMEmbeddings())
alone = RetrieverEvaluator.from_metric_names(METRICS, retriever=index.as_retriever(similarity_top_k=KEPT))
reranked = RetrieverEvaluator.from_metric_names(
    METRICS,
    retriever=index.as_retriever(similarity_top_k=20),
    node_postprocessors=[Qwen3VLLMReranker(top_n=KEPT)],
)
for name, evaluator in (("search alone", alone), ("reranked", reranked)):
    results = [evaluator.evaluate(row["query"], row["relevant"]).metric_vals_dict for row in questions]
    means = [f"{metric} {sum(each[metric] for each in results) / len(results):.4f}" for metric in METRICS]
    print(f"{name:12}", "  ".join(means))
