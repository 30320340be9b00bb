"""What a reranker should notice on its way: which tokens of a document were in the query.

Taught beside the answer itself, at every token, and left out of the checkpoint: the answer alone is too weak
a signal for a small model to find out that it has to compare.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from demo.training.pools import Batch, TokenPool

Span = tuple[Tensor, Tensor]
BUCKETS = 1 << 15  # pairs of neighbouring tokens are hashed


class LexicalProbe(nn.Module):
    """Reads overlap off the states: per token in the middle of the model, in sum at its end.

    Args:
        width: Of the states.
        passages: Where a token's rarity is counted.
        size: Of the vocabulary.
    """

    def __init__(self, width: int, passages: TokenPool, size: int) -> None:
        super().__init__()
        self.at_tokens = nn.Linear(width, 2)
        self.at_end = nn.Linear(width, 2)
        counts = torch.bincount(passages.tokens.long(), minlength=size).float()
        self.rarity = ((counts.sum() / (counts + 20)).log() - 3).clamp(min=0.2)
        self.pair_rarity = torch.ones(BUCKETS, device=counts.device)

    def forward(self, between: Tensor, last: Tensor, batch: Batch, asked: Span, told: Span) -> Tensor:
        """Return the loss.

        Args:
            between: States in the middle of the model, (rows, length, width).
            last: States at the last token, (rows, width).
            batch: The prompts.
            asked: Where the query starts and ends, (rows,) each.
            told: Where the document starts and ends.
        """
        place = torch.arange(batch.ids.shape[1], device=batch.ids.device)
        in_query, in_document = (
            (place >= start[:, None]) & (place < end[:, None]) for start, end in (asked, told)
        )
        before = functional.pad(batch.ids[:, :-1], (1, 0))
        pairs = (before * 31_337 + batch.ids) % BUCKETS
        flags, coverage = [], []
        for ids, rarity in ((batch.ids, self.rarity), (pairs, self.pair_rarity)):
            query, document = (_present(ids, where, len(rarity)) for where in (in_query, in_document))
            flags.append(query.gather(1, ids))
            coverage.append(((query & document) * rarity).sum(1) / (query * rarity).sum(1).clamp(min=0.1))
        seen = functional.binary_cross_entropy_with_logits(
            self.at_tokens(between).float(), torch.stack(flags, -1).float(), reduction="none"
        )
        mean = (seen * in_document[..., None]).sum() / (2 * in_document.sum())
        covered = functional.mse_loss(
            self.at_end(last.to(self.at_end.weight.dtype)), torch.stack(coverage, -1)
        )
        return mean + 5 * covered


def _present(ids: Tensor, where: Tensor, size: int) -> Tensor:
    """Return which tokens are among those at `where`: (rows, size)."""
    found = torch.zeros(len(ids), size + 1, dtype=torch.bool, device=ids.device)
    found.scatter_(1, torch.where(where, ids, size), True)
    return found[:, :size]
