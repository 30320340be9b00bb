"""Which model of which address a client is to use, found out before its first request."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from qwen3_vllm import errors
from qwen3_vllm._core.discovery.capabilities import try_one
from qwen3_vllm._core.http.flow import Flow, send
from qwen3_vllm._core.http.transport import Transport
from qwen3_vllm._core.official_models import Role
from qwen3_vllm._core.vllm_api.calls import ServedModel, models
from qwen3_vllm._core.vllm_api.error_bodies import is_sick, may_lack

S = TypeVar("S")

logger = logging.getLogger(__name__)

Listed: TypeAlias = list[ServedModel] | errors.Qwen3VLLMError
_MAY_BE_ELSEWHERE = (errors.ServerError, errors.WrongServerError, errors.InvalidAnswerError)
_MOST_CANDIDATES = 6
_MOST_NAMED = 10
_OF_ROLE: Mapping[Role, str] = {"embedding": "embed", "reranker": "rerank"}


@dataclass(frozen=True, slots=True)
class Served:
    """A model to ask for.

    Attributes:
        context: Its context length in tokens; None if the server does not report it.
        root: Its checkpoint; None if the server does not report it.
        listed: What the server lists instead, if it lists models but not this one.
    """

    model: str
    context: int | None = None
    root: str | None = None
    listed: tuple[str, ...] = ()


def ask_anywhere(transport: Transport, ask: Callable[[Listed], Flow[S]]) -> Flow[S]:
    """Ask at each address that the server's may be until one does: first where models are listed.

    Args:
        ask: Gives what a client must know, from what /v1/models answered.
    """
    unlisted: dict[str, errors.Qwen3VLLMError] = {}
    failures: list[errors.Qwen3VLLMError] = []
    addresses = transport.addresses
    for address in addresses:
        transport.move_to(address)
        listed = yield from try_one(models())
        if isinstance(listed, errors.Qwen3VLLMError):
            unlisted[address] = listed
            continue
        try:
            return (yield from ask(listed))
        except _MAY_BE_ELSEWHERE as error:
            failures.append(_unless_silent(error))
    for address, why in unlisted.items():
        transport.move_to(address)
        try:
            return (yield from ask(why))
        except _MAY_BE_ELSEWHERE as error:
            failures.append(_unless_silent(error))
    transport.move_to(addresses[0])
    raise next((error for error in failures if not _is_not_there(error)), failures[0])


def _unless_silent(error: errors.Qwen3VLLMError) -> errors.Qwen3VLLMError:
    """Raise an error that says nothing of the address."""
    if isinstance(error, errors.ServerError) and not may_lack(error):
        raise error
    return error


def _is_not_there(error: errors.Qwen3VLLMError) -> bool:
    """Whether the address seems wrong, rather than the server."""
    lacks = errors.RouteNotFoundError | errors.InvalidAnswerError
    return isinstance(error, lacks) or isinstance(error.__cause__, lacks)


def ask_served(model: str | None, role: Role, listed: Listed, ask: Callable[[Served], Flow[S]]) -> Flow[S]:
    """Ask the model that the user named, or else the first of the list that does the role's work.

    A list says little: gateways keep it from some keys, and answer for names that are not in it.

    Args:
        listed: What /v1/models answered.
        ask: Gives what a client must know of a model; raises where it does not do the client's work.

    Raises:
        ModelNotFoundError: The server neither lists nor serves the model.
        WrongServerError: The server lists none.
    """
    if isinstance(listed, errors.Qwen3VLLMError) and model is None and is_sick(listed):
        (listed,) = yield from send(models())  # it may be starting: with more patience
    if isinstance(listed, errors.Qwen3VLLMError):
        if model is None:
            forbidden = isinstance(listed, errors.AuthenticationError)
            why = "If this key may not list models" if forbidden else "Since it lists no models"
            listed.args = (f"{listed} {why}, pass the name of one as model.",)
            raise listed
        return (yield from ask(Served(model)))
    names = tuple(line.name for line in listed)
    if model is not None and model not in names:
        return (yield from _ask_unlisted(Served(model, listed=names), ask))
    if not names:
        raise errors.WrongServerError(
            "The server lists no model at /v1/models: pass the name of one as model"
        )
    lines = [line for line in listed if model in (None, line.name)]
    candidates = [Served(line.name, line.max_model_len, line.root) for line in lines]
    if len(names) > 1:
        candidates.sort(key=lambda each: _likelihood(each.model, role))
    return (yield from _ask_candidates(candidates[:_MOST_CANDIDATES], names, ask))


def _ask_unlisted(served: Served, ask: Callable[[Served], Flow[S]]) -> Flow[S]:
    names = ", ".join(map(repr, served.listed))
    try:
        found = yield from ask(served)
    except (errors.ServerError, errors.WrongServerError) as error:
        if not served.listed or (isinstance(error, errors.ServerError) and not may_lack(error)):
            raise
        raise errors.ModelNotFoundError(
            f"The server serves {names}, not {served.model!r}: pass one of these as model, or none. {error}",
            status=404,
        ) from error
    logger.warning(
        "the server answers for model %r, which is not in its list: %s", served.model, names or "empty"
    )
    return found


def _ask_candidates(
    candidates: Sequence[Served], names: Sequence[str], ask: Callable[[Served], Flow[S]]
) -> Flow[S]:
    failures: list[errors.Qwen3VLLMError] = []
    for served in candidates:
        try:
            return (yield from ask(served))
        except (errors.ServerError, errors.WrongServerError, errors.InvalidAnswerError) as error:
            if not (isinstance(error, errors.WrongServerError) or may_lack(error)):
                raise
            failures.append(error)
    first = failures[0]
    if len(names) > 1:
        named = ", ".join(map(repr, names[:_MOST_NAMED])) + (", …" if len(names) > _MOST_NAMED else "")
        said = str(first).rstrip(".")
        first.args = (f"{said}. The server lists {named}: pass the right one as model.", *first.args[1:])
    raise first


def _likelihood(name: str, role: Role) -> int:
    """A number to sort names by: the likeliest to do the role's work first, patterns last."""
    low = name.lower()
    if "*" in low:
        return 3
    if any(word in low for other, word in _OF_ROLE.items() if other != role):
        return 2
    return 0 if _OF_ROLE[role] in low else 1
