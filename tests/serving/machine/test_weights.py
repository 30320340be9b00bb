"""Half a download is told before vLLM starts."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwen3_vllm.serving import LaunchError
from qwen3_vllm.serving.machine.weights import check_tokenizer, check_weights


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


@pytest.mark.parametrize(
    "content",
    [
        *("[]", "null", "3", '"weight_map"', "{}", '{"weight_map": null}', '{"weight_map": ["a"]}'),
        *('{"weight_map": {"a": 1}}', '{"weight_map": {"a": ["x"]}}', "[" * 100_000, "\xff"),
    ],
)
def test_an_index_of_another_shape(tmp_path: Path, content: str) -> None:
    safetensors(tmp_path / "one.safetensors")
    (tmp_path / "model.safetensors.index.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(LaunchError, match=r"index\.json is damaged"):
        check_weights(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model.safetensors.index.json"])
@pytest.mark.parametrize("what", ["dangling link", "loop", "folder", "pipe"])
def test_what_is_not_a_file(tmp_path: Path, name: str, what: str) -> None:
    safetensors(tmp_path / "one.safetensors")
    match what:
        case "dangling link":
            (tmp_path / name).symlink_to("../blobs/gone")
        case "loop":
            (tmp_path / name).symlink_to(name)
        case "folder":
            (tmp_path / name).mkdir()
        case "pipe":
            os.mkfifo(tmp_path / name)
    with pytest.raises(LaunchError, match=f"{name} is .*download the model again"):
        check_weights(tmp_path)


@pytest.mark.parametrize(
    "offsets",
    [
        [[0, 4], [8, 16]],
        [[0, 12], [8, 16]],
        [[16, 0]],
        [[-8, 16]],
        [[0.0, 16.0]],
        [["0", "16"]],
        [[16]],
        [16],
    ],
)
def test_offsets_that_cannot_be(tmp_path: Path, offsets: list[Any]) -> None:
    header = json.dumps({str(n): {"dtype": "F32", "data_offsets": each} for n, each in enumerate(offsets)})
    content = len(header).to_bytes(8, "little") + header.encode() + bytes(16)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(LaunchError, match=r"model\.safetensors is damaged"):
        check_weights(tmp_path)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(header=_JSON, entry=_JSON, offsets=_JSON, weight_map=_JSON)
def test_no_content_of_a_header_or_index_is_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, header: Any, entry: Any, offsets: Any, weight_map: Any
) -> None:
    folder = tmp_path_factory.mktemp("model")
    for number, each in enumerate((header, {"a": entry}, {"a": {"data_offsets": offsets}})):
        text = json.dumps(each).encode()
        (folder / f"{number}.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    index = folder / "model.safetensors.index.json"
    for content in (weight_map, {"weight_map": weight_map}, {"weight_map": {"a": weight_map}}):
        index.write_text(json.dumps(content))
        with contextlib.suppress(LaunchError):
            check_weights(folder)


def test_a_tokenizer_passes(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    check_tokenizer(tmp_path)


@pytest.mark.parametrize("content", [None, "", "[]", "{", "[" * 100_000, "version https://git-lfs"])
def test_a_tokenizer_that_is_missing_or_damaged(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(LaunchError, match=r"tokenizer\.json.*download the model again"):
        check_tokenizer(tmp_path)
