"""A few pairs whose scores tell what a server does with a pair, asked by whatever route it has."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from qwen3_vllm import errors
from qwen3_vllm._core import prompts
from qwen3_vllm._core.discovery.capabilities import try_all, try_forms
from qwen3_vllm._core.http.flow import Flow
from qwen3_vllm._core.vllm_api.calls import Call
from qwen3_vllm._core.vllm_api.error_bodies import may_lack
from qwen3_vllm._core.vllm_api.scores import PairRoute, Scores, classify, score_by

Answer: TypeAlias = Scores | errors.Qwen3VLLMError

QUERY = "What is the capital of China?"
# Some that answer, some that do not, and one that shows a template that trims or escapes.
DOCUMENTS = (
    "The capital of China is Beijing.",
    "香蕉是一种黄色的水果。",
    "Shanghai is the largest city of China, but not its capital.",
    "def area(r): return 3.14159 * r ** 2",
    "北京是一座有三千多年历史的古都。",
    '  Gravity is a force & "pulls" <b>two</b> bodies.\n',
)
ANSWERS = (0,)  # documents that certainly answer the query
UNRELATED = (1, 3, 5)
INSTRUCTION = "Judge whether the document names a fruit"
FINISHED = [prompts.rerank_prompt(QUERY, document, prompts.DEFAULT_INSTRUCTION) for document in DOCUMENTS]
FINISHED_INSTRUCTED = [prompts.rerank_prompt(QUERY, document, INSTRUCTION) for document in DOCUMENTS]


@dataclass(frozen=True, slots=True)
class Samples:
    """What a server answers to the sample pairs.

    Attributes:
        route: Where it scores pairs; None where it takes finished prompts only.
        instructs: Whether a request may have the field `instruction`, heeded or not.
        pair: Of one raw pair of two letters.
        raw: As pairs, without an instruction.
        instructed: As pairs, with an instruction.
        split: As the two halves of the finished prompt.
        finished: As finished prompts, by /classify; None where the server has no /classify.
        finished_instructed: Likewise, with the instruction.
    """

    route: PairRoute | None
    instructs: bool
    pair: Scores
    raw: Scores
    instructed: Scores
    split: Scores
    finished: Scores | None
    finished_instructed: Scores | None


def letters(model: str, route: PairRoute | None, instructs: bool) -> Call[Scores]:
    """Score one small pair, with an instruction where that may be sent: its score tells set-ups apart."""
    if route is None:
        return classify(model, [prompts.rerank_prompt("a", "b", INSTRUCTION)])
    return score_by(route, model, "a", ["b"], instruction=INSTRUCTION if instructs else None)


def ask_samples(model: str) -> Flow[Samples]:
    """Score the sample pairs in every way there is.

    Raises:
        Qwen3VLLMError: None of the ways works; what the simplest of them ended in.
    """
    pair, *answers = yield from try_all(
        letters(model, "score", True),
        *_pair_calls(model, "score", True, DOCUMENTS),
        *_finished_calls(model, range(len(DOCUMENTS))),
    )
    route: PairRoute | None = "score"
    instructs = True
    of_pairs, of_prompts = answers[:3], answers[3:]
    if isinstance(pair, errors.Qwen3VLLMError):
        try:
            form, pair = yield from try_forms(
                {form: letters(model, *how) for form, how in _SIMPLER.items()}, tried={"/v1/score": pair}
            )
        except errors.Qwen3VLLMError as error:
            if not may_lack(error):
                raise
            if isinstance(of_prompts[0], errors.Qwen3VLLMError):
                of_prompts = yield from _finished_one_by_one(model)
            if isinstance(of_prompts[0], errors.Qwen3VLLMError):
                raise
            route, pair = None, of_prompts[0]
            of_pairs = [pair] * 3
        else:
            route, instructs = _SIMPLER[form]
            of_pairs = yield from try_all(*_pair_calls(model, route, instructs, DOCUMENTS))
    together = of_pairs
    if any(isinstance(answer, errors.Qwen3VLLMError) for answer in of_pairs) and route is not None:
        by_document = [_pair_calls(model, route, instructs, [document]) for document in DOCUMENTS]
        of_pairs = yield from _one_by_one(by_document)
    if isinstance(of_prompts[0], errors.Qwen3VLLMError) and _may_be_too_many(together, of_pairs):
        of_prompts = yield from _finished_one_by_one(model)
    raw, instructed, split = map(_raised, of_pairs)
    finished, finished_instructed = (
        None if isinstance(each, errors.Qwen3VLLMError) else each for each in of_prompts
    )
    if finished is None or finished_instructed is None:
        finished = finished_instructed = None
    return Samples(route, instructs, _raised(pair), raw, instructed, split, finished, finished_instructed)


def ask_in_parts(model: str, seen: Samples, query: str, documents: Sequence[str]) -> Flow[Scores]:
    """Score one query with as many documents as there are samples, as they were scored."""
    assert seen.route is not None
    (answer,) = yield from try_all(score_by(seen.route, model, query, documents))
    if isinstance(answer, errors.Qwen3VLLMError):
        (answer,) = yield from _one_by_one([[score_by(seen.route, model, query, [d])] for d in documents])
    return _raised(answer)


_SIMPLER: dict[str, tuple[PairRoute, bool]] = {
    "/v1/score without an instruction": ("score", False),
    "/v1/rerank": ("rerank", True),
    "/v1/rerank without an instruction": ("rerank", False),
}


def _pair_calls(
    model: str, route: PairRoute, instructs: bool, documents: Sequence[str]
) -> list[Call[Scores]]:
    """Raw pairs, raw pairs with an instruction, and halves of finished prompts."""
    head = prompts.rerank_head(QUERY, prompts.DEFAULT_INSTRUCTION)
    return [
        score_by(route, model, QUERY, documents),
        score_by(route, model, QUERY, documents, instruction=INSTRUCTION if instructs else None),
        score_by(route, model, head, [prompts.rerank_tail(document) for document in documents]),
    ]


def _finished_calls(model: str, indexes: Sequence[int]) -> list[Call[Scores]]:
    return [classify(model, [all_of[i] for i in indexes]) for all_of in (FINISHED, FINISHED_INSTRUCTED)]


def _may_be_too_many(at_once: Sequence[Answer], alone: Sequence[Answer]) -> bool:
    """Whether pairs were refused together that were scored one by one."""
    refused = any(isinstance(answer, errors.Qwen3VLLMError) for answer in at_once)
    return refused and not any(isinstance(answer, errors.Qwen3VLLMError) for answer in alone)


def _one_by_one(by_document: Sequence[Sequence[Call[Scores]]]) -> Flow[list[Answer]]:
    """Ask of each document alone, as a server may take few at once; gives what asking of all gives."""
    ways = len(by_document[0])
    answers = yield from try_all(*(call for calls in by_document for call in calls))
    return [_joined(answers[way::ways]) for way in range(ways)]


def _finished_one_by_one(model: str) -> Flow[list[Answer]]:
    return _one_by_one([_finished_calls(model, [index]) for index in range(len(DOCUMENTS))])


def _joined(answers: Sequence[Answer]) -> Answer:
    scores: list[Scores] = []
    for answer in answers:
        if isinstance(answer, errors.Qwen3VLLMError):
            return answer
        scores.append(answer)
    counts = [each.prompt_tokens for each in scores]
    tokens = sum(count or 0 for count in counts) if all(counts) else None
    return Scores(np.concatenate([each.values for each in scores]), tokens)


def _raised(answer: Answer) -> Scores:
    if isinstance(answer, errors.Qwen3VLLMError):
        raise answer
    return answer
