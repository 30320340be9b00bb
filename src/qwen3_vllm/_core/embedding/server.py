"""What a client knows of an embedding server."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from qwen3_vllm._core.http.asked_once import AskedOnce
from qwen3_vllm._core.vllm_api.calls import Call, TokenIds
from qwen3_vllm._core.vllm_api.embeddings import Encoding, Vectors, WireDtype, embed


class EndTokens(NamedTuple):
    """What a tokenizer appends to a text; None where it cannot be asked."""

    tokens: TokenIds | None


@dataclass(frozen=True, slots=True)
class EmbeddingServer:
    """What was learned from a server.

    Attributes:
        model: Its name in requests.
        context: Its context length in tokens; None where the server does not report it.
        width: Dimensions of the vectors in a response.
        encoding: The leanest one that the server has.
        dtype: What its vectors travel as: `wire_dtype`, if the server has a choice.
        cuts: Whether the server cuts vectors to `dimensions` itself.
        root: The checkpoint behind `model`; None where the server does not report it.
        limit: Tokens an input may have, asked when the first long text comes.
        end: Tokens that its tokenizer appends, or None where there is no /tokenize, likewise.
        cuts_inputs: Whether it cuts inputs itself, likewise.
        most_texts: Texts that a request may have, asked when the first request of several comes.
    """

    model: str
    context: int | None
    width: int
    encoding: Encoding
    dtype: WireDtype
    cuts: bool
    root: str | None
    limit: AskedOnce[int] = field(default_factory=AskedOnce, compare=False)
    end: AskedOnce[EndTokens] = field(default_factory=AskedOnce, compare=False)
    cuts_inputs: AskedOnce[bool] = field(default_factory=AskedOnce, compare=False)
    most_texts: AskedOnce[int] = field(default_factory=AskedOnce, compare=False)

    @property
    def json_encoding(self) -> Encoding:
        """The leanest form that works in JSON."""
        return "base64" if self.encoding == "bytes_only" else self.encoding

    def question(self, inputs: Sequence[str | TokenIds], *, truncate_to: int | None = None) -> Call[Vectors]:
        """Embed inputs of this library's own, in the form that works there, to learn something else."""
        return embed(self.model, inputs, encoding=self.encoding, dtype=self.dtype, truncate_to=truncate_to)
