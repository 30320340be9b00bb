"""Qwen3's tokenizer cut down to the tokens that matter for a small corpus.

What is kept is split and merged as Qwen3 does it; a word whose token was dropped falls apart into the tokens
it was merged from. Every byte and every special token stays, so any text can be written.
"""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from demo import qwen3_tokenizer
from qwen3_vllm._core import prompts

# GB 2312's first level: the 3,755 Chinese characters in daily use.
COMMON_HANZI = [
    bytes((row, cell)).decode("gb2312")
    for row in range(0xB0, 0xD8)
    for cell in range(0xA1, 0xFF)
    if (row, cell) <= (0xD7, 0xF9)
]
Described = dict[str, Any]


def choose(texts: Iterable[tuple[str, str]], size: int) -> set[str]:
    """Choose the entries of a vocabulary of `size`, special tokens not counted.

    Args:
        texts: (group, text) pairs of the training data. Every group has the same weight.
        size: How many entries to keep: bytes, the prompts' words, common characters, then what is frequent.
    """
    full = qwen3_tokenizer.build()
    parents = _parents(json.loads(full.to_str()))
    words = {entry: entry for entry in full.get_vocab(with_added_tokens=False)}
    kept = {entry for entry in words if len(entry) == 1}
    counts: dict[str, Counter[str]] = {}
    batches: dict[str, list[str]] = {}
    for group, text in texts:
        batches.setdefault(group, []).append(text)
    for group, batch in batches.items():
        counter = counts.setdefault(group, Counter())
        for encoding in full.encode_batch(batch, add_special_tokens=False):
            counter.update(encoding.tokens)
    required = [prompts.RERANK_PREFIX, prompts.RERANK_SUFFIX, prompts.DEFAULT_INSTRUCTION, "yes no Yes No"]
    required += [prompts.rerank_prompt("q", "d", "i"), prompts.embedding_query("q", "i"), "yes", "no"]
    for text in [*required, *COMMON_HANZI]:
        for token in full.encode(text, add_special_tokens=False).tokens:
            _keep(token, kept, parents)
    weighted: Counter[str] = Counter()
    for counter in counts.values():
        total = counter.total()
        weighted.update({token: count * 1_000_000 // total for token, count in counter.items()})
    for token, _ in weighted.most_common():
        if len(kept) >= size:
            break
        if token in words:
            _keep(token, kept, parents)
    return kept


def write(folder: Path, kept: set[str], *, appends_end_token: bool) -> Tokenizer:
    """Write tokenizer.json and tokenizer_config.json with the entries kept, and return the tokenizer."""
    qwen3_tokenizer.write(folder, appends_end_token=appends_end_token)
    path = folder / "tokenizer.json"
    described: Described = json.loads(path.read_text(encoding="utf-8"))
    old = described["model"]["vocab"]
    entries = sorted(kept, key=lambda entry: old[entry])
    described["model"]["vocab"] = {entry: place for place, entry in enumerate(entries)}
    described["model"]["merges"] = [
        pair for pair in described["model"]["merges"] if {*pair, "".join(pair)} <= kept
    ]
    for place, token in enumerate(described["added_tokens"], start=len(entries)):
        token["id"] = place
    ids = {token["content"]: token["id"] for token in described["added_tokens"]}
    for processor in described["post_processor"].get("processors", []):
        for name, token in processor.get("special_tokens", {}).items():
            token["ids"] = [ids[name]]
    path.write_text(json.dumps(described, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")

    config_path = folder / "tokenizer_config.json"
    config = json.loads(config_path.read_text(encoding="utf-8"))
    added = {token["content"]: token for token in config["added_tokens_decoder"].values()}
    config["added_tokens_decoder"] = {str(ids[name]): token for name, token in added.items()}
    config_path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    tokenizer = Tokenizer.from_file(str(path))
    _check(tokenizer)
    return tokenizer


def _parents(described: Described) -> dict[str, tuple[str, str]]:
    return {"".join(pair): (pair[0], pair[1]) for pair in described["model"]["merges"]}


def _keep(token: str, kept: set[str], parents: dict[str, tuple[str, str]]) -> None:
    if token not in kept and token in parents:
        kept.add(token)
        for parent in parents[token]:
            _keep(parent, kept, parents)


def _check(tokenizer: Tokenizer) -> None:
    """Raise ValueError when the tokenizer cannot write a text back, or splits what must be one token."""
    for text in ("naïve café, 東京 北京 🙂\r\n\tx  y", *prompts.CONTROL_TOKENS, prompts.RERANK_PREFIX):
        if (
            tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids, skip_special_tokens=False)
            != text
        ):
            raise ValueError(f"the pruned tokenizer cannot write {text!r} back")
    for token in ("yes", "no", *prompts.CONTROL_TOKENS):
        if len(tokenizer.encode(token, add_special_tokens=False).ids) != 1:
            raise ValueError(f"the pruned tokenizer splits {token!r}")
