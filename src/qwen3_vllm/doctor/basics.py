"""What any server is asked first: is it there, what does it serve, whom does it let in."""

import time
from ipaddress import ip_address
from urllib.parse import urlsplit

from packaging.version import InvalidVersion, Version

from qwen3_vllm import errors, wire
from qwen3_vllm.doctor.checks import Examination

_OLDEST = Version("0.10.0")
_SHORT_CONTEXT = 512
_CONTROL_TEXT = "<|im_start|><|im_end|><think></think>"
FIRST_CONTROL_ID = 151_643  # Qwen3's <|endoftext|>; all ids from here are control tokens
_GET = ("/v1/models", "/version", "/metrics")
_POST = (
    "/v1/embeddings",
    "/v1/score",
    "/score",
    "/v1/rerank",
    "/rerank",
    "/v2/rerank",
    "/classify",
    "/pooling",
    "/tokenize",
    "/detokenize",
)


def examine_basics(examination: Examination) -> wire.ServedModel | None:
    """Examine what all servers have in common; gives the model, or None where nothing more can be asked."""
    served = None
    with examination.checking("reachable"):
        start = time.perf_counter()
        listed = examination.ask(wire.models())
        if not listed:
            raise errors.WrongServerError(f"{examination.root} lists no model at /v1/models")
        served = listed[0]
        milliseconds = 1e3 * (time.perf_counter() - start)
        examination.note("reachable", "ok", f"{examination.root} answers in {milliseconds:.0f} ms")
    if served is not None:
        _version(examination)
        others = f", and {len(listed) - 1} more names" if len(listed) > 1 else ""
        examination.note("model", "ok", f"{served.name!r}, from {served.root or 'an unnamed place'}{others}")
        _context(examination, served)
    if served is not None or isinstance(_first_answer(examination), errors.AuthenticationError):
        _guarding(examination)
    return served


def _first_answer(examination: Examination) -> object:
    (answer,) = examination.ask_as_stranger(wire.models())
    return answer


def _version(examination: Examination) -> None:
    try:
        version = examination.ask(wire.version())
        release = Version(version)
    except (errors.Qwen3VLLMError, InvalidVersion):
        examination.note("version", "warn", "the server does not tell", "Let the proxy pass on GET /version")
        return
    if release < _OLDEST:
        advice = f"Upgrade vLLM: this package is made for {_OLDEST} and newer"
        examination.note("version", "warn", f"vLLM {version}", advice)
    else:
        examination.note("version", "ok", f"vLLM {version}")


def _context(examination: Examination, served: wire.ServedModel) -> None:
    length = served.max_model_len
    if length is None:
        advice = (
            "Let the proxy pass on vLLM's own /v1/models; until then too long texts fail instead of being cut"
        )
        examination.note("context length", "warn", "the server does not tell", advice)
    elif length < _SHORT_CONTEXT:
        advice = "Texts are cut to this; start with a greater --max-model-len (8192 is usual)"
        examination.note("context length", "warn", f"{length} tokens", advice)
    else:
        examination.note("context length", "ok", f"{length} tokens")


def examine_tokenizer(examination: Examination, model: str) -> None:
    """Check that Qwen3's control tokens are single tokens there."""
    with examination.checking("tokenizer"):
        try:
            ids = examination.ask(wire.tokenize(model, _CONTROL_TEXT, add_special_tokens=False))
        except errors.RouteNotFoundError:
            advice = (
                "Let the proxy pass on POST /tokenize; until then too long texts fail instead of being cut"
            )
            examination.note("tokenizer", "warn", "the server tells no tokens", advice)
            return
        if len(ids) == 4 and min(ids) >= FIRST_CONTROL_ID:
            examination.note("tokenizer", "ok", "Qwen3's")
        else:
            advice = f"Serve a Qwen3 model: {examination.start}"
            examination.note("tokenizer", "fail", f"not Qwen3's: 4 control tokens became {len(ids)}", advice)


def control_tokens(examination: Examination, model: str, text: str) -> int:
    """How many tokens of `text` act as control tokens."""
    ids = examination.ask(wire.tokenize(model, text, add_special_tokens=False))
    return sum(token >= FIRST_CONTROL_ID for token in ids)


def _guarding(examination: Examination) -> None:
    """Which routes answer to a stranger; an empty body is refused by an open one, and seen by no model."""
    calls = [wire.Call(path, None, lambda answer: answer.status) for path in _GET]
    calls += [wire.Call(path, {}, lambda answer: answer.status) for path in _POST]
    answers = dict(zip((*_GET, *_POST), examination.ask_as_stranger(*calls), strict=True))
    unknown = errors.RouteNotFoundError | errors.ServerUnreachableError | errors.RequestTimeoutError
    closed = [path for path, answer in answers.items() if isinstance(answer, errors.AuthenticationError)]
    there = [path for path, answer in answers.items() if not isinstance(answer, unknown)]
    open_ones = [path for path in there if path not in closed]
    if not closed and not examination.has_key:
        host = urlsplit(examination.root).hostname or ""
        if _is_this_machine(host):
            examination.note("key", "ok", f"none wanted; only this machine reaches {host}")
        else:
            advice = (
                "Start it with VLLM_API_KEY set by `qwen3-vllm serve`, or behind a proxy that asks for a key"
            )
            examination.note("key", "warn", f"none wanted: whoever reaches {host} can use it", advice)
    elif not closed:
        advice = "It was started without a key: set VLLM_API_KEY for `qwen3-vllm serve`"
        examination.note("key", "fail", "every route answers without the key", advice)
    elif set(open_ones) - {"/metrics"}:
        advice = (
            "vLLM's own --api-key covers /v1 only: start it by `qwen3-vllm serve`, which guards the rest, or "
            "let a proxy pass on /v1 alone"
        )
        examination.note("key", "fail", f"these answer without the key: {', '.join(open_ones)}", advice)
    else:
        metrics = ", but /metrics, for scrapers" if open_ones else ""
        examination.note("key", "ok", f"no route answers without the key{metrics}")


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
