"""Search in a folder that `qwen3-vllm embed` wrote: nearest vectors, and the texts they stand for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qwen3_vllm._core.embedding.client import EmbeddingClient
from qwen3_vllm._core.text_files.sources import as_text
from qwen3_vllm._core.vllm_api.embeddings import Vectors
from qwen3_vllm.bulk.output import Output
from qwen3_vllm.errors import ConfigurationError


@dataclass(frozen=True)
class Hit:
    """A document near a query. `part`: the name of the part of the input that it comes from."""

    id: str
    cosine: float
    part: str


def embed(output: Output, query: str, base_url: Sequence[str] | None, instruction: str | None) -> Vectors:
    """Embed a query by the model that the documents were embedded with.

    Raises:
        WrongServerError: The server has another one.
    """
    client = EmbeddingClient(
        base_url=base_url,  # None means the default
        model=output.manifest.options["model"],
        dimensions=output.dimensions,
        instruction=instruction,
    )
    output.check_server(client)
    vector: Vectors = client.embed_queries([query])[0]
    return vector


def nearest(output: Output, query: Vectors, count: int) -> list[Hit]:
    """Find the `count` documents of highest cosine, best first, in memory that does not grow.

    Raises:
        ConfigurationError: A part is damaged.
    """
    best: list[Hit] = []
    for part, ids, vectors in output.embedded():
        cosines = vectors @ query
        places = np.argsort(-cosines, kind="stable")[:count]
        found = zip(ids.take(places).to_pylist(), cosines[places].tolist(), strict=True)
        best += [Hit(id, cosine, part) for id, cosine in found]
        best = sorted(best, key=lambda hit: -hit.cosine)[:count]
    return best


def texts_of(hits: Sequence[Hit], output: Output, given: Sequence[Path]) -> tuple[list[str], list[str]]:
    """Read the texts of hits from the files that were embedded.

    Args:
        given: Where these files lie now; none: where they lay.

    Returns:
        The texts, in the order of the hits; and the names of files that have changed since.

    Raises:
        ConfigurationError: A file is not there, or holds an id no more.
    """
    wanted = {(hit.part, hit.id) for hit in hits}
    parts = {hit.part for hit in hits}
    found: dict[tuple[str, str], str] = {}
    changed = []
    for number in sorted({int(part.partition("-")[0]) for part in parts}):
        path = _path_of(output, number, given)
        texts = output.texts(number, path, parts)
        if texts.changed:
            changed.append(str(path.absolute()))
        found |= {(each.part, each.id): each.text for each in texts if (each.part, each.id) in wanted}
    missing = next((hit for hit in hits if (hit.part, hit.id) not in found), None)
    if missing is not None:
        raise ConfigurationError(
            f"{missing.id!r} is in the index, but no longer in the file that was embedded: "
            "give the file as it was by --texts, or --no-rerank"
        )
    return [found[hit.part, hit.id] for hit in hits], changed


def _path_of(output: Output, number: int, given: Sequence[Path]) -> Path:
    """Where the input of this number lies now."""
    inputs = output.manifest.inputs
    name = inputs[number].name
    path = Path(name)
    if given:
        same = given if len(inputs) == len(given) == 1 else [p for p in given if as_text(p.name) == path.name]
        if len(same) != 1:
            raise ConfigurationError(f"--texts gives {len(same)} files for the input {name}; give one")
        return same[0]
    if not path.is_file():
        raise ConfigurationError(
            f"the texts of this index were in {name}, which is not here: give --texts FILE, or --no-rerank"
        )
    return path
