"""The documents of an input, part by part."""

from collections.abc import Iterator
from itertools import islice

from qwen3_vllm._core.text_files.lines import Lines
from qwen3_vllm._core.text_files.records import has_header, read_header, records
from qwen3_vllm._core.text_files.rows import Row, RowReader
from qwen3_vllm._core.text_files.sources import Source, state_of
from qwen3_vllm._core.text_files.utf8 import open_source
from qwen3_vllm.bulk.parquet import Value, find_column, open_parquet, read_values
from qwen3_vllm.bulk.parts import Fields, Part
from qwen3_vllm.bulk.scan import UNREADABLE
from qwen3_vllm.errors import InputError


class Reader:
    """Reads parts of one source; a part that follows the one before, without opening the file again.

    In gzip, any other part costs unpacking what is before it.
    """

    def __init__(self, source: Source, fields: Fields) -> None:
        self._source = source
        self._fields = fields
        self._id = fields.id or "id"
        self._documents = RowReader(
            source.name, source.format, text_field=fields.text, id_field=fields.id, encoding=source.encoding
        )
        self._next = 0
        self._rows: Iterator[Row | None] = iter(())

    def rows(self, part: Part) -> Iterator[Row | None]:
        """Yield one item for each row number of the part; None where there is no document.

        Raises:
            InputError: The source has changed, or become unreadable.
        """
        if self._next != part.first:
            self._rows = self._rows_from(part)
        read = 0
        self._next = 0
        try:
            for row in islice(self._rows, part.rows):
                read += 1
                yield row
        except UNREADABLE as error:
            raise InputError(f"{self._source.name} cannot be read: {error}") from error
        self._next = part.first + read
        if self._next <= part.last:
            raise self._changed()

    def check_unchanged(self) -> None:
        """Make sure that what was read so far is what was scanned.

        Raises:
            InputError: It may not be.
        """
        try:
            is_same = self._source.state in (None, state_of(self._source.path))
        except OSError:
            is_same = False
        if not is_same:
            raise self._changed()

    def _changed(self) -> InputError:
        return InputError(
            f"{self._source.name} was changed while it was read: put it back as it was, or give a new folder"
        )

    def _rows_from(self, part: Part) -> Iterator[Row | None]:
        if self._source.format == "parquet":
            yield from map(self._parquet_row, self._parquet_values(part.first))
            return
        columns: list[str] = []
        if has_header(self._source.format):
            with open_source(self._source) as file:
                columns = read_header(records(self._source.format, Lines(file)))
        with open_source(self._source, part.offset) as file:
            for number, record in enumerate(records(self._source.format, Lines(file)), part.first):
                yield self._documents.read(number, record, columns)

    def _parquet_values(self, first: int) -> Iterator[Value]:
        with open_parquet(self._source) as file:
            schema = file.schema_arrow
        text = find_column(self._source, schema, self._fields.text)
        if text is None:
            raise self._changed()
        yield from read_values(self._source, text, find_column(self._source, schema, self._id), first)

    def _parquet_row(self, value: Value) -> Row:
        if value.problem is not None:
            return self._documents.without_text(value.number, value.problem)
        return self._documents.document(value.number, value.id, value.text)
