"""The key of a server: a string, or what a function of the user's gives, as tokens that expire are had."""

import asyncio
import inspect

from pydantic import SecretStr

from qwen3_vllm import errors
from qwen3_vllm._core.option_values import AskKey, bare_key, is_sendable


async def ask_key(ask: AskKey) -> str:
    """Ask the user's function for the key, in another thread unless it is async: it may take its time.

    Raises:
        ConfigurationError: It failed, or gave something else than a key.
    """
    try:
        given = await ask() if inspect.iscoroutinefunction(ask) else await asyncio.to_thread(ask)
        if inspect.isawaitable(given):
            given = await given
    except Exception as error:
        raise errors.ConfigurationError(f"api_key: the function failed ({type(error).__name__})") from error
    given = given.get_secret_value() if isinstance(given, SecretStr) else given
    key = bare_key(given) if isinstance(given, str) else ""
    if not is_sendable(key):
        raise errors.ConfigurationError(
            f"api_key: the function must return a key of printable ASCII, not {_kind(given)}"
        )
    return key


def _kind(given: object) -> str:
    return "an empty or unprintable one" if isinstance(given, str) else type(given).__name__
