"""What a client knows of a reranking server."""

from dataclasses import dataclass, field

from qwen3_vllm._core.http.asked_once import AskedOnce
from qwen3_vllm._core.reranking.logits import SAME_LOGIT
from qwen3_vllm._core.vllm_api.scores import PairRoute


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What the server answers to one raw pair with an instruction: another set-up answers something else."""

    tokens: int | None
    logit: float

    def matches(self, other: "Fingerprint") -> bool:
        return self.tokens == other.tokens and abs(self.logit - other.logit) <= SAME_LOGIT


@dataclass(frozen=True, slots=True)
class Lengths:
    """What matters for long texts only, asked when the first one comes.

    Attributes:
        limit: Tokens a prompt may have.
        takes_tokens: Whether the server takes finished prompts as token ids.
    """

    limit: int
    takes_tokens: bool


@dataclass(frozen=True, slots=True)
class RerankServer:
    """What was learned from a server.

    Attributes:
        model: Its name in requests.
        context: Its context length in tokens; None where the server does not report it.
        route: Where it scores pairs; None where it takes finished prompts only.
        instructs: Whether a request may have the field `instruction`.
        templates: Whether the server puts raw pairs into its template.
        template_checked: Whether that could be compared with Qwen3's prompt.
        default_right: Its template gives Qwen3's prompt with the default instruction.
        takes_instruction: Its template gives Qwen3's prompt with the instruction of the request.
        classifies: Whether it takes finished prompts.
        overhead: Tokens that a prompt has besides query, document and instruction, at most; None if not
            known.
        fingerprint: What it answers to one raw pair.
        lengths: How long a prompt may be, and in which form a cut one goes out.
        counts: Whether it has /tokenize.
        most_texts: Documents that a request may have.
    """

    model: str
    context: int | None
    route: PairRoute | None
    instructs: bool
    templates: bool
    template_checked: bool
    default_right: bool
    takes_instruction: bool
    classifies: bool
    overhead: int | None
    fingerprint: Fingerprint
    lengths: AskedOnce[Lengths] = field(default_factory=AskedOnce, compare=False)
    counts: AskedOnce[bool] = field(default_factory=AskedOnce, compare=False)
    most_texts: AskedOnce[int] = field(default_factory=AskedOnce, compare=False)
