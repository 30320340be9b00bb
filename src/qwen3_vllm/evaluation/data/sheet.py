"""A sheet to label: what the set-ups found for each question, in an order that gives nothing away."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qwen3_vllm.errors import InputError

COLUMNS = ("query_id", "query", "document_id", "document", "relevant")
# Spreadsheets run a cell that begins so as a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_sheet(
    path: Path,
    query_ids: Sequence[str],
    queries: Sequence[str],
    document_ids: Sequence[str],
    texts: Sequence[str],
    pool: Sequence[NDArray[np.int64]],
    seed: int,
) -> int:
    """Write a row for each pair, with an empty label; returns how many.

    Queries come in random order, so that the first ones labelled are a fair sample; so do the documents of
    each. Nothing tells which set-up found a document, or at which place.

    Raises:
        InputError: The file is there: it may hold labels.
    """
    rng = np.random.default_rng(seed)
    rows = 0
    try:
        with path.open("x", encoding="utf-8-sig", newline="") as file:  # Excel reads UTF-8 by its mark only
            sheet = csv.writer(file)
            sheet.writerow(COLUMNS)
            for row in rng.permutation(len(queries)):
                for place in rng.permutation(pool[row]):
                    sheet.writerow(
                        [query_ids[row], _plain(queries[row]), document_ids[place], _plain(texts[place]), ""]
                    )
                    rows += 1
    except FileExistsError:
        raise InputError(f"{path} exists already, and may hold labels: give another name") from None
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    return rows


def _plain(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text
