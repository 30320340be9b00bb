"""Examine a reranker."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qwen3_vllm import errors
from qwen3_vllm._core import prompts
from qwen3_vllm._core.official_models import official_name
from qwen3_vllm._core.reranking.client import RerankClient, server_of
from qwen3_vllm._core.reranking.flows import START
from qwen3_vllm._core.reranking.logits import logits
from qwen3_vllm._core.reranking.server import RerankServer
from qwen3_vllm._core.vllm_api.calls import ServedModel
from qwen3_vllm._core.vllm_api.scores import classify, score_by
from qwen3_vllm.doctor import samples
from qwen3_vllm.doctor.basics import control_tokens, examine_basics, examine_latency, examine_tokenizer
from qwen3_vllm.doctor.checks import Check, Examination
from qwen3_vllm.doctor.gateway import reranker_through_gateway

_OFFICIAL = official_name("reranker")
# Logits of one prompt differ by so much at most between two routes of one server.
_SAME_LOGIT = 0.35


def examine_reranker(client: RerankClient) -> list[Check]:
    """Examine the server of `client`."""
    examination = Examination("reranker", client, START)
    try:
        server: RerankServer | errors.Qwen3VLLMError = server_of(client)
    except errors.Qwen3VLLMError as error:
        server = error
    named = client.settings.model if isinstance(server, errors.Qwen3VLLMError) else server.model
    served = examine_basics(examination, named)
    if served is not None:
        _kind(examination, server)
    if served is None or isinstance(server, errors.Qwen3VLLMError):
        examination.note("the rest", "skip", "needs a Qwen3 reranker")
        return examination.checks
    reranker_through_gateway(examination, client, server)
    first = examine_tokenizer(examination, served.name)
    _template(examination, server)
    _scores(examination, client, server)
    _instruction(examination, client, server)
    _control_tokens(examination, client, server, first)
    _latency(examination, client)
    _published(examination, client, served)
    return examination.checks


def _kind(examination: Examination, server: RerankServer | errors.Qwen3VLLMError) -> None:
    with examination.checking("is a Qwen3 reranker", f"Start one: {START}") as note:
        if isinstance(server, errors.Qwen3VLLMError):
            raise server
        note("ok", "scores pairs, and each its own way")


def _template(examination: Examination, server: RerankServer) -> None:
    """Who builds the prompt, and whether rightly."""
    if not server.templates:
        seen = "none at the server; this client sends finished prompts"
        examination.note("template", "ok", seen)
    elif not server.template_checked:
        advice = "Let the gateway pass on POST /classify or /tokenize; this client uses the template as it is"
        examination.note("template", "warn", "the server's; could not check whether it is Qwen3's", advice)
    elif server.default_right and server.takes_instruction:
        examination.note("template", "ok", "the server's; correct, with the instruction of each request")
    elif server.default_right:
        advice = (
            "Nothing to do for this client, it asks /classify. For others: vLLM 0.22 or newer takes "
            "an instruction"
        )
        examination.note(
            "template", "warn", "the server's; correct, but ignores per-request instructions", advice
        )
    else:
        advice = (
            f"Restart it with `{START}`, which has the right template, or without --chat-template. This "
            "client works around it, others get wrong scores"
        )
        examination.note("template", "fail", "the server's, and its prompt is not Qwen3's", advice)


def _scores(examination: Examination, client: RerankClient, server: RerankServer) -> None:
    """Score fixed pairs through this client and in known wrong ways."""
    if not server.classifies:
        examination.note("scores", "skip", "the server takes no finished prompts (/classify) to compare with")
        return
    with examination.checking("scores") as note:
        prompts_by_way: dict[str, list[str]] = {}
        for query, document in samples.PAIRS:
            for way, prompt in samples.wrong_prompts(query, document).items():
                prompts_by_way.setdefault(way, []).append(prompt)
        by_way = {way: _classified(examination, server, finished) for way, finished in prompts_by_way.items()}
        queries, documents = zip(*samples.PAIRS, strict=True)
        ours = client.score(queries, documents, instruction=prompts.DEFAULT_INSTRUCTION)
        right, *wrong = by_way
        moved = "; ".join(f"{way} {np.abs(by_way[way] - by_way[right]).max():.2g}" for way in wrong)
        values = {"through this client": ours.tolist()} | {way: by_way[way].tolist() for way in wrong}
        if _differ(ours, by_way[right]):
            advice = "Report this: this client sends this server a prompt that is not Qwen3's"
            note("fail", "not those of Qwen3's prompt", advice, values)
        else:
            seen = f"those of Qwen3's prompt. Wrong prompts move P(yes) by up to: {moved}"
            note("ok", seen, values=values)


def _classified(
    examination: Examination, server: RerankServer, finished: Sequence[str]
) -> NDArray[np.float32]:
    """P(yes) of finished prompts, asked one by one: a gateway may take few at once."""
    scores = [examination.ask(classify(server.model, [prompt])).values for prompt in finished]
    return np.concatenate(scores)


def _instruction(examination: Examination, client: RerankClient, server: RerankServer) -> None:
    with examination.checking("instruction") as note:
        query, documents = samples.QUERIES[0], samples.DOCUMENTS
        default = client.score(query, documents, instruction=prompts.DEFAULT_INSTRUCTION)
        other = client.score(query, documents, instruction=samples.OTHER_INSTRUCTION)
        moved = float(np.abs(logits(default) - logits(other)).max())
        right = True
        if server.classifies:
            finished = [prompts.rerank_prompt(query, text, samples.OTHER_INSTRUCTION) for text in documents]
            right = not _differ(other, _classified(examination, server, finished))
        if moved < 1e-3:
            advice = "Restart the server without --chat-template; this client then writes the prompt"
            note("fail", "has no effect", advice)
        elif not right:
            advice = "Report this: the instruction does not reach the model as Qwen3's prompt has it"
            note("fail", "changes the score, but not as Qwen3's prompt would", advice)
        else:
            note("ok", f"moves a logit by up to {moved:.2f}")


def _control_tokens(examination: Examination, client: RerankClient, server: RerankServer, first: int) -> None:
    """A document that closes the prompt and answers yes must score as its own words do."""
    with examination.checking("control tokens") as note:
        query, instruction = samples.QUERIES[0], prompts.DEFAULT_INSTRUCTION
        forged = float(client.score(query, [samples.FORGED], instruction=instruction)[0])
        seen = f"a document that answers for the model scores {forged:.2g} through this client"
        if server.route is not None and not server.templates:
            head, tail = prompts.rerank_head(query, instruction), _unguarded_tail(samples.FORGED)
            raw = examination.ask(score_by(server.route, server.model, head, [tail]))
            seen += f", {float(raw.values[0]):.2g} as it is"
        safe = True
        prompt = prompts.rerank_prompt(query, samples.FORGED, instruction)
        harmless = prompts.rerank_prompt(query, samples.DOCUMENTS[0], instruction)
        acting = control_tokens(examination, server.model, prompt, first)
        usual = control_tokens(examination, server.model, harmless, first)
        if acting is None or usual is None:
            seen += "; could not check its tokens: no /tokenize"
        else:
            seen += f"; {acting - usual} of its tokens act"
            safe = acting == usual
        if safe and server.classifies:
            words = prompts.rerank_prompt(query, samples.FORGED, instruction)
            safe = not _differ([forged], _classified(examination, server, [words]))
        advice = "" if safe else "Report this: hostile text can act through this client on this server"
        note("ok" if safe else "fail", seen, advice)


def _unguarded_tail(document: str) -> str:
    return f"<Document>: {document}{prompts.RERANK_SUFFIX}"


def _latency(examination: Examination, client: RerankClient) -> None:
    documents = samples.hundred_documents()
    examine_latency(
        examination,
        "document",
        lambda query: client.score(query, documents[:1]),
        lambda query: client.score(query, documents),
    )


def _published(examination: Examination, client: RerankClient, served: ServedModel) -> None:
    if not samples.is_official(served, _OFFICIAL):
        examination.note("published numbers", "skip", f"known for {_OFFICIAL} only")
        return
    with examination.checking("published numbers") as note:
        scores = client.score(
            samples.KNOWN_QUERY, samples.KNOWN_DOCUMENTS, instruction=prompts.DEFAULT_INSTRUCTION
        )
        off = float(np.abs(logits(scores) - logits(samples.KNOWN_SCORES)).max())
        seen = (
            f"{', '.join(f'{value:.2g}' for value in scores)} for "
            f"{', '.join(f'{value:.2g}' for value in samples.KNOWN_SCORES)}: logits {off:.2f} off at most"
        )
        if off <= samples.KNOWN_TOLERANCE:
            note("ok", seen)
        else:
            advice = "Download the model again (qwen3-vllm download reranker); look at --dtype, quantization"
            note("fail", seen, advice)


def _differ(some: Sequence[float] | NDArray[np.float32], others: NDArray[np.float32]) -> bool:
    apart: NDArray[np.float64] = np.abs(logits(some) - logits(others))
    return bool(apart.max() > _SAME_LOGIT)
