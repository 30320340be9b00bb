"""Relevance judgements: reading them, and checking them against corpus and queries."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from qwen3_vllm._core.plurals import counted
from qwen3_vllm._core.text_files.sources import ending_of
from qwen3_vllm.errors import InputError
from qwen3_vllm.evaluation.data.dataset import Judgements
from qwen3_vllm.evaluation.data.records import id_of, lines_of, read_records

_YES_NO = {"yes": 1, "y": 1, "no": 0, "n": 0}
_NAMED = 3


class Judged(NamedTuple):
    """Judgements, and what was odd about them."""

    judgements: Judgements
    warnings: list[str]


class _Line(NamedTuple):
    where: str
    query: str
    document: str
    relevance: int


def read_judgements(path: Path) -> Judged:
    """Read judgements: BEIR's TSV, TREC's four columns, or a labelling sheet (CSV).

    Raises:
        InputError: A line cannot be read, or one pair is judged twice, differently; says which.
    """
    unlabelled = 0
    if ending_of(path) == ".csv":
        rows = list(_sheet_lines(path))
        lines = [row for row in rows if row is not None]
        unlabelled = len(rows) - len(lines)
    else:
        lines = list(_table_lines(path))
    judgements: dict[str, dict[str, int]] = {}
    repeated = 0
    for line in lines:
        of_query = judgements.setdefault(line.query, {})
        before = of_query.setdefault(line.document, line.relevance)
        if before != line.relevance:
            raise InputError(
                f"{line.where}: query {line.query!r} and document {line.document!r} were judged {before} "
                f"before, and {line.relevance} here"
            )
        repeated += 1
    repeated -= sum(map(len, judgements.values()))
    warnings = []
    if repeated:
        warnings.append(f"{counted(repeated, 'repeated judgement')} in {path}: each judgement counts once")
    if unlabelled:
        warnings.append(
            f"{counted(unlabelled, 'row')} of {path} without a label: counted as not relevant; queries "
            "without any label are left out"
        )
    if not judgements:
        raise InputError(f"{path} holds no judgement")
    return Judged(judgements, warnings)


def check_judgements(
    judgements: Judgements, document_ids: Collection[str], queries: Mapping[str, str]
) -> Judged:
    """Keep the judgements of queries that can be measured.

    Left out, with a warning that counts them: queries without text, and queries without a relevant document,
    which score 0 whatever is done. Kept, with a warning: relevant documents that the corpus lacks; they count
    as never found.

    Raises:
        InputError: Nothing is left, or no judged document is in the corpus.
    """
    known = set(document_ids)
    judged = {document for of_query in judgements.values() for document in of_query}
    _check_overlap("document is in the corpus", judged, "corpus", known)
    _check_overlap("query is among the queries", judgements, "queries", queries)
    unknown = [query for query in judgements if query not in queries]
    relevant = {
        query: {document for document, relevance in of_query.items() if relevance > 0}
        for query, of_query in judgements.items()
    }
    missing = set().union(*relevant.values()) - known
    hopeless = {query for query in judgements if query in queries and not relevant[query]}
    kept = {
        query: dict(judgements[query]) for query in queries if query in judgements and query not in hopeless
    }
    if not kept:
        raise InputError("no query has a relevant document")
    warnings = [
        *_counted("left out", unknown, "judged query", " without a text"),
        *_counted("not in the corpus, and counted as not found", missing, "relevant document"),
        *_counted("left out", hopeless, "query", " without a relevant document"),
    ]
    return Judged(kept, warnings)


def _check_overlap(what: str, judged: Collection[str], place: str, there: Collection[str]) -> None:
    if not set(judged) & set(there):
        raise InputError(
            f"no judged {what} (judged: {_few(judged)}; {place}: {_few(there)}): "
            "are they from the same data set?"
        )


def _counted(before: str, names: Collection[str], noun: str, after: str = "") -> Iterator[str]:
    if names:
        yield f"{before}: {counted(len(names), noun)}{after}: {_few(names)}"


def _table_lines(path: Path) -> Iterator[_Line]:
    with lines_of(path) as lines:
        for content in lines:
            line = content.decode().rstrip("\r\n")
            if not line.strip():
                continue
            where = f"{path}, line {lines.number}"
            fields = line.split("\t") if "\t" in line else line.split()
            if len(fields) == 4:  # TREC: query, iteration, document, relevance
                del fields[1]
            if len(fields) != 3:
                raise InputError(f"{where}: has {len(fields)} columns; use query id, document id, relevance")
            relevance = _integer(fields[2])
            if relevance is None and lines.number == 1:
                continue  # the header
            if relevance is None:
                raise InputError(f"{where}: relevance must be an integer, not {fields[2]!r}")
            yield _Line(where, fields[0], fields[1], relevance)


def _sheet_lines(path: Path) -> Iterator[_Line | None]:
    for where, record in read_records(path):
        relevance = relevance_of(record.get("relevant"), where)
        query, document = id_of(record, ("query_id",), where), id_of(record, ("document_id",), where)
        yield None if relevance is None else _Line(where, query, document, relevance)


def relevance_of(value: object, where: str) -> int | None:
    """Read a label: an integer, yes or no; None where the cell is still empty.

    Raises:
        InputError: It is something else.
    """
    label = str(value if value is not None else "").strip().lower()
    if not label:
        return None
    relevance = _YES_NO.get(label, _integer(label))
    if relevance is None:
        raise InputError(
            f"{where}: 'relevant' must be yes, no or an integer such as 0, 1 or 2, not {label!r}"
        )
    return relevance


def _integer(text: str) -> int | None:
    """An integer, also where a spreadsheet wrote it as 1.0."""
    try:
        number = float(text)
        return int(number) if number.is_integer() else None
    except (ValueError, OverflowError):
        return None


def _few(names: Collection[str]) -> str:
    shown = ", ".join(map(repr, sorted(names)[:_NAMED]))
    return f"{shown}, …" if len(names) > _NAMED else shown
