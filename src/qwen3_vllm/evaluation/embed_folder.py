"""Documents from a folder made by `qwen3-vllm embed`: their ids, vectors, and texts where they still lie."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from qwen3_vllm import EmbeddingClient
from qwen3_vllm._core.text_files.sources import find_sources
from qwen3_vllm._core.vllm_api.embeddings import Vectors
from qwen3_vllm.bulk.manifest import PROBE, Manifest, check_probe
from qwen3_vllm.bulk.parts import Fields, scan
from qwen3_vllm.bulk.rows import Reader
from qwen3_vllm.errors import ConfigurationError, InputError

MANIFEST = "_manifest.json"


@dataclass(frozen=True)
class EmbeddedDocuments:
    """A finished folder of embedded documents."""

    folder: Path
    manifest: Manifest
    ids: list[str]

    @property
    def dimensions(self) -> int:
        return int(self.manifest.options["dimensions"])

    def blocks(self, size: int) -> Iterator[Vectors]:
        """Yield the vectors in order, at most `size` at a time."""
        for path in _parts(self.folder):
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(size, columns=["embedding"]):
                    yield batch.column("embedding").flatten().to_numpy().reshape(batch.num_rows, -1)

    def check_server(self, client: EmbeddingClient) -> None:
        """Raise WrongServerError unless the server has the model that embedded the documents."""
        vector = client.embed_documents([PROBE])[0][: self.dimensions]
        check_probe(self.manifest.probe, vector / np.linalg.norm(vector), client.settings.base_url)

    def read_texts(self) -> list[str]:
        """Read the texts, in the order of the ids, from the files that were embedded.

        Raises:
            InputError: A file is gone, or has changed since.
        """
        options = self.manifest.options
        fields = Fields(options["text_field"], options["id_field"])
        found: dict[str, str] = {}
        for number, given in enumerate(self.manifest.inputs):
            if not Path(given.name).is_file():
                raise InputError(
                    f"the texts of {self.folder} were in {given.name}, which is not here any more"
                )
            encoding = options.get("encoding")
            (source,) = find_sources([given.name], given.format, encoding)  # type: ignore[arg-type]  # checked there
            scanned = scan(number, source, options["part_rows"], fields)
            if scanned.sha256 != given.sha256:
                raise InputError(f"{given.name} has changed since it was embedded into {self.folder}")
            reader = Reader(replace(source, name=given.name), fields)
            for part in scanned.parts:
                for row in reader.rows(part):
                    if row is not None and isinstance(row.text, str):
                        found[row.id] = row.text
        try:
            return [found[id] for id in self.ids]
        except KeyError as error:
            raise InputError(f"the files embedded into {self.folder} have no document {error}") from error


def read_embedded(folder: Path) -> EmbeddedDocuments:
    """Open a folder made by `qwen3-vllm embed`.

    Raises:
        ConfigurationError: The run that made it has not ended.
        InputError: One id stands for several documents.
    """
    manifest = Manifest.from_json((folder / MANIFEST).read_bytes())
    rows = int(manifest.options["part_rows"])
    if len(_parts(folder)) != sum(-(-each.rows // rows) for each in manifest.inputs):
        raise ConfigurationError(f"{folder} is not complete: run `qwen3-vllm embed` again, until it ends")
    ids: list[str] = []
    for path in _parts(folder):
        ids += pq.read_table(path, columns=["id"]).column("id").to_pylist()
    if len(set(ids)) != len(ids):
        seen: set[str] = set()
        twice = next(id for id in ids if id in seen or seen.add(id))  # type: ignore[func-returns-value]
        raise InputError(f"{folder} holds several documents of the id {twice!r}; judgements need unique ids")
    return EmbeddedDocuments(folder, manifest, ids)


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))
