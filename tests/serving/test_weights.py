"""Half a download is told before vLLM starts."""

import json
from pathlib import Path

import pytest

from qwen3_vllm.serving import LaunchError
from qwen3_vllm.serving.weights import check_weights


def safetensors(path: Path, data_bytes: int = 16) -> Path:
    header = json.dumps(
        {"__metadata__": {}, "a": {"dtype": "F32", "shape": [4], "data_offsets": [0, data_bytes]}}
    ).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(data_bytes))
    return path


def index(folder: Path, *names: str) -> None:
    weight_map = {f"w{number}": name for number, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_whole_weights_pass(tmp_path: Path) -> None:
    safetensors(tmp_path / "one.safetensors")
    safetensors(tmp_path / "two.safetensors")
    index(tmp_path, "one.safetensors", "two.safetensors")
    check_weights(tmp_path)


def test_older_formats_pass(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").touch()
    check_weights(tmp_path)


def test_no_weights_at_all(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="no weights"):
        check_weights(tmp_path)


@pytest.mark.parametrize("kept", [0, 5, 20, -1])
def test_a_file_cut_short(tmp_path: Path, kept: int) -> None:
    file = safetensors(tmp_path / "model.safetensors")
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(LaunchError, match=r"model\.safetensors is damaged"):
        check_weights(tmp_path)


def test_a_page_of_html_in_place_of_weights(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("<!DOCTYPE html><html>not found</html>")
    with pytest.raises(LaunchError, match="damaged"):
        check_weights(tmp_path)


def test_a_shard_that_is_missing(tmp_path: Path) -> None:
    safetensors(tmp_path / "one.safetensors")
    index(tmp_path, "one.safetensors", "two.safetensors")
    with pytest.raises(LaunchError, match=r"lacks two\.safetensors"):
        check_weights(tmp_path)


def test_a_damaged_index(tmp_path: Path) -> None:
    safetensors(tmp_path / "one.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text("{")
    with pytest.raises(LaunchError, match=r"index\.json is damaged"):
        check_weights(tmp_path)
