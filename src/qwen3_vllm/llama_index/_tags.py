"""Usage in the tags of LlamaIndex's events."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from llama_index_instrumentation.dispatcher import active_instrument_tags, instrument_tags

from qwen3_vllm._core.usage import UsageCount, count_usage

USAGE = "qwen3_vllm.usage"


class _Tags(Mapping[str, Any]):
    """The tags of the user's own, and the usage at the time an event is made."""

    def __init__(self, outer: Mapping[str, Any], count: UsageCount) -> None:
        self._outer = outer
        self._count = count

    def __getitem__(self, name: str) -> Any:
        return asdict(self._count.usage) if name == USAGE else self._outer[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**self._outer, USAGE: None})

    def __len__(self) -> int:
        return len({*self._outer, USAGE})


@contextmanager
def tagging_usage() -> Iterator[None]:
    """Give each event of a block what the block has used so far, as `tags["qwen3_vllm.usage"]`."""
    with (
        count_usage() as count,
        instrument_tags(_Tags(active_instrument_tags.get(), count)),  # type: ignore[arg-type]  # it is read
    ):
        yield
