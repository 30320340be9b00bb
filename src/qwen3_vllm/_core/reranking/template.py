"""Whether a server puts pairs into a chat template, and whether that gives Qwen3's prompt."""

from collections.abc import Sequence
from dataclasses import dataclass

from qwen3_vllm import errors
from qwen3_vllm._core import prompts
from qwen3_vllm._core.discovery.capabilities import try_all
from qwen3_vllm._core.http.flow import Flow
from qwen3_vllm._core.reranking.logits import SIMILAR_LOGIT, same
from qwen3_vllm._core.reranking.samples import (
    ANSWERS,
    DOCUMENTS,
    FINISHED,
    FINISHED_INSTRUCTED,
    INSTRUCTION,
    QUERY,
    UNRELATED,
    Samples,
    ask_in_parts,
)
from qwen3_vllm._core.settings import Template
from qwen3_vllm._core.vllm_api.calls import tokenize, tokenize_pair
from qwen3_vllm._core.vllm_api.scores import Scores

# A raw pair "a", "b" is 1 or 2 tokens, a templated one more than 70. Special tokens of other families' pairs
# are up to 4.
_TEMPLATED_FROM = 20


@dataclass(frozen=True, slots=True)
class ServerTemplate:
    """What a server does with a raw pair.

    Attributes:
        applied: It puts the pair into a template; None where that cannot be found out.
        default_right: That gives Qwen3's prompt with the default instruction. None: it cannot be checked.
        takes_instruction: It gives Qwen3's prompt with the instruction of the request. None likewise.
    """

    applied: bool | None
    default_right: bool | None = False
    takes_instruction: bool | None = False

    @property
    def fits(self) -> bool:
        return self.default_right is not False or self.takes_instruction is not False


def ask_template(model: str, seen: Samples, said: Template) -> Flow[ServerTemplate]:
    """Find out who applies the template, and whether that one is right.

    Tokens decide who does, where they are reported; else whether it matters where a prompt is split, and
    scores of pairs that anybody can tell. `said`: what the user says of the server.
    """
    if seen.route is None:
        return ServerTemplate(False)
    tokens = seen.pair.prompt_tokens
    applied: bool | None = tokens is not None and tokens >= _TEMPLATED_FROM
    # A proxy may drop `usage`, and /v1/rerank of a gateway may count in its own way.
    if not applied and (tokens is None or seen.route == "rerank"):
        applied = yield from _tells_texts_apart(model, seen)
    if not applied:
        return ServerTemplate(False)
    right: bool | None
    takes: bool | None
    if seen.finished is not None and seen.finished_instructed is not None:
        right = same(seen.raw, seen.finished)
        takes = same(seen.instructed, seen.finished_instructed)
        if said == "server" and not (right or takes):
            # Before it is called wrong: in 16 bits the same prompt may differ so much, but not its tokens.
            renders = yield from _renders(model, prompts.DEFAULT_INSTRUCTION, FINISHED, seen.raw)
            right = renders is not False and same(seen.raw, seen.finished, SIMILAR_LOGIT)
    else:
        right = yield from _renders(model, prompts.DEFAULT_INSTRUCTION, FINISHED, seen.raw)
        takes = yield from _renders(model, INSTRUCTION, FINISHED_INSTRUCTED, seen.instructed)
        # A template that ignores the instruction gives both times the same.
        takes = False if same(seen.raw, seen.instructed, SIMILAR_LOGIT) else takes
        reported = tokens is not None and tokens >= _TEMPLATED_FROM
        if right is None and not reported and said == "auto" and not _is_obvious(seen.raw):
            return ServerTemplate(False if _is_obvious(seen.split) else None)
    return ServerTemplate(True, right, takes)


def _is_obvious(scores: Scores) -> bool:
    """Whether a document that answers the query scores "yes", and unrelated ones score "no"."""
    return bool(scores.values[list(ANSWERS)].min() > 0.5 > scores.values[list(UNRELATED)].max())


def _tells_texts_apart(model: str, seen: Samples) -> Flow[bool]:
    """Whether it matters where a prompt is split: to a server that only joins the two texts it does not."""
    start = FINISHED[0][: len(prompts.RERANK_PREFIX) // 2]
    elsewhere = yield from ask_in_parts(model, seen, start, [p.removeprefix(start) for p in FINISHED])
    return not same(seen.split, elsewhere, SIMILAR_LOGIT)


def _renders(model: str, instruction: str, finished: Sequence[str], scored: Scores) -> Flow[bool | None]:
    """Whether the server's template gives the finished prompts, token by token, where it can be asked.

    Returns:
        By the number of tokens alone where the server renders no messages; None where it counts none.
    """
    calls = [tokenize(model, prompt) for prompt in finished]
    calls += [tokenize_pair(model, QUERY, document, instruction) for document in DOCUMENTS]
    answers = yield from try_all(*calls)
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
