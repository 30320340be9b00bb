"""`qwen3-vllm serve` as a user types it, up to the moment of starting."""

import json
import shlex
import socket
from pathlib import Path

import pytest
from packaging.version import Version
from typer.testing import CliRunner, Result

from qwen3_vllm.cli import app
from qwen3_vllm.serving.machine.vllm_build import VllmBuild

ELSEWHERE = ("--dry-run", "--vllm-version", "0.33.0")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("VLLM_API_KEY", "QWEN3_VLLM_API_KEY_FILE", "QWEN3_MODELS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def serve(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["serve", *arguments])


def model(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / "models" / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"architectures": ["Qwen3ForCausalLM"]}))
    return folder


def test_the_articles_two_servers_for_another_machine() -> None:
    result = serve("both", "--dry-run", "--vllm-version", "0.10.0")
    first, second = result.stdout.splitlines()
    assert "VLLM_USE_V1=0 vllm serve ./models/Qwen3-Embedding-0.6B" in first
    assert "--port 8000" in first
    assert "VLLM_USE_V1=0 vllm serve ./models/Qwen3-Reranker-0.6B" in second
    assert "--port 8001" in second
    assert result.exit_code == 0


def test_only_the_command_is_on_standard_output() -> None:
    result = serve("reranker", *ELSEWHERE)
    assert len(result.stdout.splitlines()) == 1
    assert "prefix caching" in result.stderr


def test_what_follows_the_dashes_goes_on_even_without_a_model() -> None:
    result = serve("embedding", *ELSEWHERE, "--", "--seed", "7", "--port-like=x y")
    assert shlex.split(result.stdout)[-3:] == ["--seed", "7", "--port-like=x y"]
    assert "./models/Qwen3-Embedding-0.6B" in result.stdout


def test_both_take_a_port_and_the_next() -> None:
    first, second = serve("both", "--port", "9100", *ELSEWHERE).stdout.splitlines()
    assert "--port 9100" in first
    assert "--port 9101" in second


def test_the_key_is_never_printed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "hunter2")
    result = serve("embedding", "--host", "0.0.0.0", *ELSEWHERE)
    assert result.exit_code == 0
    assert "--middleware qwen3_vllm.serving.guard.ApiKeyGuard" in result.stdout
    assert "VLLM_API_KEY" in result.stderr
    assert "hunter2" not in result.output


def test_a_key_file_is_named_and_not_read_out(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("hunter2\n")
    result = serve("embedding", "--host", "0.0.0.0", "--api-key-file", "keys", *ELSEWHERE)
    assert f"QWEN3_VLLM_API_KEY_FILE={tmp_path / 'keys'}" in result.stdout
    assert "hunter2" not in result.output


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (("embedding", "--host", "0.0.0.0", *ELSEWHERE), "VLLM_API_KEY"),
        (("embedding", "--api-key-file", "missing", *ELSEWHERE), "cannot read the API key file"),
        (("embedding", "--dry-run", "--vllm-version", "newest"), "0.33.0"),
        (("embedding", "--dry-run", "--vllm-version", "0.8.5"), "too old"),
        (("embedding", "--vllm-version", "0.33.0"), "add --dry-run"),
        (("both", "some-model", *ELSEWHERE), "--embedding-model"),
        (("both", "--served-model-name", "x", *ELSEWHERE), "--served-model-name"),
        (("both", "--replicas", "2", *ELSEWHERE), "--replicas"),
        (("embedding", "./nowhere"), "no model folder"),
        (("embedding", *ELSEWHERE, "--", "--hf-overrides", "{oops"), "not JSON"),
    ],
)
def test_refusals_say_what_to_change_and_exit_with_2(arguments: tuple[str, ...], advice: str) -> None:
    result = serve(*arguments)
    assert result.exit_code == 2
    assert advice in result.stderr
    assert result.stdout == ""


def test_a_key_that_no_header_can_carry_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "schlüssel wort")
    result = serve("embedding", *ELSEWHERE)
    assert result.exit_code == 2
    assert "ASCII" in result.stderr
    assert "schlüssel" not in result.output


def test_a_model_for_the_other_role_is_refused(tmp_path: Path) -> None:
    model(tmp_path, "Qwen3-Embedding-0.6B")
    result = serve("reranker", "Qwen3-Embedding-0.6B", *ELSEWHERE)
    assert result.exit_code == 2
    assert "qwen3-vllm serve embedding" in result.stderr


def test_a_folder_without_config_is_refused(tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    result = serve("embedding", "./half", *ELSEWHERE)
    assert result.exit_code == 2
    assert "no config.json" in result.stderr


def test_a_taken_port_is_refused_before_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu_build = VllmBuild(Version("0.32.0"), is_cpu_build=True)
    monkeypatch.setattr("qwen3_vllm.serving.plan.installed_vllm", lambda: cpu_build)
    model(tmp_path, "Qwen3-Embedding-0.6B")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = serve("embedding", "--port", str(taken.getsockname()[1]))
    assert result.exit_code == 2
    assert "already listens" in result.stderr


def test_replicas_share_the_gpu() -> None:
    result = serve("embedding", "--replicas", "3", "--api-server-count", "1", *ELSEWHERE)
    lines = result.stdout.splitlines()
    assert len(lines) == 3
    assert all("--gpu-memory-utilization 0.3 " in line + " " for line in lines)


def test_a_key_of_the_environment_keeps_the_router_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qwen3_vllm.serving.command.replicas.router_program", lambda: Path("vllm-router"))
    monkeypatch.setenv("VLLM_API_KEY", "hunter2")
    result = serve("embedding", "--replicas", "2", *ELSEWHERE)
    assert "no router in front: vllm-router does not pass the API key on" in result.stderr


def test_replicas_for_another_machine_do_not_depend_on_this_ones_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0}, raising=False)
    result = serve("embedding", "--replicas", "2", *ELSEWHERE)
    assert result.stdout.count("--api-server-count 2") == 2


def test_the_access_log_is_written_on_request() -> None:
    assert "--disable-uvicorn-access-log" in serve("embedding", *ELSEWHERE).stdout
    assert "--disable-uvicorn-access-log" not in serve("embedding", "--access-log", *ELSEWHERE).stdout


def test_help_has_examples() -> None:
    assert "Example: qwen3-vllm serve embedding" in serve("--help").stdout
