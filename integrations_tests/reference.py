"""What Qwen3 models answer by Qwen's own code path: Transformers, fp32, one text at a time.

Written from the model cards and apart from the package, so that a mistake in one does not hide in the other.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the "
    'Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


class ReferenceEmbedding:
    """Qwen3-Embedding as its model card runs it."""

    def __init__(self, model_path: Path) -> None:
        self._model_path = model_path

    @cached_property
    def _tokenizer(self) -> Any:
        return AutoTokenizer.from_pretrained(self._model_path)

    @cached_property
    def _model(self) -> Any:
        return AutoModel.from_pretrained(self._model_path, dtype=torch.float32).eval()

    def queries(self, queries: Sequence[str], instruction: str = INSTRUCTION) -> NDArray[np.float32]:
        """Embed queries; float32 `(len(queries), dimensions)`, L2-normalised rows."""
        return self.documents([f"Instruct: {instruction}\nQuery:{query}" for query in queries])

    @torch.inference_mode()
    def documents(self, texts: Sequence[str], max_length: int = 2048) -> NDArray[np.float32]:
        """Embed texts as they are: the hidden state of the last token, normalised."""
        rows = []
        for text in texts:
            batch = self._tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt")
            last = self._model(**batch).last_hidden_state[0, -1]
            rows.append(torch.nn.functional.normalize(last, dim=0).numpy())
        return np.stack(rows)


class ReferenceReranker:
    """Qwen3-Reranker as its model card runs it."""

    def __init__(self, model_path: Path) -> None:
        self._model_path = model_path

    @cached_property
    def _tokenizer(self) -> Any:
        return AutoTokenizer.from_pretrained(self._model_path, padding_side="left")

    @cached_property
    def _model(self) -> Any:
        return AutoModelForCausalLM.from_pretrained(self._model_path, dtype=torch.float32).eval()

    def scores(
        self, query: str, documents: Sequence[str], instruction: str = INSTRUCTION, max_length: int = 2048
    ) -> NDArray[np.float32]:
        """Score documents against one query; float32 `(len(documents),)` of P(yes)."""
        return np.array(
            [self._score(query, document, instruction, max_length) for document in documents], np.float32
        )

    @torch.inference_mode()
    def _score(self, query: str, document: str, instruction: str, max_length: int) -> float:
        logits = self._model(torch.tensor([self.prompt_ids(query, document, instruction, max_length)])).logits
        no, yes = self._tokenizer.convert_tokens_to_ids(["no", "yes"])
        both = torch.stack([logits[0, -1, no], logits[0, -1, yes]])
        return torch.nn.functional.log_softmax(both, dim=0)[1].exp().item()

    def prompt_ids(self, query: str, document: str, instruction: str, max_length: int) -> list[int]:
        """Return the finished prompt's tokens: only the middle is cut, and as one text."""
        prefix, suffix = (self._tokenizer.encode(part, add_special_tokens=False) for part in (PREFIX, SUFFIX))
        middle = self._tokenizer(
            f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}",
            truncation="longest_first",
            max_length=max_length - len(prefix) - len(suffix),
            add_special_tokens=False,
        )
        return [*prefix, *middle["input_ids"], *suffix]
