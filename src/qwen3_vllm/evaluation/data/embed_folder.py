"""Documents from a folder made by `qwen3-vllm embed`: their ids, vectors, and texts where they still lie."""

from dataclasses import dataclass
from pathlib import Path

from qwen3_vllm.bulk.output import Output
from qwen3_vllm.errors import ConfigurationError, InputError


@dataclass(frozen=True)
class EmbeddedDocuments:
    """The documents of a finished folder, and their unique ids in order."""

    output: Output
    ids: list[str]

    def read_texts(self) -> list[str]:
        """Read the texts, in the order of the ids, from the files that were embedded.

        Raises:
            InputError: A file is gone, or has changed since.
        """
        folder = self.output.folder
        found: dict[str, str] = {}
        for number, given in enumerate(self.output.manifest.inputs):
            path = Path(given.name)
            if not path.is_file():
                raise InputError(f"the texts of {folder} were in {given.name}, which is not here any more")
            texts = self.output.texts(number, path)
            if texts.changed:
                raise InputError(f"{given.name} has changed since it was embedded into {folder}")
            found |= {each.id: each.text for each in texts}
        try:
            return [found[id] for id in self.ids]
        except KeyError as error:
            raise InputError(f"the files embedded into {folder} have no document {error}") from error


def read_embedded(folder: Path) -> EmbeddedDocuments:
    """Open a folder made by `qwen3-vllm embed`.

    Raises:
        ConfigurationError: The run that made it has not ended.
        InputError: One id stands for several documents.
    """
    output = Output(folder)
    if not output.is_complete:
        raise ConfigurationError(f"{folder} is not complete: run `qwen3-vllm embed` again, until it ends")
    ids = output.ids()
    if len(set(ids)) != len(ids):
        seen: set[str] = set()
        twice = next(id for id in ids if id in seen or seen.add(id))  # type: ignore[func-returns-value]
        raise InputError(f"{folder} holds several documents of the id {twice!r}; judgements need unique ids")
    return EmbeddedDocuments(output, ids)
