"""Whether a server has answered one flow at all lately, and what it need not be asked any more."""

from dataclasses import dataclass, field
from typing import cast

from qwen3_vllm import errors
from qwen3_vllm._core.http.retries import may_stop_all, refuses_route, stops_all
from qwen3_vllm._core.telemetry.observer import Observer


@dataclass(slots=True)
class Progress:
    """Whether the server has answered one flow at all lately.

    Attributes:
        observer: Is shown what happens.
        in_vain: Calls in a row that a sick server failed.
        hung: What every further call of the flow would end in.
        fatal: What every further call of this round would end in.
        refused: What every further call of this round to these routes would end in.
    """

    observer: Observer
    in_vain: int = 0
    hung: errors.RequestTimeoutError | None = None
    fatal: errors.Qwen3VLLMError | None = None
    refused: dict[str, errors.ServerError] = field(default_factory=dict)

    def note(self, path: str, result: object, at_once: int) -> None:
        """Note what a call ended in, which was one of `at_once` in flight."""
        self.in_vain = self.in_vain + 1 if may_stop_all(result) else 0
        if refuses_route(result):
            self.refused[path] = cast(errors.ServerError, result)
        if stops_all(result) or self.in_vain > at_once:
            self.fatal = cast(errors.Qwen3VLLMError, result)
            if isinstance(result, errors.RequestTimeoutError):
                self.hung = result
