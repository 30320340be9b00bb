"""A folder that one process at a time writes to."""

from pathlib import Path

import pytest

from qwen3_vllm.bulk.folder_lock import locked_folder
from qwen3_vllm.errors import ConfigurationError


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with (
        pytest.raises(ConfigurationError, match=r"cannot write to .*file/out: Not a directory"),
        locked_folder(tmp_path / "file" / "out"),
    ):
        pytest.fail("not reached")
