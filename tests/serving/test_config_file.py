"""A file for vLLM's --config holds flags like any others."""

from pathlib import Path

import pytest

from qwen3_vllm.serving import LaunchError, ServeOptions
from qwen3_vllm.serving.config_file import with_config_file
from qwen3_vllm.serving.launch import command_of
from qwen3_vllm.serving.machine.hardware import Machine
from qwen3_vllm.serving.machine.vllm_build import VllmBuild
from qwen3_vllm.serving.options import Command
from qwen3_vllm.serving.plan import read_plans

FILE = """
seed: 1
max_num_seqs: 8
served-model-name: [a, b]
hf-overrides: {rope_theta: 5}
enforce-eager: true
enable-prefix-caching: false
disable-log-stats: false
middleware: []
"""


def write(folder: Path, text: str) -> str:
    (folder / "vllm.yaml").write_text(text)
    return str(folder / "vllm.yaml")


def prepared(*extra: str) -> Command:
    from packaging.version import Version

    options = ServeOptions("embedding", "some/Qwen3-Embedding-0.6B", extra_args=extra)
    (plan,) = read_plans([options], vllm=VllmBuild(Version("0.33.0")), machine=Machine())
    return command_of(plan)


def test_its_settings_come_before_the_other_flags(tmp_path: Path) -> None:
    file = write(tmp_path, FILE)
    assert with_config_file(("--seed", "2", "--config", file, "--x")) == (
        *("--seed", "1", "--max-num-seqs", "8", "--served-model-name", "a", "b"),
        *("--hf-overrides", '{"rope_theta": 5}', "--enforce-eager", "--no-enable-prefix-caching"),
        *("--seed", "2", "--x"),
    )


def test_its_settings_win_over_ours(tmp_path: Path) -> None:
    argv = prepared("--config", write(tmp_path, FILE)).argv
    assert argv.count("--max-num-seqs") == 1
    assert '"rope_theta": 5}' in argv[argv.index("--hf-overrides") + 1]


@pytest.mark.parametrize(
    ("setting", "advice"),
    [
        ("host: 0.0.0.0", "use --host"),
        ("ho: 0.0.0.0", "use --host"),
        ("port: 1", "use --port"),
        ("uds: /x", "vllm serve itself"),
        ("api_key: [k]", "VLLM_API_KEY"),
        ("config: other.yaml", "cannot name another file"),
        ("conf: other.yaml", "in two words"),
    ],
)
def test_what_is_refused_after_the_dashes_is_refused_in_it(tmp_path: Path, setting: str, advice: str) -> None:
    with pytest.raises(LaunchError, match=advice):
        prepared("--config", write(tmp_path, setting))


@pytest.mark.parametrize("text", ["[1, 2]", "", "a: b: c", "1: 2", "x: {1: !!binary aGk=}", "\x00"])
def test_a_file_that_vllm_would_not_read_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(LaunchError, match=r"vllm\.yaml"):
        with_config_file(("--config", write(tmp_path, text)))


@pytest.mark.parametrize("given", [("--config",), ("--config", "a.json"), ("--config", "missing.yaml")])
def test_a_file_that_is_not_there_is_refused(given: tuple[str, ...]) -> None:
    with pytest.raises(LaunchError, match="--config"):
        with_config_file(given)


def test_a_file_of_another_machine_is_left_to_vllm() -> None:
    assert "/there/vllm.yaml" in prepared("--config", "/there/vllm.yaml").argv
