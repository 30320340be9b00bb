"""Find out what a server does with a rerank request, by asking it.

vLLM reports nowhere whether it puts a pair into a chat template, whether that template is right, or whether
it takes an instruction; older releases ignore what they do not know. But /classify takes finished prompts on
every release from 0.9 and never applies a template to them: what /score answers must equal what it answers.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qwen3_vllm import errors
from qwen3_vllm._core import prompts
from qwen3_vllm._core.discovery import NO_ANSWER, ask_limit, ask_served, overlong
from qwen3_vllm._core.http.asked_once import AskedOnce
from qwen3_vllm._core.http.flow import Flow, send
from qwen3_vllm._core.settings import Template
from qwen3_vllm._core.vllm_api.calls import Call, tokenize, tokenize_pair
from qwen3_vllm._core.vllm_api.embeddings import embed
from qwen3_vllm._core.vllm_api.scores import Scores, classify, score

logger = logging.getLogger(__name__)

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
        templates: Whether the server puts raw pairs into its template.
        default_right: Its template gives Qwen3's prompt with the default instruction.
        takes_instruction: Its template gives Qwen3's prompt with the instruction of the request.
        classifies: Whether it takes finished prompts.
        overhead: Tokens that a prompt has besides query, document and instruction, at most; None if not
            known.
        fingerprint: What it answers to one raw pair.
        lengths: How long a prompt may be, and in which form a cut one goes out.
    """

    model: str
    context: int | None
    templates: bool
    default_right: bool
    takes_instruction: bool
    classifies: bool
    overhead: int | None
    fingerprint: Fingerprint
    lengths: AskedOnce[Lengths] = field(default_factory=AskedOnce, compare=False)


def fingerprint_call(model: str) -> Call[Scores]:
    return score(model, "a", ["b"], instruction=_INSTRUCTION)


def fingerprint_of(scores: Scores) -> Fingerprint:
    return Fingerprint(scores.prompt_tokens, float(_logits(scores)[0]))


def ask_rerank_server(
    model: str | None, root: str, start: str, template: Template = "auto"
) -> Flow[RerankServer]:
    """Ask a server what it is and who applies the template: a few small requests, all at once.

    Args:
        template: What the user says of the server, which is checked.

    Raises:
        WrongServerError: It is not a Qwen3 reranker, or has a wrong template and no way to work around it.
        ConfigurationError: The server contradicts `template`.
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
        score(name, _QUERY, _DOCUMENTS),
        score(name, _QUERY, _DOCUMENTS, instruction=_INSTRUCTION),
        score(name, head, [prompts.rerank_tail(document) for document in _DOCUMENTS]),
        classify(name, finished),
        classify(name, finished_instructed),
    )
    if isinstance(pair, errors.RouteNotFoundError):
        raise wrong("which scores no pairs: a chat model, say, or an embedding model") from pair
    classifies = not isinstance(expected, errors.RouteNotFoundError)
    if not classifies and (yield from _embeds(name)):
        raise wrong("an embedding model, whose scores are cosines of the two texts") from None
    (control,) = yield from send(tokenize(name, _CONTROL_TEXT, add_special_tokens=False))
    if not isinstance(control, errors.Qwen3VLLMError) and len(control) != _CONTROL_TOKENS:
        raise wrong("whose tokenizer is not Qwen3's: another family of rerankers, bge or jina say")
    pair, raw, instructed, split = (_scores(result) for result in (pair, *scored))
    if _constant(_scores(expected) if classifies else split):
        raise wrong("which gives every pair one score: its yes/no head is missing (--hf-overrides)")

    if pair.prompt_tokens is not None:
        templates = pair.prompt_tokens >= _TEMPLATED_FROM
    else:  # a proxy that drops `usage`
        templates = yield from _tells_texts_apart(name, finished, split)
    right: bool | None = False
    takes: bool | None = False
    if templates and classifies:
        right = _same(raw, _scores(expected))
        takes = _same(instructed, _scores(expected_instructed))
        if template == "server" and not (right or takes):
            # Before it is called wrong: in 16 bits the same prompt may differ so much, but not its tokens.
            renders = yield from _renders(name, prompts.DEFAULT_INSTRUCTION, finished, raw)
            right = renders is not False and _same(raw, _scores(expected), _SIMILAR_LOGIT)
    elif templates:
        right = yield from _renders(name, prompts.DEFAULT_INSTRUCTION, finished, raw)
        takes = yield from _renders(name, _INSTRUCTION, finished_instructed, instructed)
        # A template that ignores the instruction gives both times the same.
        takes = False if _same(raw, instructed, _SIMILAR_LOGIT) else takes
    elif classifies and template != "client" and not _same(split, _scores(expected), _SIMILAR_LOGIT):
        raise wrong("which puts tokens of its own between the two texts of a pair")
    _check(template, templates, right is not False or takes is not False, classifies, root, start)
    if templates and right is None:
        if template != "server":
            raise wrong(
                "with a chat template that cannot be checked: there is neither /classify nor /tokenize. If "
                'it is known to give Qwen3\'s prompt, pass template="server"'
            )
        logger.warning(
            'template="server" is taken on trust: %s has neither /classify nor /tokenize to check it with',
            root,
        )
    counted = _scores(expected).prompt_tokens if classifies else None
    return RerankServer(
        model=name,
        context=served.context,
        templates=templates,
        default_right=right is not False,
        takes_instruction=takes is not False,
        classifies=classifies,
        overhead=-(-counted // len(_DOCUMENTS)) if counted else None,
        fingerprint=fingerprint_of(pair),
    )


def _check(template: Template, templates: bool, fits: bool, classifies: bool, root: str, start: str) -> None:
    """Raise unless a server whose template `fits` Qwen3's prompt, or not, is what the user says it is."""
    said = f'template="{template}", but {root}'
    if template == "server" and not templates:
        raise errors.ConfigurationError(
            f'{said} applies no chat template: pass template="auto", or start the server with one: {start}'
        )
    if template == "server" and not fits and classifies:
        raise errors.ConfigurationError(
            f'{said} applies a chat template that does not give Qwen3\'s prompt: pass template="auto", which '
            f"works around it, or start the server with the right one: {start}"
        )
    if template == "client" and templates and not classifies:
        raise errors.ConfigurationError(
            f"{said} applies a chat template of its own, and has no /classify, which would take finished "
            'prompts: pass template="auto", or start the server without --chat-template'
        )
    if templates and not fits and not classifies:
        raise errors.WrongServerError(
            f"{root} applies a chat template that does not give Qwen3's prompt, and has no /classify to work "
            f"around it. Start a reranker: {start}"
        )


def ask_lengths(server: RerankServer, context: int) -> Flow[Lengths]:
    """Ask how long a prompt may be, and whether one may come as token ids (vLLM 0.15 and newer)."""
    limit = yield from ask_limit(context, score(server.model, "a", [" a" * overlong(context)]))
    return Lengths(limit, server.classifies and (yield from _takes_tokens(server.model)))


def _takes_tokens(model: str) -> Flow[bool]:
    prompt = prompts.rerank_prompt(_QUERY, _DOCUMENTS[0], prompts.DEFAULT_INSTRUCTION)
    (tokens,) = yield from send(tokenize(model, prompt, add_special_tokens=False))
    if isinstance(tokens, errors.Qwen3VLLMError):
        return False
    as_text, as_tokens = yield from send(classify(model, [prompt]), classify(model, [tokens]))
    if isinstance(as_tokens, NO_ANSWER):
        raise as_tokens
    if isinstance(as_tokens, errors.Qwen3VLLMError):
        return False
    return _same(_scores(as_text), as_tokens, _SIMILAR_LOGIT)


def _scores(result: Scores | errors.Qwen3VLLMError) -> Scores:
    if isinstance(result, errors.Qwen3VLLMError):
        raise result
    return result


def _logits(scores: Scores) -> NDArray[np.float64]:
    p = scores.values.astype(np.float64).clip(1e-6, 1 - 1e-6)
    logits: NDArray[np.float64] = np.log(p / (1 - p))
    return logits


def _same(some: Scores, others: Scores, tolerance: float = _SAME_LOGIT) -> bool:
    """Whether both are scores of the same prompts: as many tokens, and logits alike."""
    if some.prompt_tokens and others.prompt_tokens and some.prompt_tokens != others.prompt_tokens:
        return False
    return bool(np.abs(_logits(some) - _logits(others)).max() <= tolerance)


def _constant(scores: Scores) -> bool:
    return bool(np.ptp(_logits(scores)) < 1e-3)


def _embeds(model: str) -> Flow[bool]:
    (answer,) = yield from send(embed(model, ["a"], encoding="base64"))
    if isinstance(answer, NO_ANSWER):
        raise answer
    return not isinstance(answer, errors.Qwen3VLLMError)


def _tells_texts_apart(model: str, finished: Sequence[str], split: Scores) -> Flow[bool]:
    """Whether it matters where a prompt is split: to a server that only joins the two texts it does not."""
    start = finished[0][: len(prompts.RERANK_PREFIX) // 2]
    (elsewhere,) = yield from send(score(model, start, [p.removeprefix(start) for p in finished]))
    return not _same(split, _scores(elsewhere), _SIMILAR_LOGIT)


def _renders(model: str, instruction: str, finished: Sequence[str], scored: Scores) -> Flow[bool | None]:
    """Whether the server's template gives the finished prompts, token by token, where it can be asked.

    Returns:
        By the number of tokens alone where the server renders no messages; None where it counts none.
    """
    calls = [tokenize(model, prompt) for prompt in finished]
    calls += [tokenize_pair(model, _QUERY, document, instruction) for document in _DOCUMENTS]
    answers = yield from send(*calls)
    for answer in answers:
        if isinstance(answer, NO_ANSWER):
            raise answer
    expected, rendered = answers[: len(finished)], answers[len(finished) :]
    tokens = 0
    for ids in expected:
        if isinstance(ids, errors.Qwen3VLLMError):
            return None
        tokens += len(ids)
    if scored.prompt_tokens is not None and scored.prompt_tokens != tokens:
        return False
    if any(isinstance(ids, errors.Qwen3VLLMError) for ids in rendered):
        return None if scored.prompt_tokens is None else True
    return rendered == expected
