"""`embed_files`: from a call to a finished folder, whatever happened before."""

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field

from qwen3_vllm._core.client import address_of, transport_of
from qwen3_vllm._core.embedding.client import EmbeddingClient, pinned, server_of
from qwen3_vllm._core.embedding.same_model import PROBE
from qwen3_vllm._core.embedding.truncation import Truncation
from qwen3_vllm._core.http.flow import send_one
from qwen3_vllm._core.options import Options
from qwen3_vllm._core.text_files.sources import Format, Source, find_sources, known_encoding, spool_stdin
from qwen3_vllm._core.usage import Usage
from qwen3_vllm._core.vllm_api.calls import tokenize
from qwen3_vllm.bulk.engine import Job, Step, embed_parts, step_before
from qwen3_vllm.bulk.folder import STDIN_COPY, Folder, locked
from qwen3_vllm.bulk.manifest import Input, Manifest, check_probe
from qwen3_vllm.bulk.parts import Fields, Part
from qwen3_vllm.bulk.pipeline import CHUNK_DOCUMENTS
from qwen3_vllm.bulk.progress import OnProgress, Summary, Tally
from qwen3_vllm.bulk.rows import Reader
from qwen3_vllm.bulk.scan import scan
from qwen3_vllm.errors import ConfigurationError, Qwen3VLLMError

logger = logging.getLogger(__name__)

# 64 MiB of vectors of 1,024 dimensions.
PART_ROWS = 32 * CHUNK_DOCUMENTS
_SAMPLE_CHARACTERS = 20_000

Engine = Literal["local", "ray"]


class EmbedFiles(Options):
    """Checks the arguments of `embed_files`, and names what is wrong with them."""

    model_config = ConfigDict(arbitrary_types_allowed=True, strict=True)

    inputs: Sequence[str | Path]
    out: str | Path
    client: EmbeddingClient | None
    text_field: str
    id_field: str | None
    format: Format | None
    encoding: str | None
    part_rows: int = Field(ge=1)
    engine: Engine
    workers: tuple[int, int]
    on_progress: OnProgress | None


def embed_files(
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    client: EmbeddingClient | None = None,
    text_field: str = "text",
    id_field: str | None = None,
    format: Format | None = None,
    encoding: str | None = None,
    part_rows: int = PART_ROWS,
    engine: Engine = "local",
    workers: tuple[int, int] = (1, 4),
    on_progress: OnProgress | None = None,
) -> Summary:
    """Embed the documents of files into a folder of Parquet files, from where an earlier run ended.

    Args:
        inputs: Files, globs, or `-` for standard input; see docs/bulk.md for formats and the output.
        text_field: Column of texts; `a.b` reaches into nested objects.
        id_field: Column of ids. None: "id" where there is one. Documents without get `input:row`.
        format: Of all inputs. None: by their endings.
        encoding: Of all inputs but Parquet, by its name in Python. None: UTF-8.
        part_rows: Input rows a Parquet file covers.
        engine: "ray" spreads parts over a Ray cluster, which must reach inputs, output and server.
        workers: With "ray", the fewest and the most actors.
        on_progress: Called at the start and whenever more is safe on the disk.

    Returns:
        The run's last progress. Rows in `failed` are in errors.jsonl.

    Raises:
        ConfigurationError: An input that is not there or cannot be read, an output of other inputs or
            options, or in use.
        Qwen3VLLMError: The server failed, or an input changed. What is done stays; the same call resumes
            it.
    """
    EmbedFiles(**locals())
    client = client or EmbeddingClient()
    fields = Fields(text_field, id_field)
    encoding = known_encoding(encoding)
    sources = find_sources(inputs, format, encoding)
    with locked(Path(out).absolute()) as folder:
        spooled = folder.path / STDIN_COPY
        sources = spool_stdin(sources, sys.stdin, spooled)
        scans = [scan(index, source, part_rows, fields) for index, source in enumerate(sources)]
        sources = [replace(source, state=each.state) for source, each in zip(sources, scans, strict=True)]
        parts = [part for each in scans for part in each.parts]
        options = {
            "truncate": client.settings.truncate,
            "wire_dtype": client.settings.wire_dtype,
            "text_field": text_field,
            "id_field": id_field,
            "encoding": encoding,
            "part_rows": part_rows,
        }
        inputs_now = [
            Input(source.name, source.format, each.rows, each.sha256)
            for source, each in zip(sources, scans, strict=True)
        ]
        manifest = _read_manifest(folder, client, options, inputs_now)
        folder.discard_leftovers(parts)
        tally = Tally(sum(part.rows for part in parts), _done_before(folder, parts), on_progress)
        todo = [part for part in parts if not folder.is_done(part)]
        with _saying_what_is_kept(out), _noted(folder, parts):
            if todo:
                job = _begin(client, sources, fields, folder, manifest, options, inputs_now)
                tally.start(_tokens_per_character(job, todo[0]))
                steps = embed_parts(job, todo) if engine == "local" else _on_ray(job, todo, workers)
                for step in steps:
                    tally.add(step)
        if tally.progress.truncation:
            documents = tally.progress.embedded + tally.progress.kept
            logger.warning("%s", tally.progress.truncation.of_texts(documents, "document"))
        spooled.unlink(missing_ok=True)
        return tally.progress


@contextmanager
def _saying_what_is_kept(out: str | Path) -> Iterator[None]:
    try:
        yield
    except (Qwen3VLLMError, OSError) as error:
        if not isinstance(error, ConfigurationError):
            error.add_note(f"What is done is kept in {out}: run the same again to resume it.")
        raise


@contextmanager
def _noted(folder: Folder, parts: Sequence[Part]) -> Iterator[None]:
    """Write errors.jsonl and the manifest's counts at the end, whichever it is."""
    try:
        yield
    except BaseException:
        with suppress(OSError):  # a full disk, for which the first failure was, too
            _note(folder, parts)
        raise
    _note(folder, parts)


def _note(folder: Folder, parts: Sequence[Part]) -> None:
    folder.write_errors(parts)
    data = folder.read_manifest()
    if data is not None:
        manifest = Manifest.from_json(data)
        truncation, usage = Truncation(), Usage()
        for notes in folder.notes(parts):
            truncation, usage = truncation + notes.truncation, usage + notes.usage
        noted = replace(manifest, truncation=truncation, usage=usage)
        if (noted.truncation, noted.usage) != (manifest.truncation, manifest.usage):
            folder.write_manifest(noted.to_json())


def _read_manifest(
    folder: Folder, client: EmbeddingClient, options: Mapping[str, Any], inputs: Sequence[Input]
) -> Manifest | None:
    """Read the manifest of an earlier run, if there was one, and check all that needs no server."""
    data = folder.read_manifest()
    if data is None:
        return None
    manifest = Manifest.from_json(data)
    asked = {"model": client.settings.model, "dimensions": client.settings.dimensions}
    manifest.check_options({**options, **{name: value for name, value in asked.items() if value is not None}})
    manifest.check_inputs(inputs)
    return manifest


def _done_before(folder: Folder, parts: Sequence[Part]) -> Step:
    steps = (step_before(part.rows, folder.count(part)) for part in parts if folder.is_done(part))
    return reduce(Step.then, steps, Step())


def _begin(
    client: EmbeddingClient,
    sources: Sequence[Source],
    fields: Fields,
    folder: Folder,
    manifest: Manifest | None,
    options: Mapping[str, Any],
    inputs: Sequence[Input],
) -> Job:
    """Ask the server, and make sure that the output gets vectors of one model only."""
    model = server_of(client).model
    client = pinned(client, model)  # from now on no other model of that server will do
    (probe,) = client.embed_documents([PROBE])
    if manifest is None:
        options = {"model": model, "dimensions": len(probe), **options}
        folder.write_manifest(Manifest(options, inputs, probe).to_json())
    else:
        manifest.check_options({"model": model, "dimensions": len(probe)})
        check_probe(manifest.probe, probe, address_of(client))
    return Job(client, sources, fields, folder.path, model, probe)


def _tokens_per_character(job: Job, part: Part) -> float | None:
    """Tokens per character, counted by the server on the first documents of a part."""
    sample = ""
    for row in Reader(job.sources[part.source], job.fields).rows(part):
        if row is not None and isinstance(row.text, str):
            sample += row.text + "\n"
        if len(sample) > _SAMPLE_CHARACTERS:
            break
    if not sample:
        return None
    flow = send_one(tokenize(job.model, sample[:_SAMPLE_CHARACTERS]))
    try:
        tokens = transport_of(job.client).run(flow)
    except Qwen3VLLMError:
        return None  # a proxy, or a server, without /tokenize: then there are no tokens to show
    return len(tokens) / min(len(sample), _SAMPLE_CHARACTERS)


def _on_ray(job: Job, parts: Sequence[Part], workers: tuple[int, int]) -> Iterator[Step]:
    from qwen3_vllm.bulk.ray_engine import embed_parts_on_ray  # Ray takes seconds to import

    return embed_parts_on_ray(job, parts, workers)
