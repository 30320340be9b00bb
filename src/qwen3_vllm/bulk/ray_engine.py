"""The same work on a Ray cluster: Ray Data hands out parts, and each actor embeds one at a time.

Parts are cut, named and published as by the local engine, so that both give the same folder, and either goes
on where the other was stopped.
"""

import logging
import pickle
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any

import numpy as np

try:
    import ray
    import ray.data
except ImportError as error:
    raise ImportError("--engine ray needs Ray: pip install 'qwen3-vllm[ray]'") from error

from qwen3_vllm.bulk.engine import Job, Step, embed_parts, step_before
from qwen3_vllm.bulk.folder import Folder
from qwen3_vllm.bulk.parts import Part
from qwen3_vllm.errors import Qwen3VLLMError

_Batch = dict[str, np.ndarray[Any, Any]]


class PartEmbedder:
    """An actor: embeds the parts it is given, and publishes them."""

    def __init__(self, job: bytes) -> None:
        """`job` is a pickled `Job`: Ray would try to copy the object, and the client's locks with it."""
        self._job: Job = pickle.loads(job)

    def __call__(self, batch: _Batch) -> _Batch:
        """Embed the parts of a batch, a column for each field of `Part`.

        Returns:
            For each, pickled, its `Step`, or the error that ended it. Raised, it would reach the driver as a
            text only.
        """
        columns = [batch[field].tolist() for field in Part._fields]
        outcomes = [self._embed(Part(*fields)) for fields in zip(*columns, strict=True)]
        return {"outcome": np.array([pickle.dumps(outcome) for outcome in outcomes], dtype=object)}

    def _embed(self, part: Part) -> Step | Qwen3VLLMError:
        folder = Folder(self._job.folder)
        if folder.is_done(part):  # by an actor that died before it could say so
            return step_before(part.rows, folder.count(part))
        try:
            return reduce(Step.then, embed_parts(self._job, [part]), Step())
        except Qwen3VLLMError as error:
            return error


def embed_parts_on_ray(job: Job, parts: Sequence[Part], workers: tuple[int, int]) -> Iterator[Step]:
    """Embed parts on the cluster of RAY_ADDRESS, or one on this machine; yields when a part is published.

    Every host must reach the inputs and the output under the same paths, and the server; a server's key is
    read from VLLM_API_KEY there.

    Raises:
        Qwen3VLLMError: The server or Ray failed. Every part yielded stays.
    """
    # Its own bars and messages would break ours.
    logging.getLogger("ray").setLevel(logging.WARNING)
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    ray.init(ignore_reinit_error=True, log_to_driver=False, logging_level=logging.WARNING)
    ray.data.DataContext.get_current().enable_progress_bars = False
    done = ray.data.from_items(
        [part._asdict() for part in parts], override_num_blocks=len(parts)
    ).map_batches(
        PartEmbedder,
        fn_constructor_args=(pickle.dumps(job),),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(min_size=workers[0], max_size=workers[1]),
    )
    try:
        for row in done.iter_rows():
            outcome = pickle.loads(row["outcome"])
            if isinstance(outcome, Qwen3VLLMError):
                raise outcome
            yield outcome
    except ray.exceptions.RayError as error:
        raise Qwen3VLLMError(f"Ray could not go on: {error}") from error
