"""What an output was made from and how, equal for every run that writes to it; and what was cut. Pure."""

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from typing import Any

import numpy as np
import orjson

from qwen3_vllm._core.embedding.same_model import PROBE, is_same_model
from qwen3_vllm._core.embedding.truncation import Truncation
from qwen3_vllm._core.usage import Usage
from qwen3_vllm._core.vllm_api.embeddings import Vectors
from qwen3_vllm.errors import ConfigurationError, WrongServerError

MANIFEST = "_manifest.json"
# What the fields of a `Truncation` are called where they stand beside others.
_CUT = ("truncated", "perhaps_truncated", "longest_truncated", "truncated_to")


def named(truncation: Truncation) -> dict[str, int]:
    """The fields of a truncation, by names that say what they are of."""
    return dict(zip(_CUT, astuple(truncation), strict=True))


@dataclass(frozen=True, slots=True)
class Input:
    """An input as it was. `sha256` is of its content, unpacked."""

    name: str
    format: str
    rows: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """`options` hold whatever changes what is written; `probe` is the vector of PROBE.

    Only these change from run to run: `truncation`, documents in the output that were cut to the server's
    context, and `usage`, what the output cost.
    """

    options: Mapping[str, Any]
    inputs: Sequence[Input]
    probe: Vectors
    truncation: Truncation = field(default_factory=Truncation)
    usage: Usage = field(default_factory=Usage)

    def to_json(self) -> bytes:
        # Vectors in the output are L2-normalised; documents carry no instruction.
        content = {
            "format": 1,
            "normalized": True,
            "instruction": None,
            "usage": asdict(self.usage),
            **named(self.truncation),
            "options": dict(self.options),
            "inputs": [asdict(each) for each in self.inputs],
            "probe": {"text": PROBE, "float32": b64encode(self.probe.astype("<f4").tobytes()).decode()},
        }
        return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    @classmethod
    def from_json(cls, data: bytes) -> "Manifest":
        """Read a manifest.

        Raises:
            ConfigurationError: It is damaged, or of another version of this package.
        """
        try:
            content = orjson.loads(data)
            probe = np.frombuffer(b64decode(content["probe"]["float32"]), "<f4")
            truncation = Truncation(*(content.get(name, 0) for name in _CUT))
            inputs = [Input(**each) for each in content["inputs"]]
            usage = Usage(**content.get("usage", {}))
            return cls(dict(content["options"]), inputs, probe, truncation, usage)
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"{MANIFEST} is damaged, or newer than this ({error!r}): put it back as it was, "
                "or give a new folder"
            ) from error

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Raise ConfigurationError where an option given now differs from what it was."""
        different = [name for name, value in options.items() if self.options.get(name) != value]
        if different:
            before = ", ".join(f"{name}={self.options.get(name)!r}" for name in different)
            now = ", ".join(f"{name}={options[name]!r}" for name in different)
            raise ConfigurationError(
                f"the output was begun with {before}, and this run has {now}: one output holds vectors of "
                "one kind. Give a new folder, or the options it was begun with"
            )

    def check_inputs(self, inputs: Sequence[Input]) -> None:
        """Raise ConfigurationError where inputs are not what they were."""
        before = {each.name: each for each in self.inputs}
        now = {each.name: each for each in inputs}
        changes = [
            *(f"{name!r} is new" for name in now if name not in before),
            *(f"{name!r} is missing" for name in before if name not in now),
            *(f"{name!r} has changed" for name in now if name in before and now[name] != before[name]),
        ]
        if not changes and list(before) != list(now):
            changes = ["they come in another order"]
        if changes:
            raise ConfigurationError(
                f"the inputs are not those that the output was begun with: {'; '.join(changes)}. "
                "Give a new folder, or the inputs as they were"
            )


def check_probe(before: Vectors, now: Vectors, server: str) -> None:
    """Raise WrongServerError unless two vectors of PROBE come from one model."""
    if not is_same_model(before, now):
        raise WrongServerError(
            f"{server} gives other vectors than it gave when the output was begun: it is another model, "
            "whatever its name. Serve the first one again, or give a new folder"
        )
