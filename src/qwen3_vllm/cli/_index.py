"""Search in a folder that `qwen3-vllm embed` wrote: nearest vectors, and the texts they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qwen3_vllm._core.embedding.client import EmbeddingClient
from qwen3_vllm._core.text_files.sources import Source, as_text, find_sources, path_bytes
from qwen3_vllm._core.vllm_api.embeddings import Vectors
from qwen3_vllm.bulk.manifest import PROBE, Manifest, check_probe
from qwen3_vllm.bulk.parts import Fields, Scan, scan
from qwen3_vllm.bulk.rows import Reader
from qwen3_vllm.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Hit:
    """A document near a query. `part`: the name of the part of the input that it comes from."""

    id: str
    cosine: float
    part: str


class Index:
    """A finished folder, or one that is still being written: whole parts only are searched."""

    def __init__(self, folder: Path) -> None:
        manifest = folder / "_manifest.json"
        if not manifest.is_file():
            raise ConfigurationError(
                f"{folder} is not an output of `qwen3-vllm embed`: it has no _manifest.json"
            )
        self._folder = folder
        self.manifest = Manifest.from_json(manifest.read_bytes())

    @cached_property
    def paths(self) -> list[Path]:
        """Its Parquet files, in order.

        Raises:
            ConfigurationError: There is none yet.
        """
        paths = sorted(self._folder.glob("part-*.parquet"))
        if not paths:
            raise ConfigurationError(f"{self._folder} has no finished part yet: let `qwen3-vllm embed` end")
        return paths

    @property
    def is_complete(self) -> bool:
        rows = int(self.manifest.options["part_rows"])
        return len(self.paths) == sum(-(-each.rows // rows) for each in self.manifest.inputs)

    def embed(self, query: str, base_url: str | None, instruction: str | None) -> Vectors:
        """Embed a query by the model that the index was made with.

        Raises:
            WrongServerError: The server has another one.
        """
        client = EmbeddingClient(
            base_url=base_url,  # None means the default
            model=self.manifest.options["model"],
            dimensions=self.manifest.options["dimensions"],
            instruction=instruction,
        )
        check_probe(self.manifest.probe, client.embed_documents([PROBE])[0], client.settings.base_url)
        vector: Vectors = client.embed_queries([query])[0]
        return vector

    def nearest(self, query: Vectors, count: int) -> list[Hit]:
        """Find the `count` documents of highest cosine, best first, in memory that does not grow.

        Raises:
            ConfigurationError: A part is damaged.
        """
        best: list[Hit] = []
        for path in self.paths:
            try:
                for found in _nearest_in(path, query, count):
                    best = sorted([*best, *found], key=lambda hit: -hit.cosine)[:count]
            except (OSError, pa.ArrowException, ValueError, KeyError) as error:
                raise ConfigurationError(
                    f"{path} is damaged: remove it, and run `qwen3-vllm embed` again as before ({error})"
                ) from error
        return best

    def texts(self, hits: Sequence[Hit], given: Sequence[Path]) -> tuple[list[str], list[str]]:
        """Read the texts of hits from the files that were embedded.

        Args:
            given: Where these files lie now; none: where they lay.

        Returns:
            The texts, in the order of the hits; and the names of files that have changed since.

        Raises:
            ConfigurationError: A file is not there, or holds an id no more.
        """
        fields = Fields(self.manifest.options["text_field"], self.manifest.options["id_field"])
        found: dict[tuple[str, str], str] = {}
        changed = []
        for number in sorted({int(hit.part.partition("-")[0]) for hit in hits}):
            source = self._source(number, given)
            scanned = scan(number, source, self.manifest.options["part_rows"], fields)
            if scanned.sha256 != self.manifest.inputs[number].sha256:
                changed.append(str(source.path))
            found |= dict(_texts_in(source, scanned, fields, hits))
        missing = next((hit for hit in hits if (hit.part, hit.id) not in found), None)
        if missing is not None:
            raise ConfigurationError(
                f"{missing.id!r} is in the index, but no more in the file that was embedded: "
                "give the file as it was by --texts, or --no-rerank"
            )
        return [found[hit.part, hit.id] for hit in hits], changed

    def _source(self, number: int, given: Sequence[Path]) -> Source:
        """The input of this number, where it lies now, under the name that is in its ids."""
        inputs = self.manifest.inputs
        name = inputs[number].name
        path = Path(name)
        if given:
            same = (
                given
                if len(inputs) == len(given) == 1
                else [p for p in given if as_text(p.name) == path.name]
            )
            if len(same) != 1:
                raise ConfigurationError(f"--texts gives {len(same)} files for the input {name}; want one")
            path = same[0]
        elif not path.is_file():
            raise ConfigurationError(
                f"the texts of this index were in {name}, which is not here: say --texts FILE, or --no-rerank"
            )
        encoding = self.manifest.options.get("encoding")
        (source,) = find_sources([path], inputs[number].format, encoding)  # type: ignore[arg-type]  # checked there
        return replace(source, name=name)


def _nearest_in(path: Path, query: Vectors, count: int) -> Iterator[list[Hit]]:
    """The nearest of each batch of a part."""
    part = path.stem.removeprefix("part-")
    with pa.OSFile(path_bytes(path)) as file:
        for batch in pq.ParquetFile(file).iter_batches(columns=["id", "embedding"]):
            vectors = batch.column("embedding").flatten().to_numpy().reshape(batch.num_rows, -1)
            cosines = vectors @ query
            places = np.argsort(-cosines, kind="stable")[:count]
            ids = batch.column("id").take(places).to_pylist()
            found = zip(ids, cosines[places].tolist(), strict=True)
            yield [Hit(id, cosine, part) for id, cosine in found]


def _texts_in(
    source: Source, scanned: Scan, fields: Fields, hits: Sequence[Hit]
) -> Iterator[tuple[tuple[str, str], str]]:
    reader = Reader(source, fields)
    for part in scanned.parts:
        wanted = {hit.id for hit in hits if hit.part == part.name}
        for row in reader.rows(part) if wanted else ():
            if row is not None and row.id in wanted and isinstance(row.text, str):
                yield (part.name, row.id), row.text
