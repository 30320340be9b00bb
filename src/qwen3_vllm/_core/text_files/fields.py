"""Fields of JSON objects by their names, where dots reach into nested objects. Pure."""

from collections.abc import Mapping
from typing import Any


def reach(record: Mapping[str, Any], name: str) -> Any:
    """Return the value of a field: `a.b` is the key "a.b", or else the field `b` of the object `a`.

    Raises:
        KeyError: There is no such field.
    """
    if name in record:
        return record[name]
    place = name.find(".")
    while place >= 0:
        inner = record.get(name[:place])
        if isinstance(inner, Mapping):
            try:
                return reach(inner, name[place + 1 :])
            except KeyError:
                pass
        place = name.find(".", place + 1)
    raise KeyError(name)
