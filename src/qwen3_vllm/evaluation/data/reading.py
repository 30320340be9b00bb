"""A user's data in any layout: BEIR's folder, a file of questions and passages, or embedded documents."""

from dataclasses import replace
from pathlib import Path

from qwen3_vllm._core.plurals import counted
from qwen3_vllm.bulk.manifest import MANIFEST
from qwen3_vllm.errors import InputError
from qwen3_vllm.evaluation.data.dataset import Dataset
from qwen3_vllm.evaluation.data.embed_folder import read_embedded
from qwen3_vllm.evaluation.data.judgements import check_judgements, read_judgements, relevance_of
from qwen3_vllm.evaluation.data.records import find, id_of, read_records, text_of

_IDS = ("_id", "id")
_SPLIT = "test"


def read_dataset(
    data: str | Path,
    *,
    queries: str | Path | None = None,
    judgements: str | Path | None = None,
    judged: bool = True,
    texts_needed: bool = True,
) -> Dataset:
    """Read a corpus, its queries, and judgements if there are any.

    Args:
        data: A folder in BEIR's layout (corpus.jsonl, queries.jsonl, qrels/test.tsv); a CSV, TSV or JSONL
            file with columns `question` and `passage`; or a folder made by `qwen3-vllm embed`.
        queries: File of queries; None: the folder's own.
        judgements: File of judgements, such as qrels/dev.tsv or a labelled sheet; None: the folder's own.
        judged: False where judgements do not matter: then all queries are kept.
        texts_needed: False where only vectors of embedded documents are searched: their files may be gone.

    Raises:
        InputError: Something cannot be read, or does not fit together; says where and why.
        ConfigurationError: A folder of embedded documents is not complete.
    """
    path = Path(data)
    if path.is_file():
        dataset = _read_pairs(path)
        if queries is not None:
            raise InputError(f"{path} holds the questions: leave out the file of queries")
    elif (path / MANIFEST).is_file():
        embedded = read_embedded(path)
        texts = embedded.read_texts() if texts_needed else None
        if queries is None:
            raise InputError(f"{path} holds documents only: give a file of queries, and one of judgements")
        dataset = Dataset(embedded.ids, texts, _read_texts(Path(queries), unique="query"), {}, embedded)
    elif path.is_dir():
        dataset = _read_beir(path, Path(queries) if queries is not None else None)
    else:
        raise InputError(f"{path} is not there")
    if not judged:
        return checked(replace(dataset, judgements={}))
    file = Path(judgements) if judgements is not None else _own_judgements(path)
    if file is not None:
        found = read_judgements(file)
        warnings = [*dataset.warnings, *found.warnings]
        dataset = replace(dataset, judgements=found.judgements, warnings=warnings)
    return checked(dataset)


def checked(dataset: Dataset) -> Dataset:
    """Keep what can be measured, and add warnings about the rest."""
    asked = {id: query for id, query in dataset.queries.items() if query.strip()}
    if len(asked) < len(dataset.queries):
        empty = f"left out: {counted(len(dataset.queries) - len(asked), 'empty query')}"
        dataset = replace(dataset, queries=asked, warnings=[*dataset.warnings, empty])
    if not dataset.judgements:
        return dataset
    judged = check_judgements(dataset.judgements, dataset.document_ids, dataset.queries)
    return replace(
        dataset,
        queries={query: dataset.queries[query] for query in judged.judgements},
        judgements=judged.judgements,
        warnings=[*dataset.warnings, *judged.warnings],
    )


def _read_beir(folder: Path, queries: Path | None) -> Dataset:
    corpus = find(folder, "corpus")
    if corpus is None:
        raise InputError(
            f"{folder} holds neither corpus.jsonl (BEIR's layout) nor {MANIFEST} (`qwen3-vllm embed`)"
        )
    asked = queries or find(folder, "queries")
    if asked is None:
        raise InputError(f"{folder} has no queries.jsonl: give a file of queries")
    documents = _read_texts(corpus, unique="document")
    return Dataset(list(documents), list(documents.values()), _read_texts(asked, unique="query"), {})


def _own_judgements(folder: Path) -> Path | None:
    paths = (folder / "qrels" / f"{_SPLIT}.tsv", folder / "qrels.tsv", folder / "qrels.txt")
    found = next((path for path in paths if path.is_file()), None)
    others = sorted((folder / "qrels").glob("*.tsv"))
    if found is None and others:
        raise InputError(
            f"{folder}/qrels has no {_SPLIT}.tsv, but {others[0].name}: give the file of judgements"
        )
    return found


def _read_texts(path: Path, *, unique: str) -> dict[str, str]:
    """Texts by id; a title, where there is one, comes first, as BEIR has it."""
    texts: dict[str, str] = {}
    for where, record in read_records(path):
        id = id_of(record, _IDS, where)
        if id in texts:
            raise InputError(f"{where}: the {unique} id {id!r} occurs twice in the file")
        text = text_of(record, "text", where)
        title = record.get("title")
        texts[id] = f"{text_of(record, 'title', where)} {text}".strip() if title else text
    return texts


def _read_pairs(path: Path) -> Dataset:
    """Read questions, each with a passage that answers it, or with `relevant` one that may not."""
    queries: dict[str, str] = {}
    documents: dict[str, str] = {}
    judgements: dict[str, dict[str, int]] = {}
    repeated = 0
    for where, record in read_records(path):
        question, passage = text_of(record, "question", where), text_of(record, "passage", where)
        if not question.strip() or not passage.strip():
            raise InputError(f"{where}: the {'passage' if question.strip() else 'question'} is empty")
        query = queries.setdefault(question, f"q{len(queries) + 1}")
        document = documents.setdefault(passage, f"p{len(documents) + 1}")
        relevance = relevance_of(record["relevant"], where) if "relevant" in record else 1
        if relevance is None:
            continue
        of_query = judgements.setdefault(query, {})
        if of_query.get(document, relevance) != relevance:
            raise InputError(f"{where}: this question and passage were judged {of_query[document]} before")
        repeated += document in of_query
        of_query[document] = relevance
    if not queries:
        raise InputError(f"{path} holds no question")
    warnings = [f"{counted(repeated, 'repeated pair')} in {path}: each pair counts once"] if repeated else []
    return Dataset(
        list(documents.values()),
        list(documents),
        {id: question for question, id in queries.items()},
        judgements,
        warnings=warnings,
    )
