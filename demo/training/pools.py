"""Token sequences on the training device, gathered into padded batches there."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from demo.training import queries
from demo.training.corpus import Passage
from qwen3_vllm._core import prompts

END_TOKEN = "<|endoftext|>"
ROUNDING = 32  # padded lengths are multiples of this: few shapes, little waste


@dataclass(frozen=True)
class Batch:
    """Token ids, padded on the right, (rows, length), and the rows' lengths, (rows,)."""

    ids: Tensor
    lengths: Tensor


class TokenPool:
    """Many token sequences in one tensor."""

    def __init__(self, sequences: Sequence[Sequence[int]], device: torch.device) -> None:
        lengths = np.fromiter((len(sequence) for sequence in sequences), np.int64, len(sequences))
        flat = np.fromiter((token for sequence in sequences for token in sequence), np.int32, lengths.sum())
        self.tokens = torch.from_numpy(flat).to(device)
        self.lengths = torch.from_numpy(lengths).to(device)
        self.starts = torch.from_numpy(np.cumsum(lengths) - lengths).to(device)

    def take(self, rows: Tensor, longest: int = 10_000, *, keep_last: bool = False) -> Batch:
        """Return the sequences of `rows`, cut to `longest` tokens; `keep_last` keeps their last one."""
        full = self.lengths[rows]
        lengths = full.clamp(max=longest)
        place = torch.arange(_rounded(int(lengths.max())), device=rows.device)
        inside = place < lengths[:, None]
        if keep_last:
            last = place == lengths[:, None] - 1
            place = torch.where(last, full[:, None] - 1, place)
        where = torch.where(inside, self.starts[rows][:, None] + place, 0)
        return Batch(torch.where(inside, self.tokens[where], 0).long(), lengths)


def join(parts: Sequence[Batch]) -> Batch:
    """Write the parts of each row one after another."""
    lengths = torch.stack([part.lengths for part in parts]).sum(0)
    width = _rounded(int(lengths.max()))
    ids = torch.zeros(len(lengths), width + 1, dtype=torch.long, device=lengths.device)
    start = torch.zeros_like(lengths)
    for part in parts:
        place = torch.arange(part.ids.shape[1], device=start.device)
        target = torch.where(place < part.lengths[:, None], start[:, None] + place, width)
        ids.scatter_(1, target.clamp(max=width), part.ids)
        start = start + part.lengths
    ids = ids[:, :width]
    inside = torch.arange(width, device=start.device) < lengths[:, None]
    return Batch(torch.where(inside, ids, 0), lengths)


def stack(batches: Sequence[Batch]) -> Batch:
    """Put batches under each other."""
    width = max(batch.ids.shape[1] for batch in batches)
    padded = [torch.nn.functional.pad(batch.ids, (0, width - batch.ids.shape[1])) for batch in batches]
    return Batch(torch.cat(padded), torch.cat([batch.lengths for batch in batches]))


def repeat(tokens: Sequence[int], rows: int, device: torch.device) -> Batch:
    """Return the same tokens in every row."""
    ids = torch.tensor(tokens, device=device).expand(rows, -1)
    return Batch(ids, torch.full((rows,), len(tokens), device=device))


class Dataset:
    """Passages and queries, tokenised in every form that the two models read.

    Attributes:
        answers: (queries,) index of the passage that a query was made for.
        passage_groups: (passages,) passages of one group may answer each other's queries.
        kinds: name of a kind of data -> its queries.
        passages_of: (queries,) the kind of a query, as an index into `kind_passages`.
    """

    def __init__(
        self, passages: Sequence[Passage], tokenizer: Tokenizer, device: torch.device, seed: int
    ) -> None:
        chance = random.Random(seed)
        self.texts: list[str] = []
        answers: list[int] = []
        for index, passage in enumerate(passages):
            asked = [question.text for question in passage.questions] * (4 if passage.kind == "cmrc" else 1)
            for text in [*asked, *queries.made_up(passage, chance)]:
                self.texts.append(prompts.neutralise(text))
                answers.append(index)
        self.device = device
        self.passages = passages
        self.answers = torch.tensor(answers, device=device)
        groups = {group: number for number, group in enumerate(dict.fromkeys(p.group for p in passages))}
        self.passage_groups = torch.tensor([groups[passage.group] for passage in passages], device=device)
        names = [f"{passage.kind}-{passage.language}" for passage in passages]
        self.kind_names = list(dict.fromkeys(names))
        self.passage_kinds = torch.tensor([self.kind_names.index(name) for name in names], device=device)
        self.query_kinds = self.passage_kinds[self.answers]
        self.is_english = torch.tensor([p.language == "en" for p in passages], device=device)[self.answers]
        self._tokenise([prompts.neutralise(passage.text) for passage in passages], tokenizer, chance)

    def _tokenise(self, documents: Sequence[str], tokenizer: Tokenizer, chance: random.Random) -> None:
        def pool(texts: Sequence[str]) -> TokenPool:
            return TokenPool(encode(tokenizer, texts), self.device)

        instructions = [queries.instruction(chance) for _ in self.texts]
        asked = list(zip(self.texts, instructions, strict=True))
        self.embedding_queries = pool([prompts.embedding_query(*pair) + END_TOKEN for pair in asked])
        self.embedding_passages = pool([document + END_TOKEN for document in documents])
        heads = [rerank_middle(text, given or prompts.DEFAULT_INSTRUCTION) for text, given in asked]
        self.heads = pool(heads)
        self.heads_without_newline = pool([head.replace("\n<Document>:", "<Document>:") for head in heads])
        self.bare_queries = pool(self.texts)
        self.rerank_passages = pool([f" {document}" for document in documents])


def rerank_middle(query: str, instruction: str) -> str:
    """Return the rerank prompt between its fixed beginning and the document.

    It ends after `<Document>:`, where the tokenizer always splits: the space goes to what follows.
    """
    return prompts.rerank_head(query, instruction).removeprefix(prompts.RERANK_PREFIX) + "<Document>:"


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Return the texts' token ids; a special token written in a text is one."""
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]


def _rounded(length: int) -> int:
    return max(ROUNDING, -(-length // ROUNDING) * ROUNDING)
