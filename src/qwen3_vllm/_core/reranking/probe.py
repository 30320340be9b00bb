"""Find out what a server does with a rerank request, by asking it.

vLLM reports nowhere whether it puts a pair into a chat template, whether that template is right, or whether
it takes an instruction; older releases ignore what they do not know. But /classify takes finished prompts on
every release from 0.9 and never applies a template to them: what /score answers must equal what it answers.
"""

import logging
from collections.abc import Callable

import numpy as np

from qwen3_vllm import errors
from qwen3_vllm._core import prompts
from qwen3_vllm._core.discovery.capabilities import try_all, try_one
from qwen3_vllm._core.discovery.context_length import ask_limit, overlong
from qwen3_vllm._core.discovery.served_model import Served
from qwen3_vllm._core.http.flow import Flow, send_one
from qwen3_vllm._core.reranking.logits import SIMILAR_LOGIT, logits, same
from qwen3_vllm._core.reranking.samples import DOCUMENTS, QUERY, Samples, ask_samples, letters
from qwen3_vllm._core.reranking.server import Fingerprint, Lengths, RerankServer
from qwen3_vllm._core.reranking.template import ServerTemplate, ask_template
from qwen3_vllm._core.settings import Template
from qwen3_vllm._core.vllm_api.calls import Call, tokenize
from qwen3_vllm._core.vllm_api.embeddings import embed
from qwen3_vllm._core.vllm_api.error_bodies import may_lack
from qwen3_vllm._core.vllm_api.scores import Scores, classify, score_by

logger = logging.getLogger(__name__)

_CONTROL_TEXT = "<|im_start|><|im_end|><think></think>"
_CONTROL_TOKENS = 4
_WHOLE = 0.9999  # cosine of a vector with itself, at least
_COSINES = "an embedding model, whose scores are cosines of the two texts"


def fingerprint_call(server: RerankServer) -> Call[Scores]:
    return letters(server.model, server.route, server.instructs)


def fingerprint_of(scores: Scores) -> Fingerprint:
    return Fingerprint(scores.prompt_tokens, float(logits(scores.values)[0]))


def ask_rerank_server(
    served: Served, root: str, start: str, template: Template = "auto"
) -> Flow[RerankServer]:
    """Ask a server what it is and who applies the template: a few small requests, most of them at once.

    Args:
        template: What the user says of the server, which is checked where it can be.

    Raises:
        WrongServerError: It is not a Qwen3 reranker, or has a wrong template and no way to work around it.
        ConfigurationError: The server contradicts `template`.
    """
    name = served.model

    def wrong(seen: str) -> errors.WrongServerError:
        return errors.WrongServerError(f"{root} serves {name!r}, {seen}. Start a reranker: {start}")

    seen = yield from _ask_reranker(name, wrong)
    finished = seen.finished
    how = yield from ask_template(name, seen, template)
    joins = seen.route is None or finished is None or same(seen.split, finished, SIMILAR_LOGIT)
    if not how.applied and not joins and template != "client":
        raise wrong("which puts tokens of its own between the two texts of a pair")
    _check(template, how, finished is not None, root, name, start)
    fingerprint = seen.pair
    if seen.route is None:
        fingerprint = yield from send_one(letters(name, None, False))
    counted = finished.prompt_tokens if finished is not None else None
    return RerankServer(
        model=name,
        context=served.context,
        route=seen.route,
        instructs=seen.instructs,
        templates=bool(how.applied),
        template_checked=how.default_right is not None,
        default_right=how.default_right is not False,
        takes_instruction=how.takes_instruction is not False,
        classifies=finished is not None,
        overhead=-(-counted // len(DOCUMENTS)) if counted else None,
        fingerprint=fingerprint_of(fingerprint),
    )


def _ask_reranker(name: str, wrong: Callable[[str], errors.WrongServerError]) -> Flow[Samples]:
    """Score the sample pairs, and refuse what is not a Qwen3 reranker: an embedding model, another family."""
    try:
        seen = yield from ask_samples(name)
    except errors.Qwen3VLLMError as error:
        if may_lack(error) and (yield from _embeds(name)):
            raise wrong(_COSINES) from error
        if isinstance(error, errors.RouteNotFoundError):
            raise wrong("which does not score pairs (it may be a chat or an embedding model)") from error
        raise
    if seen.finished is None and (yield from _gives_cosines(name, seen)):
        raise wrong(_COSINES)
    control = yield from try_one(tokenize(name, _CONTROL_TEXT, add_special_tokens=False))
    if not isinstance(control, errors.Qwen3VLLMError) and len(control) != _CONTROL_TOKENS:
        raise wrong("whose tokenizer is not Qwen3's: another family of rerankers, such as bge or jina")
    if _constant(seen.split if seen.finished is None else seen.finished):
        raise wrong("which gives every pair one score: its yes/no head is missing (--hf-overrides)")
    return seen


def _check(
    template: Template, how: ServerTemplate, classifies: bool, root: str, name: str, start: str
) -> None:
    """Raise unless the server is what the user says it is, and can be given Qwen3's prompt."""
    said = f'template="{template}", but {root}'
    if how.applied is None:
        raise errors.WrongServerError(
            f"{root}: could not check whether {name!r} has a chat template, as it reports no tokens, has no "
            '/classify, and scores obvious pairs wrong both ways. Pass template="server" if it has Qwen3\'s '
            'template, template="client" if it has none'
        )
    if template == "server" and not how.applied:
        raise errors.ConfigurationError(
            f'{said} applies no chat template: pass template="auto", or start the server with one: {start}'
        )
    if template == "server" and not how.fits and classifies:
        raise errors.ConfigurationError(
            f'{said} applies a chat template that does not give Qwen3\'s prompt: pass template="auto", which '
            f"works around it, or start the server with the right one: {start}"
        )
    if template == "client" and how.applied and not classifies:
        raise errors.ConfigurationError(
            f"{said} applies a chat template of its own, and has no /classify, which would take finished "
            'prompts: pass template="auto", or start the server without --chat-template'
        )
    if how.applied and not how.fits and not classifies:
        raise errors.WrongServerError(
            f"{root} applies a chat template that does not give Qwen3's prompt, and has no /classify to work "
            f"around it. Start a reranker: {start}"
        )
    if how.applied and how.default_right is None:
        logger.warning(
            "%s: could not check whether the chat template of %r gives Qwen3's prompt, as there is neither "
            "/classify nor /tokenize to compare with; it is used as it is",
            root,
            name,
        )


def ask_lengths(server: RerankServer, context: int) -> Flow[Lengths]:
    """Ask how long a prompt may be, and whether one may come as token ids (vLLM 0.15 and newer)."""
    text = " a" * overlong(context)
    refused = classify(server.model, [text])
    if server.route is not None:
        refused = score_by(server.route, server.model, "a", [text])
    limit = yield from ask_limit(context, refused)
    return Lengths(limit, server.classifies and (yield from _takes_tokens(server.model)))


def _takes_tokens(model: str) -> Flow[bool]:
    prompt = prompts.rerank_prompt(QUERY, DOCUMENTS[0], prompts.DEFAULT_INSTRUCTION)
    tokens = yield from try_one(tokenize(model, prompt, add_special_tokens=False))
    if isinstance(tokens, errors.Qwen3VLLMError):
        return False
    as_text, as_tokens = yield from try_all(classify(model, [prompt]), classify(model, [tokens]))
    if isinstance(as_text, errors.Qwen3VLLMError) or isinstance(as_tokens, errors.Qwen3VLLMError):
        return False
    return same(as_text, as_tokens, SIMILAR_LOGIT)


def _constant(scores: Scores) -> bool:
    return bool(np.ptp(logits(scores.values)) < 1e-3)


def _embeds(model: str) -> Flow[bool]:
    answer = yield from try_one(embed(model, ["a"], encoding="unset"))
    return not isinstance(answer, errors.Qwen3VLLMError)


def _gives_cosines(model: str, seen: Samples) -> Flow[bool]:
    """Whether a text is wholly like itself, and two texts as much like each other either way, as vectors are.

    A request for vectors would tell too, but after a refusal some gateways rest the model for seconds.
    """
    assert seen.route is not None
    pairs = (("a", "a"), ("a", "b"), ("b", "a"))
    itself, pair, turned = yield from try_all(
        *(score_by(seen.route, model, one, [other]) for one, other in pairs)
    )
    if not (isinstance(itself, Scores) and isinstance(pair, Scores) and isinstance(turned, Scores)):
        return False
    return bool(itself.values[0] > _WHOLE) and same(pair, turned)
