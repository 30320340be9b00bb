"""Train the reranker: yes or no at the last position of the exact prompt, no to any other prompt.

A tiny model is not upset by a wrong template by itself. It is trained to answer `no` to one, whatever the
document, so that a client's or a server's mistake shows in the ranking.
"""

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from demo.training.embedding import (
    LONGEST_PASSAGE,
    LONGEST_QUERY,
    SHORT_PHASE,
    Sampler,
    Teacher,
    vectors,
)
from demo.training.heldout import answer_direction
from demo.training.lexical import LexicalProbe, Span
from demo.training.model import Qwen3, at_last, start_matching
from demo.training.pace import Pace
from demo.training.pools import Batch, Dataset, encode, join, repeat, stack
from qwen3_vllm._core import prompts

CANDIDATES = 8  # passages a query is compared with: the right one and seven others
MINED = 32
MINED_SHARE = 0.7  # the other wrong passages are drawn at random from the same kind
MINED_FROM = 0.4  # share of the training after which it is reached
PROBED_LAYER = 3
TEACHER_TEMPERATURE = 0.05
PERMUTED_SHARE = 0.12
WRONG_LOGIT = -3.0
SHORT_PASSAGE = 224  # longest in the first phase
RATE = 1.5e-3


def mine(model: nn.Module, data: Dataset) -> Tensor:
    """Return, for each query, the passages of its kind that the embedding model takes for the answer.

    Passages of the answer's own group are replaced by random ones. Shape (queries, 32).
    """
    asked = vectors(model, data.embedding_queries, LONGEST_QUERY).half()
    found = vectors(model, data.embedding_passages, LONGEST_PASSAGE).half()
    mined = torch.empty(len(asked), MINED, dtype=torch.long, device=data.device)
    for kind in range(len(data.kind_names)):
        passages = torch.nonzero(data.passage_kinds == kind).flatten()
        for rows in torch.split(torch.nonzero(data.query_kinds == kind).flatten(), 4096):
            likeness = asked[rows] @ found[passages].T
            count = min(MINED, len(passages))
            best = passages[likeness.topk(count).indices]
            others = passages[torch.randint(len(passages), (len(rows), MINED), device=data.device)]
            others[:, :count] = torch.where(
                data.passage_groups[best] == data.passage_groups[data.answers[rows]][:, None],
                others[:, :count],
                best,
            )
            mined[rows] = others
    return mined


def train(
    model: Qwen3,
    data: Dataset,
    teacher: Teacher,
    mined: Tensor,
    tokenizer: Tokenizer,
    *,
    steps: int,
    seconds: float,
    batch_size: int,
    seed: int,
) -> None:
    """Train in place; `batch_size` counts queries, each with eight passages."""
    chance = torch.Generator().manual_seed(seed)
    sampler = Sampler(data, chance)
    templates = Templates(data, tokenizer)
    start_matching(model, layers=2)
    sizes = model.shape
    probe = LexicalProbe(sizes.hidden_size, data.rerank_passages, sizes.vocab_size).to(data.device)
    pace = Pace(model, probe, rate=RATE, steps=steps, seconds=seconds)
    by_kind = [torch.nonzero(data.passage_kinds == kind).flatten() for kind in range(len(data.kind_names))]
    for step in pace:
        short = pace.done < SHORT_PHASE
        templates.longest = SHORT_PASSAGE if short else LONGEST_PASSAGE
        rows = sampler.draw(batch_size, short=short)
        hard = MINED_SHARE * min(1, pace.done / MINED_FROM)
        candidates = _candidates(data, mined, by_kind, rows, hard)
        permuted = float(torch.rand((), generator=chance)) < PERMUTED_SHARE
        right, asked, told = templates.right(rows.repeat_interleave(CANDIDATES), candidates.flatten())
        if permuted:
            right = templates.permuted(right)
        wrong = rows[: batch_size // 4]
        batch = stack([right, *templates.wrong(wrong, candidates[: len(wrong)])])
        count = candidates.numel()
        with torch.autocast(data.device.type, torch.bfloat16):
            between, states = model.states(batch.ids, PROBED_LAYER)
            last = at_last(states, batch)
            width = right.ids.shape[1]
            lexical = probe(between[:count, :width], last[:count], right, asked, told)
        logits = last @ answer_direction(model, tokenizer)
        scores = logits[:count].view(candidates.shape)
        refused = functional.smooth_l1_loss(logits[count:], torch.full_like(logits[count:], WRONG_LOGIT))
        ranked = _loss(scores, None if permuted else _likeness(data, teacher, rows, candidates))
        pace.update(ranked + lexical + refused)
        if step % 100 == 0:
            first = float((scores.argmax(-1) == 0).float().mean())
            losses = f"loss {ranked.item():.3f} lexical {lexical.item():.3f} refused {refused.item():.3f}"
            print(f"reranker step {step} {losses} right first {first:.3f}", flush=True)


class Templates:
    """Assembles prompts, right and wrong, from their tokenised parts."""

    def __init__(self, data: Dataset, tokenizer: Tokenizer) -> None:
        self.data = data
        self.longest = LONGEST_PASSAGE
        self.prefix, self.suffix = encode(tokenizer, [prompts.RERANK_PREFIX, prompts.RERANK_SUFFIX])
        size = tokenizer.get_vocab_size(with_added_tokens=True)
        written = [prompts.rerank_prompt("", "", prompts.DEFAULT_INSTRUCTION), "<Document>: ", "yes no"]
        fixed = {token for ids in encode(tokenizer, written) for token in ids}
        fixed |= {encode(tokenizer, [token])[0][0] for token in prompts.CONTROL_TOKENS}
        free = [token for token in range(size) if token not in fixed]
        self.free = torch.tensor(free, device=data.device)
        self.same = torch.arange(size, device=data.device)

    def right(self, rows: Tensor, passages: Tensor) -> tuple[Batch, Span, Span]:
        """Return the exact prompts, and where in them the queries and the documents are."""
        head, document = self._head(rows), self._document(passages)
        starts = len(self.prefix) + head.lengths
        whole = join([self._fixed(self.prefix, rows), head, document, self._fixed(self.suffix, rows)])
        # A token or two of the template may count as the query's: it is tokenised with what stands around it.
        asked = (starts - self.data.bare_queries.lengths[rows] - 5, starts - 3)
        return whole, asked, (starts, starts + document.lengths)

    def permuted(self, batch: Batch) -> Batch:
        """Exchange the tokens of queries and passages for others: to learn is which are the same."""
        exchange = self.same.clone()
        exchange[self.free] = self.free[torch.randperm(len(self.free), device=self.free.device)]
        return Batch(exchange[batch.ids], batch.lengths)

    def wrong(self, queries: Tensor, candidates: Tensor) -> list[Batch]:
        """Return wrong prompts: each quarter of the queries has one mistake."""
        rows = queries.repeat_interleave(candidates.shape[1])
        no_newline, bare, no_suffix, no_system = _quarters(rows, candidates.flatten())
        data = self.data
        return [
            join(
                [
                    self._fixed(self.prefix, no_newline[0]),
                    data.heads_without_newline.take(no_newline[0], LONGEST_QUERY, keep_last=True),
                    self._document(no_newline[1]),
                    self._fixed(self.suffix, no_newline[0]),
                ]
            ),
            join([data.bare_queries.take(bare[0], LONGEST_QUERY), self._document(bare[1])]),
            join(
                [
                    self._fixed(self.prefix, no_suffix[0]),
                    self._head(no_suffix[0]),
                    self._document(no_suffix[1]),
                ]
            ),
            join(
                [
                    self._head(no_system[0]),
                    self._document(no_system[1]),
                    self._fixed(self.suffix, no_system[0]),
                ]
            ),
        ]

    def _head(self, rows: Tensor) -> Batch:
        return self.data.heads.take(rows, LONGEST_QUERY, keep_last=True)

    def _document(self, passages: Tensor) -> Batch:
        return self.data.rerank_passages.take(passages, self.longest)

    def _fixed(self, tokens: list[int], rows: Tensor) -> Batch:
        return repeat(tokens, len(rows), rows.device)


def _quarters(rows: Tensor, passages: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(rows.chunk(4), passages.chunk(4), strict=True))


def _candidates(
    data: Dataset, mined: Tensor, by_kind: list[Tensor], rows: Tensor, hard_share: float
) -> Tensor:
    """Return the right passage and seven wrong ones for each query: (queries, 8)."""
    shape, device = (len(rows), CANDIDATES - 1), data.device
    hard = mined[rows].gather(1, torch.randint(MINED, shape, device=device))
    kinds = data.query_kinds[rows]
    easy = torch.empty_like(hard)
    for kind in torch.unique(kinds).tolist():
        chosen = kinds == kind
        passages = by_kind[kind]
        easy[chosen] = passages[torch.randint(len(passages), (int(chosen.sum()), shape[1]), device=device)]
    wrong = torch.where(torch.rand(shape, device=device) < hard_share, hard, easy)
    return torch.cat((data.answers[rows][:, None], wrong), 1)


def _likeness(data: Dataset, teacher: Teacher, rows: Tensor, candidates: Tensor) -> Tensor | None:
    """Return the teacher's cosines, (queries, 8), where every query is English."""
    if not bool(data.is_english[rows].all()):
        return None
    return torch.einsum("qd,qcd->qc", teacher.queries[rows].float(), teacher.passages[candidates].float())


def _loss(scores: Tensor, likeness: Tensor | None) -> Tensor:
    """Rank the right passage first, and say yes to it and no to the others."""
    first = torch.zeros(len(scores), dtype=torch.long, device=scores.device)
    answers = torch.zeros_like(scores)
    answers[:, 0] = 1
    contrast = functional.cross_entropy(scores, first)
    weight = torch.ones_like(scores)
    weight[:, 0] = 3
    if likeness is not None:
        # The teacher knows better than the way a query was made which passages answer it as well.
        contrast = 0.3 * contrast + functional.cross_entropy(
            scores, (likeness / TEACHER_TEMPERATURE).softmax(-1)
        )
        weight[:, 1:] = (likeness[:, 1:] < 0.9 * likeness[:, :1]).float()
    return contrast + 0.5 * functional.binary_cross_entropy_with_logits(scores, answers, weight)
