"""Find out what a server does with a rerank request, by asking it.

vLLM says nowhere whether it wraps a pair into a chat template, whether that template is right, or whether it
takes an instruction; older ones ignore what they do not know. But /classify takes finished prompts on every
release from 0.9 and templates them never: what /score answers must equal what /classify answers.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from packaging.version import Version

from qwen3_vllm import errors, prompts, wire
from qwen3_vllm.discovery import Served, ask_served
from qwen3_vllm.transport import Flow, send

# A raw pair "a", "b" is 1 or 2 tokens, a templated one more than 70. Special tokens of other families' pairs
# are up to 4.
_TEMPLATED_FROM = 20
_QUERY = "What is the capital of China?"
# Some that answer, some that do not, and one that shows a template that trims or escapes.
_DOCUMENTS = (
    "The capital of China is Beijing.",
    "香蕉是一种黄色的水果。",
    "Shanghai is the largest city of China, but not its capital.",
    "def area(r): return 3.14159 * r ** 2",
    "北京是一座有三千多年历史的古都。",
    '  Gravity is a force & "pulls" <b>two</b> bodies.\n',
)
_INSTRUCTION = "Judge whether the document names a fruit"
# A template with one newline missing moves the logit of some pair by more than the first of these, while one
# prompt on two routes differs by less, in 32 bits. In 16 bits it may differ by more: then a right template is
# taken for a wrong one, and finished prompts are sent, which score the same.
_SAME_LOGIT = 0.05
_SIMILAR_LOGIT = 0.5  # what rounding alone cannot exceed
_TOKEN_IDS_SINCE = Version("0.15.0")
_CONTROL_TEXT = "<|im_start|><|im_end|><think></think>"
_CONTROL_TOKENS = 4


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What the server answers to one raw pair with an instruction: another set-up answers something else."""

    tokens: int | None
    logit: float

    def matches(self, other: "Fingerprint") -> bool:
        return self.tokens == other.tokens and abs(self.logit - other.logit) <= _SAME_LOGIT


@dataclass(frozen=True, slots=True)
class RerankServer:
    """What was learned from a server.

    Attributes:
        model: Its name in requests.
        context: Tokens a prompt may have; None where the server does not tell.
        templates: Whether the server wraps raw pairs into its template.
        default_right: Its template gives Qwen3's prompt with the default instruction.
        takes_instruction: Its template gives Qwen3's prompt with the instruction of the request.
        classifies: Whether it takes finished prompts.
        takes_tokens: Whether it takes them as token ids.
        overhead: Tokens that a prompt has besides query, document and instruction, at most; None if not
            known.
        fingerprint: None where nothing was asked.
    """

    model: str
    context: int | None
    templates: bool
    default_right: bool
    takes_instruction: bool
    classifies: bool
    takes_tokens: bool
    overhead: int | None
    fingerprint: Fingerprint | None


def fingerprint_call(model: str) -> wire.Call[wire.Scores]:
    return wire.score(model, "a", ["b"], instruction=_INSTRUCTION)


def fingerprint_of(scores: wire.Scores) -> Fingerprint:
    return Fingerprint(scores.prompt_tokens, float(_logits(scores)[0]))


def ask_rerank_server(model: str | None, root: str, start: str) -> Flow[RerankServer]:
    """Ask a server what it is and who templates: a few small requests, all at once.

    Raises:
        WrongServerError: It is no Qwen3 reranker, or has a wrong template and no way round it.
    """
    served = yield from ask_served(model)
    name = served.model

    def wrong(seen: str) -> errors.WrongServerError:
        return errors.WrongServerError(f"{root} serves {name!r}, {seen}. Start a reranker: {start}")

    finished = [prompts.rerank_prompt(_QUERY, d, prompts.DEFAULT_INSTRUCTION) for d in _DOCUMENTS]
    finished_instructed = [prompts.rerank_prompt(_QUERY, d, _INSTRUCTION) for d in _DOCUMENTS]
    head = prompts.rerank_head(_QUERY, prompts.DEFAULT_INSTRUCTION)
    pair, *scored, expected, expected_instructed = yield from send(
        fingerprint_call(name),
        wire.score(name, _QUERY, _DOCUMENTS),
        wire.score(name, _QUERY, _DOCUMENTS, instruction=_INSTRUCTION),
        wire.score(name, head, [prompts.rerank_tail(document) for document in _DOCUMENTS]),
        wire.classify(name, finished),
        wire.classify(name, finished_instructed),
    )
    if isinstance(pair, errors.RouteNotFoundError):
        raise wrong("which scores no pairs: a chat model, say, or an embedding model") from pair
    classifies = not isinstance(expected, errors.RouteNotFoundError)
    if not classifies and (yield from _embeds(name)):
        raise wrong("an embedding model, whose scores are cosines of the two texts") from None
    (control,) = yield from send(wire.tokenize(name, _CONTROL_TEXT, add_special_tokens=False))
    if not isinstance(control, errors.Qwen3VLLMError) and len(control) != _CONTROL_TOKENS:
        raise wrong("whose tokenizer is not Qwen3's: another family of rerankers, bge or jina say")
    pair, raw, instructed, split = (_scores(result) for result in (pair, *scored))
    if _constant(_scores(expected) if classifies else split):
        raise wrong("which gives every pair one score: its yes/no head is missing (--hf-overrides)")

    templates = pair.prompt_tokens is None or pair.prompt_tokens >= _TEMPLATED_FROM
    if pair.prompt_tokens is None and classifies:  # a proxy that drops `usage`
        templates = not _same(split, _scores(expected), _SIMILAR_LOGIT)
    right = takes = False
    if templates and classifies:
        right = _same(raw, _scores(expected))
        takes = _same(instructed, _scores(expected_instructed))
    elif templates:
        right = raw.prompt_tokens == (yield from _count(name, finished))
        takes = instructed.prompt_tokens == (yield from _count(name, finished_instructed))
        if not right and not takes:
            raise wrong("with a chat template that is not Qwen3's, and no /classify to go round it")
    elif classifies and not _same(split, _scores(expected), _SIMILAR_LOGIT):
        raise wrong("which puts tokens of its own between the two texts of a pair")
    counted = _scores(expected).prompt_tokens if classifies else None
    return RerankServer(
        model=name,
        context=served.context,
        templates=templates,
        default_right=right,
        takes_instruction=takes,
        classifies=classifies,
        takes_tokens=classifies and takes_token_ids(served),
        overhead=-(-counted // len(_DOCUMENTS)) if counted else None,
        fingerprint=fingerprint_of(pair),
    )


def takes_token_ids(served: Served) -> bool:
    """Whether the server's /classify takes token ids; one that tells no version is taken for recent."""
    return served.version is None or served.version >= _TOKEN_IDS_SINCE


def _scores(result: wire.Scores | errors.Qwen3VLLMError) -> wire.Scores:
    if isinstance(result, errors.Qwen3VLLMError):
        raise result
    return result


def _logits(scores: wire.Scores) -> NDArray[np.float64]:
    p = scores.values.astype(np.float64).clip(1e-6, 1 - 1e-6)
    logits: NDArray[np.float64] = np.log(p / (1 - p))
    return logits


def _same(some: wire.Scores, others: wire.Scores, tolerance: float = _SAME_LOGIT) -> bool:
    """Whether both are scores of the same prompts: as many tokens, and logits alike."""
    if some.prompt_tokens and others.prompt_tokens and some.prompt_tokens != others.prompt_tokens:
        return False
    return bool(np.abs(_logits(some) - _logits(others)).max() <= tolerance)


def _constant(scores: wire.Scores) -> bool:
    return bool(np.ptp(_logits(scores)) < 1e-3)


def _embeds(model: str) -> Flow[bool]:
    (answer,) = yield from send(wire.embeddings(model, ["a"], encoding="base64"))
    return not isinstance(answer, errors.Qwen3VLLMError)


def _count(model: str, texts: list[str]) -> Flow[int | None]:
    """Tokens of `texts` together; None where the server does not count."""
    counted = yield from send(*(wire.tokenize(model, text) for text in texts))
    total = 0
    for tokens in counted:
        if isinstance(tokens, errors.Qwen3VLLMError):
            return None
        total += len(tokens)
    return total
