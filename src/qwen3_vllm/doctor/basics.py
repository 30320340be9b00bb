"""What any server is asked first: is it there, what does it serve, whom does it let in."""

import time
from collections.abc import Callable
from statistics import median
from urllib.parse import urlsplit

from packaging.version import InvalidVersion, Version

from qwen3_vllm import errors
from qwen3_vllm._core import prompts
from qwen3_vllm._core.loopback import is_loopback
from qwen3_vllm._core.releases import OLDEST
from qwen3_vllm._core.vllm_api.calls import Call, ServedModel, models, tokenize, version
from qwen3_vllm.doctor.checks import Examination
from qwen3_vllm.doctor.samples import LATENCY_QUERY

_SHORT_CONTEXT = 512
_CONTROL_TOKENS = ("<|im_start|>", "<|im_end|>", "<think>", "</think>")
# The id of <|endoftext|>, the first control token; all ids from there are control tokens.
FIRST_CONTROL_ID = 151_643
DEMO_FIRST_CONTROL_ID = 13_000  # in the small tokenizer of this project's demo models
_GET = ("/v1/models", "/version", "/metrics")
_POST: dict[str, dict[str, object]] = {
    "/v1/embeddings": {"input": ["a"]},
    "/v2/embed": {"texts": ["a"]},
    "/v1/score": {"text_1": "a", "text_2": ["b"]},
    "/score": {"text_1": "a", "text_2": ["b"]},
    "/v1/rerank": {"query": "a", "documents": ["b"]},
    "/rerank": {"query": "a", "documents": ["b"]},
    "/v2/rerank": {"query": "a", "documents": ["b"]},
    "/classify": {"input": ["a"]},
    "/pooling": {"input": ["a"]},
    "/tokenize": {"prompt": "a"},
    "/detokenize": {"tokens": [0]},
}


def examine_basics(examination: Examination, name: str | None) -> ServedModel | None:
    """Examine what all servers have in common; gives the model, or None where nothing more can be asked.

    Args:
        name: The model that does the role's work, or that the user named; None where that is not known.
    """
    served = None
    with examination.checking("reachable") as note:
        start = time.perf_counter()
        listed = examination.ask_if_there(models())
        milliseconds = 1e3 * (time.perf_counter() - start)
        lines = [] if isinstance(listed, errors.Qwen3VLLMError) else listed
        if name is None and isinstance(listed, errors.Qwen3VLLMError):
            raise listed
        if name is None and not lines:
            raise errors.WrongServerError(f"{examination.root} lists no model at /v1/models")
        note("ok", f"{examination.root} answers in {milliseconds:.0f} ms")
        served = next((line for line in lines if name in (None, line.name)), ServedModel(str(name), None))
    if served is not None:
        _version(examination)
        _model(examination, served, [line.name for line in lines])
        _context(examination, served)
    if served is not None or isinstance(_first_answer(examination), errors.AuthenticationError):
        _guarding(examination, served)
    return served


def _first_answer(examination: Examination) -> object:
    (answer,) = examination.ask_as_stranger(models())
    return answer


def _model(examination: Examination, served: ServedModel, listed: list[str]) -> None:
    others = f", and {len(listed) - 1} more names" if len(listed) > 1 else ""
    if served.name in listed:
        examination.note("model", "ok", f"{served.name!r}, from {served.root or 'an unnamed place'}{others}")
    else:
        lists = f"lists {', '.join(map(repr, listed))}" if listed else "does not list its models"
        advice = f"Pass model={served.name!r} to each client, or let the gateway list it at /v1/models"
        examination.note("model", "warn", f"{served.name!r}; the server {lists}", advice)


def _version(examination: Examination) -> None:
    try:
        answer = examination.ask(version())
        release = Version(answer)
    except (errors.Qwen3VLLMError, InvalidVersion):
        examination.note(
            "version", "warn", "the server does not report it", "Let the proxy pass on GET /version"
        )
        return
    if release < OLDEST:
        advice = f"Upgrade vLLM: this package is made for {OLDEST} and newer"
        examination.note("version", "warn", f"vLLM {answer}", advice)
    else:
        examination.note("version", "ok", f"vLLM {answer}")


def _context(examination: Examination, served: ServedModel) -> None:
    length = served.max_model_len
    if length is None:
        advice = (
            "Let the proxy pass on vLLM's own /v1/models; until then the first long text is refused, then cut"
        )
        examination.note("context length", "warn", "the server does not report it", advice)
    elif length < _SHORT_CONTEXT:
        advice = "Texts are cut to this; start with a larger --max-model-len (8192 is usual)"
        examination.note("context length", "warn", f"{length} tokens", advice)
    else:
        examination.note("context length", "ok", f"{length} tokens")


def examine_tokenizer(examination: Examination, model: str) -> int:
    """Check that Qwen3's control tokens are single tokens there; gives the id of the first of them."""
    with examination.checking("tokenizer") as note:
        text = "".join(_CONTROL_TOKENS)
        seen = examination.ask_if_there(tokenize(model, text, add_special_tokens=False))
        if isinstance(seen, errors.Qwen3VLLMError):
            advice = "Let the proxy pass on POST /tokenize; until then long texts are cut less exactly"
            note("warn", f"could not check: no /tokenize ({seen})", advice)
            return FIRST_CONTROL_ID
        expected = _control_ids(FIRST_CONTROL_ID)
        if seen == _control_ids(DEMO_FIRST_CONTROL_ID):
            note("ok", "the small one of this project's demo models: not for real use")
            return DEMO_FIRST_CONTROL_ID
        if seen == expected:
            note("ok", "Qwen3's")
        else:
            ids = ", ".join(map(str, seen[:8])) + (", …" if len(seen) > 8 else "")
            words = f"not Qwen3's: {' '.join(_CONTROL_TOKENS)} are tokens {ids}, not {expected}"
            advice = f"Serve a Qwen3 model with its own tokenizer files: {examination.start}"
            note("fail", words, advice)
    return FIRST_CONTROL_ID


def _control_ids(first: int) -> list[int]:
    return [first + prompts.CONTROL_TOKENS.index(token) for token in _CONTROL_TOKENS]


def control_tokens(examination: Examination, model: str, text: str, first: int) -> int | None:
    """How many tokens of `text` act as control tokens, whose ids start at `first`; None without /tokenize."""
    ids = examination.ask_if_there(tokenize(model, text, add_special_tokens=False))
    return None if isinstance(ids, errors.Qwen3VLLMError) else sum(token >= first for token in ids)


def examine_latency(
    examination: Examination,
    noun: str,
    ask_one: Callable[[str], object],
    ask_hundred: Callable[[str], object],
) -> None:
    """Time calls about one text, and one about a hundred of them; each is given a query of its own."""
    with examination.checking("latency") as note:
        one = [_milliseconds(ask_one, f"{LATENCY_QUERY} ({number})") for number in range(5)]
        hundred = _milliseconds(ask_hundred, LATENCY_QUERY)
        note("ok", f"one {noun} {median(one):.1f} ms, 100 documents {hundred:.0f} ms")


def _milliseconds(ask: Callable[[str], object], query: str) -> float:
    start = time.perf_counter()
    ask(query)
    return 1e3 * (time.perf_counter() - start)


def _guarding(examination: Examination, served: ServedModel | None) -> None:
    """Find the routes that serve a stranger, by the smallest request of each.

    Any refusal but one for the key says nothing about the key. Where the model's name is not known, vLLM
    takes an empty one for its own, and a server that knows no such model did not ask for the key either.
    """
    name = served.name if served is not None else ""
    serves = (int,) if served is not None else (int, errors.ModelNotFoundError)
    calls = [Call(path, None, lambda answer: answer.status) for path in _GET]
    calls += [
        Call(path, {"model": name, **body}, lambda answer: answer.status) for path, body in _POST.items()
    ]
    answers = dict(zip((*_GET, *_POST), examination.ask_as_stranger(*calls), strict=True))
    # Without a key, what a stranger may not do, we may not either: a gateway forbids it to everybody.
    of_api = [answer for path, answer in answers.items() if path.startswith("/v1/")]
    keyless = not examination.has_key and any(isinstance(answer, int) for answer in of_api)
    closed = [path for path, answer in answers.items() if isinstance(answer, errors.AuthenticationError)]
    closed = [] if keyless else closed
    open_ones = [path for path, answer in answers.items() if isinstance(answer, serves)]
    if not closed and not examination.has_key:
        host = urlsplit(examination.root).hostname or ""
        if is_loopback(host):
            examination.note("key", "ok", f"none needed; only this machine reaches {host}")
        else:
            advice = (
                "Set VLLM_API_KEY and start it with `qwen3-vllm serve`, or put it behind a proxy that "
                "asks for a key"
            )
            examination.note("key", "warn", f"none needed: anyone who reaches {host} can use it", advice)
    elif open_ones and not closed:
        advice = "It was started without a key: set VLLM_API_KEY for `qwen3-vllm serve`"
        examination.note("key", "fail", "every route answers without the key", advice)
    elif set(open_ones) - {"/metrics"}:
        advice = (
            "vLLM's own --api-key covers /v1 only: start it with `qwen3-vllm serve`, which guards the rest, "
            "or let a proxy pass on /v1 alone"
        )
        examination.note("key", "fail", f"these answer without the key: {', '.join(open_ones)}", advice)
    else:
        metrics = ", but /metrics, for scrapers" if open_ones else ""
        examination.note("key", "ok", f"no route answers without the key{metrics}")
