"""Score a model in training on the held-out questions, without a server."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.functional import normalize

from demo.training import metrics
from demo.training.corpus import read_heldout
from demo.training.embedding import vectors
from demo.training.model import last_states
from demo.training.pools import END_TOKEN, TokenPool, encode, join, repeat, rerank_middle
from qwen3_vllm._core import prompts

TOP = 20


@dataclass(frozen=True)
class Heldout:
    """The held-out questions of one language, in tokens."""

    language: str
    answers: list[int]
    embedding_queries: TokenPool
    embedding_passages: TokenPool
    prompts_by_template: dict[str, tuple[TokenPool, str]]
    rerank_passages: TokenPool


def load(
    folder: Path, language: str, tokenizer: Tokenizer, device: torch.device, limit: int | None = None
) -> Heldout:
    """Read and tokenise heldout-{language}.jsonl; of its questions the first `limit`."""
    documents, asked = read_heldout(folder / f"heldout-{language}.jsonl")
    asked = asked[:limit]
    texts = [question for question, _ in asked]

    def pool(strings: list[str]) -> TokenPool:
        return TokenPool(encode(tokenizer, strings), device)

    instruction = prompts.DEFAULT_INSTRUCTION
    heads = [prompts.RERANK_PREFIX + rerank_middle(text, instruction) for text in texts]
    no_newline = [head.replace("\n<Document>:", "<Document>:") for head in heads]
    return Heldout(
        language,
        [answer for _, answer in asked],
        pool([prompts.embedding_query(text, instruction) + END_TOKEN for text in texts]),
        pool([document + END_TOKEN for document in documents]),
        {
            "right": (pool(heads), prompts.RERANK_SUFFIX),
            "missing newline": (pool(no_newline), prompts.RERANK_SUFFIX),
            "truncated suffix": (pool(heads), ""),
            "raw pair": (pool(texts), ""),
        },
        pool([f" {document}" for document in documents]),
    )


def retrieve(model: nn.Module, heldout: Heldout, sizes: Sequence[int]) -> dict[int, list[list[int]]]:
    """Return the ranking of all passages for each question, by the first dimensions: size -> rankings."""
    asked = vectors(model, heldout.embedding_queries, 2048)
    found = vectors(model, heldout.embedding_passages, 2048)
    rankings: dict[int, list[list[int]]] = {}
    for size in sizes:
        likeness = normalize(asked[:, :size], dim=-1) @ normalize(found[:, :size], dim=-1).T
        rankings[size] = likeness.argsort(-1, descending=True).tolist()
    return rankings


def report_retrieval(rankings: list[list[int]], answers: list[int]) -> str:
    """Say recall@10, recall@20 and nDCG@10."""
    ranks = [metrics.rank_of(answer, ranking) for answer, ranking in zip(answers, rankings, strict=True)]
    return (
        f"recall@10 {metrics.recall(ranks):.3f} recall@20 {metrics.recall(ranks, 20):.3f} "
        f"nDCG@10 {metrics.ndcg(ranks):.3f}"
    )


def rerank(
    model: nn.Module, heldout: Heldout, rankings: list[list[int]], template: str, tokenizer: Tokenizer
) -> list[list[int]]:
    """Return the first 20 of each ranking, ordered by the reranker."""
    heads, suffix = heldout.prompts_by_template[template]
    device = heads.tokens.device
    top = torch.tensor([ranking[:TOP] for ranking in rankings], device=device)
    suffix_ids = encode(tokenizer, [suffix])[0]
    direction = answer_direction(model, tokenizer)
    scores: list[Tensor] = []
    for start in range(0, len(top), 16):
        chosen = top[start : start + 16]
        rows = torch.arange(start, start + len(chosen), device=device).repeat_interleave(TOP)
        parts = [heads.take(rows), heldout.rerank_passages.take(chosen.flatten())]
        if suffix_ids:
            parts.append(repeat(suffix_ids, len(rows), device))
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
            states = last_states(model, join(parts))
        scores.append((states @ direction).view(len(chosen), TOP))
    order = torch.cat(scores).argsort(dim=-1, descending=True, stable=True)
    reordered: list[list[int]] = top.gather(1, order).tolist()
    return reordered


def answer_direction(model: nn.Module, tokenizer: Tokenizer) -> Tensor:
    """Return the vector whose product with a last state is logit(yes) - logit(no): (hidden_size,)."""
    embeddings = model.get_parameter("embed_tokens.weight")
    return (embeddings[tokenizer.token_to_id("yes")] - embeddings[tokenizer.token_to_id("no")]).float()
