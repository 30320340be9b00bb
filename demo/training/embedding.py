"""Train the embedding model: queries near the passages that answer them, at every Matryoshka size."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from demo.training.model import last_states
from demo.training.pace import Pace
from demo.training.pools import Batch, Dataset, TokenPool

SIZES = (256, 128, 64, 32)
TEMPERATURE = 0.05
LONGEST_PASSAGE = 512
LONGEST_QUERY = 96
# Training begins without the kinds that have the longest passages: more steps in the same time.
SHORT_PHASE, LONG_KINDS = 0.5, ("cmrc-zh", "all")
RATE = 2e-3
# How often a batch is drawn from one kind of data; "all" mixes the kinds and the languages.
SHARES = {
    "cmrc-zh": 0.22,
    "cmrc-part-zh": 0.10,
    "handbook-zh": 0.06,
    "wordnet-en": 0.14,
    "python-en": 0.34,
    "handbook-en": 0.06,
    "all": 0.08,
}


@dataclass(frozen=True)
class Teacher:
    """The teacher's unit vectors; rows of Chinese texts are zero."""

    queries: Tensor
    passages: Tensor


class Sampler:
    """Draws queries, one kind of data a batch."""

    def __init__(self, data: Dataset, generator: torch.Generator) -> None:
        kinds = [torch.nonzero(data.query_kinds == kind).flatten() for kind in range(len(data.kind_names))]
        self.rows = dict(zip(data.kind_names, kinds, strict=True))
        self.rows["all"] = torch.arange(len(data.answers), device=data.device)
        self.names = [name for name in SHARES if len(self.rows.get(name, ()))]
        shares = torch.tensor([SHARES[name] for name in self.names])
        short = torch.tensor([name not in LONG_KINDS for name in self.names])
        # Chinese keeps its share while CMRC's whole paragraphs wait.
        parts = torch.tensor([SHARES["cmrc-zh"] if name == "cmrc-part-zh" else 0.0 for name in self.names])
        self.shares = {False: shares, True: shares * short + parts}
        self.generator = generator

    def draw(self, size: int, *, short: bool) -> Tensor:
        """Return the indices of `size` queries; `short` leaves the kinds with long passages out."""
        name = self.names[int(torch.multinomial(self.shares[short], 1, generator=self.generator))]
        rows = self.rows[name]
        chosen = torch.randint(len(rows), (size,), generator=self.generator)
        return rows[chosen.to(rows.device)]


def train(
    model: nn.Module, data: Dataset, teacher: Teacher, pace: Pace, *, batch_size: int, seed: int
) -> None:
    """Train in place, printing the loss now and then."""
    sampler = Sampler(data, torch.Generator().manual_seed(seed))
    for step in pace:
        rows = sampler.draw(batch_size, short=pace.done < SHORT_PHASE)
        passages = data.answers[rows]
        with torch.autocast(data.device.type, torch.bfloat16):
            queries = data.embedding_queries.take(rows, LONGEST_QUERY, keep_last=True)
            asked = last_states(model, queries)
            told = data.embedding_passages.take(passages, LONGEST_PASSAGE, keep_last=True)
            found = last_states(model, told)
        groups = data.passage_groups[passages]
        same = (groups[:, None] == groups) & ~torch.eye(batch_size, dtype=torch.bool, device=rows.device)
        target = _target(teacher, rows, passages, same) if bool(data.is_english[rows].all()) else None
        loss = sum(_loss(asked[:, :size], found[:, :size], same, target) for size in SIZES) / len(SIZES)
        assert isinstance(loss, Tensor)
        pace.update(loss)
        if step % 100 == 0:
            print(f"embedding step {step} loss {float(loss.detach()):.3f}", flush=True)


def vectors(model: nn.Module, pool: TokenPool, longest: int, budget: int = 262_144) -> Tensor:
    """Return the unit vectors of a whole pool, (rows, hidden_size), in order; `budget` tokens at a time."""
    order = torch.argsort(pool.lengths)
    parts: list[Tensor] = []
    start = 0
    while start < len(order):
        size = max(
            1, budget // int(pool.lengths[order[min(start + 4096, len(order)) - 1]].clamp(max=longest))
        )
        rows = order[start : start + min(size, 4096)]
        batch: Batch = pool.take(rows, longest, keep_last=True)
        with torch.no_grad(), torch.autocast(rows.device.type, torch.bfloat16):
            parts.append(functional.normalize(last_states(model, batch), dim=-1))
        start += len(rows)
    found = torch.cat(parts)
    return torch.empty_like(found).index_copy_(0, order, found)


def _target(teacher: Teacher, rows: Tensor, passages: Tensor, same: Tensor) -> Tensor:
    likeness = teacher.queries[rows].float() @ teacher.passages[passages].float().T
    return (likeness / TEMPERATURE).softmax(-1)


def _loss(asked: Tensor, found: Tensor, same: Tensor, target: Tensor | None) -> Tensor:
    likeness = functional.normalize(asked, dim=-1) @ functional.normalize(found, dim=-1).T / TEMPERATURE
    own = torch.arange(len(likeness), device=likeness.device)
    contrast = functional.cross_entropy(likeness.masked_fill(same, -1e4), own)
    if target is None:
        return contrast
    return 0.3 * contrast + functional.cross_entropy(likeness, target)
