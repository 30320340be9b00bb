"""The same work on a Ray cluster: Ray Data hands out parts, and each actor embeds one at a time.

Parts are cut, named and published as by the local engine, so that both give the same folder, and either goes
on where the other was stopped.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

try:
    import ray
    import ray.data
except ImportError as error:
    raise ImportError("--engine ray needs Ray: pip install 'qwen3-vllm[ray]'") from error

from qwen3_vllm.bulk.engine import Job, Step, embed_parts
from qwen3_vllm.bulk.parts import Part
from qwen3_vllm.errors import Qwen3VLLMError

_Batch = dict[str, np.ndarray[Any, Any]]


class PartEmbedder:
    """An actor: embeds the parts it is given, and publishes them."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def __call__(self, batch: _Batch) -> _Batch:
        """Embed the parts of a batch, a column for each field of `Part`; returns one `Step` for each."""
        columns = [batch[field].tolist() for field in Part._fields]
        parts = [Part(*fields) for fields in zip(*columns, strict=True)]
        done = [_add_up(embed_parts(self._job, [part])) for part in parts]
        return {
            field: np.array(column)
            for field, column in zip(Step._fields, zip(*done, strict=True), strict=True)
        }


def embed_parts_on_ray(job: Job, parts: Sequence[Part], workers: tuple[int, int]) -> Iterator[Step]:
    """Embed parts on the cluster of RAY_ADDRESS, or one on this machine; yields when a part is published.

    Every host must reach the inputs and the output under the same paths, and the server; a server's key is
    read from VLLM_API_KEY there.

    Raises:
        Qwen3VLLMError: The server failed. Every part yielded stays.
    """
    ray.init(ignore_reinit_error=True, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    # The actors wait for the server: they need no core.
    done = ray.data.from_items(
        [part._asdict() for part in parts], override_num_blocks=len(parts)
    ).map_batches(PartEmbedder, fn_constructor_args=(job,), batch_size=1, concurrency=workers, num_cpus=0)
    try:
        for row in done.iter_rows():
            yield Step(**row)
    except ray.exceptions.RayTaskError as error:
        cause = _cause(error)
        raise cause from error


def _cause(error: BaseException) -> BaseException:
    """The error of this package that ended a task, or the error itself."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, Qwen3VLLMError):
            return inner
        inner = getattr(inner, "cause", None) or inner.__cause__
    return error


def _add_up(steps: Iterator[Step]) -> Step:
    return Step(*map(sum, zip(*steps, strict=True)))
