"""An output read back: its vectors, and the texts that they stand for where these still lie."""

from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qwen3_vllm._core.client import address_of
from qwen3_vllm._core.embedding.client import EmbeddingClient
from qwen3_vllm._core.embedding.same_model import PROBE
from qwen3_vllm._core.text_files.sources import find_sources, path_bytes
from qwen3_vllm._core.vllm_api.embeddings import Vectors
from qwen3_vllm.bulk.manifest import MANIFEST, Manifest, check_probe
from qwen3_vllm.bulk.parts import Fields, Part
from qwen3_vllm.bulk.rows import Reader
from qwen3_vllm.bulk.scan import scan
from qwen3_vllm.errors import ConfigurationError


class Embedded(NamedTuple):
    """Some documents of one part of the output: ids in Arrow, and their vectors in the same order."""

    part: str
    ids: pa.Array
    vectors: Vectors


class Text(NamedTuple):
    """A document of an input."""

    part: str
    id: str
    text: str


class Output:
    """A finished folder, or one that is still being written: whole parts only are read."""

    def __init__(self, folder: Path) -> None:
        """Open a folder.

        Raises:
            ConfigurationError: It is not an output, or its manifest is damaged.
        """
        manifest = folder / MANIFEST
        if not manifest.is_file():
            raise ConfigurationError(f"{folder} is not an output of `qwen3-vllm embed`: it has no {MANIFEST}")
        self.folder = folder
        self.manifest = Manifest.from_json(manifest.read_bytes())

    @property
    def dimensions(self) -> int:
        return int(self.manifest.options["dimensions"])

    @cached_property
    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob("part-*.parquet"))

    @property
    def is_empty(self) -> bool:
        """Whether no part is finished yet."""
        return not self._parts

    @property
    def is_complete(self) -> bool:
        rows = int(self.manifest.options["part_rows"])
        return len(self._parts) == sum(-(-each.rows // rows) for each in self.manifest.inputs)

    def ids(self) -> list[str]:
        """Read the ids of all documents, in order.

        Raises:
            ConfigurationError: A part is damaged.
        """
        return [id for _, batch in self._batches(["id"]) for id in batch.column("id").to_pylist()]

    def embedded(self, size: int = 65_536) -> Iterator[Embedded]:
        """Yield the documents in order, at most `size` at a time.

        Raises:
            ConfigurationError: A part is damaged.
        """
        for part, batch in self._batches(["id", "embedding"], size):
            vectors = batch.column("embedding").flatten().to_numpy().reshape(batch.num_rows, self.dimensions)
            yield Embedded(part, batch.column("id"), vectors)

    def _batches(self, columns: list[str], size: int = 65_536) -> Iterator[tuple[str, pa.RecordBatch]]:
        for path in self._parts:
            part = path.stem.removeprefix("part-")
            try:
                with pa.OSFile(path_bytes(path)) as file:
                    for batch in pq.ParquetFile(file).iter_batches(size, columns=columns):
                        yield part, batch
            except (OSError, pa.ArrowException, ValueError, KeyError) as error:
                raise ConfigurationError(
                    f"{path} is damaged: remove it, and run `qwen3-vllm embed` again as before ({error})"
                ) from error

    def check_server(self, client: EmbeddingClient) -> None:
        """Raise WrongServerError unless the server has the model that embedded the documents."""
        vector = client.embed_documents([PROBE])[0][: self.dimensions]
        check_probe(self.manifest.probe, vector / np.linalg.norm(vector), address_of(client))

    def texts(self, number: int, path: Path, parts: Collection[str] | None = None) -> "Texts":
        """Open the input of a number, which lies at `path` now.

        Args:
            parts: To read of it; None for all.

        Raises:
            ConfigurationError: It cannot be read.
        """
        options, given = self.manifest.options, self.manifest.inputs[number]
        fields = Fields(options["text_field"], options["id_field"])
        (source,) = find_sources([path], given.format, options.get("encoding"))  # type: ignore[arg-type]  # checked there
        source = replace(source, name=given.name)  # which is in the ids
        scanned = scan(number, source, options["part_rows"], fields)
        wanted = [part for part in scanned.parts if parts is None or part.name in parts]
        return Texts(Reader(source, fields), wanted, changed=scanned.sha256 != given.sha256)


class Texts:
    """The texts of one input as it lies now. `changed`: it is not what was embedded."""

    def __init__(self, reader: Reader, parts: list[Part], *, changed: bool) -> None:
        self._reader = reader
        self._parts = parts
        self.changed = changed

    def __iter__(self) -> Iterator[Text]:
        for part in self._parts:
            for row in self._reader.rows(part):
                if row is not None and isinstance(row.text, str):
                    yield Text(part.name, row.id, row.text)
