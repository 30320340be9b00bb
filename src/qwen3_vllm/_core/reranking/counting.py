"""Who counts tokens: the server, or a tokenizer on this machine where the server does not."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from qwen3_vllm import errors
from qwen3_vllm._core.discovery.capabilities import try_one
from qwen3_vllm._core.http.flow import Flow, send
from qwen3_vllm._core.reranking.server import RerankServer
from qwen3_vllm._core.vllm_api.calls import TokenIds, detokenize, tokenize

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Tokens = TokenIds | errors.Qwen3VLLMError


class Counter:
    """Turns texts into token ids and back, without tokens of its own."""

    def __init__(self, server: RerankServer, local: "Tokenizer | None") -> None:
        self._server, self._local = server, local

    def encode(self, texts: Iterable[str]) -> Flow[list[Tokens]]:
        if self._local is None:
            return (
                yield from send(*(tokenize(self._server.model, t, add_special_tokens=False) for t in texts))
            )
        encoded = self._local.encode_batch(list(texts), add_special_tokens=False)
        return [list(each.ids) for each in encoded]

    def decode(self, all_tokens: Iterable[TokenIds]) -> Flow[Sequence[str | errors.Qwen3VLLMError]]:
        if self._local is None:
            return (yield from send(*(detokenize(self._server.model, tokens) for tokens in all_tokens)))
        return [self._local.decode(tokens, skip_special_tokens=False) for tokens in all_tokens]


def ask_counter(server: RerankServer, tokenizer: str | None) -> Flow[Counter | None]:
    """Find somebody who counts; None where nobody does."""
    if (yield from server.counts.get(lambda: _ask_counts(server.model))):
        return Counter(server, None)
    return Counter(server, _load(tokenizer)) if tokenizer else None


def _ask_counts(model: str) -> Flow[bool]:
    answer = yield from try_one(tokenize(model, "a", add_special_tokens=False))
    return not isinstance(answer, errors.Qwen3VLLMError)


@lru_cache(maxsize=4)
def _load(path: str) -> "Tokenizer":
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise errors.ConfigurationError(
            "tokenizer needs the package tokenizers: pip install 'qwen3-vllm[tokenizers]'"
        ) from error
    file = Path(path) / "tokenizer.json" if Path(path).is_dir() else Path(path)
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise errors.ConfigurationError(f"tokenizer: {str(file)!r} cannot be read ({error})") from None
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # noqa: BLE001  tokenizers raises nothing more special
        raise errors.ConfigurationError(
            f"tokenizer: {str(file)!r} is not a tokenizer.json ({error})"
        ) from None
