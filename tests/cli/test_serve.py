"""`qwen3-vllm serve` as a user types it, up to the moment of starting."""

import json
import os
import shlex
import socket
from contextlib import nullcontext
from pathlib import Path

import pytest
from packaging.version import Version
from typer.testing import CliRunner, Result

from qwen3_vllm.cli import app
from qwen3_vllm.serving import Server
from qwen3_vllm.serving.machine.hardware import Gpu, Machine
from qwen3_vllm.serving.machine.ports import free_ports
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
        (("both", "--replicas", "2", "--balancer", "none", *ELSEWHERE), "no ports for --replicas"),
        (("embedding", "--replicas", "many", *ELSEWHERE), "a number from 1 on, or auto"),
        (
            ("embedding", "--balancer", "vllm-router", "--host", "::", "--insecure", *ELSEWHERE),
            "add and remove",
        ),
        (("embedding", "--replicas", "2", "--host", "0.0.0.0", *ELSEWHERE), "no API key is set"),
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


@pytest.fixture
def haproxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qwen3_vllm.serving.balancer.haproxy_program", lambda: "/usr/sbin/haproxy")


@pytest.fixture
def no_haproxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qwen3_vllm.serving.balancer.haproxy_program", lambda: None)


@pytest.fixture
def h100(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """This machine has an H100 and 16 cores, and small checkpoints of both roles."""
    machine = Machine(16, (Gpu("NVIDIA H100 80GB HBM3", 85520809984),))
    monkeypatch.setattr("qwen3_vllm.serving.plan.this_machine", lambda: machine)
    build = VllmBuild(Version("0.33.0"), is_cpu_build=False)
    monkeypatch.setattr("qwen3_vllm.serving.plan.installed_vllm", lambda: build)
    for name in ("Qwen3-Embedding-0.6B", "Qwen3-Reranker-0.6B"):
        (model(tmp_path, name) / "model.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")


@pytest.mark.usefixtures("no_haproxy")
def test_replicas_share_the_gpu() -> None:
    result = serve("embedding", "--replicas", "3", *ELSEWHERE)
    lines = result.stdout.splitlines()
    assert len(lines) == 3
    assert all("--gpu-memory-utilization 0.3 " in line + " " for line in lines)
    assert [line.partition("--port ")[2][:4] for line in lines] == ["8000", "8001", "8002"]
    assert "no balancer in front: HAProxy is not installed" in result.stderr


@pytest.mark.usefixtures("no_haproxy")
def test_a_balancer_that_is_asked_for_is_taken_to_be_on_another_machine() -> None:
    result = serve("embedding", "--replicas", "3", "--balancer", "haproxy", *ELSEWHERE)
    assert result.exit_code == 0, result.stderr
    assert "    bind 127.0.0.1:8000\n" in result.stdout


@pytest.mark.usefixtures("no_haproxy")
def test_a_key_of_the_environment_keeps_the_router_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qwen3_vllm.serving.balancer.router_program", lambda: Path("vllm-router"))
    monkeypatch.setenv("VLLM_API_KEY", "hunter2")
    result = serve("embedding", "--replicas", "2", "--balancer", "vllm-router", *ELSEWHERE)
    assert "--balancer vllm-router: vllm-router does not pass the API key on" in result.stderr
    assert "no balancer" in serve("embedding", "--replicas", "2", *ELSEWHERE).stderr


@pytest.mark.usefixtures("haproxy", "h100")
@pytest.mark.parametrize(("what", "counts"), [("embedding", [4]), ("reranker", [4]), ("both", [2, 2])])
def test_on_an_h100_the_servers_fill_it_behind_the_one_address(what: str, counts: list[int]) -> None:
    result = serve(what, "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert result.stderr.count("replicas: ") == len(counts)
    assert f"replicas: {counts[0]}; " in result.stderr
    servers = [line for line in result.stdout.splitlines() if " serve " in line and "--port" in line]
    assert len(servers) == sum(counts)
    ports = {int(line.partition("--port ")[2].split()[0]) for line in servers}
    assert len(ports) == sum(counts) and not ports & set(range(8000, 8011))
    fronts = {"embedding": ["8000"], "reranker": ["8001"], "both": ["8000", "8001"]}[what]
    for port in fronts:
        assert f"    bind 127.0.0.1:{port}\n" in result.stdout
    assert result.stdout.count("haproxy -db -f /dev/stdin") == len(counts)


@pytest.fixture
def mps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The driver's program for MPS is there, and fails."""
    program = tmp_path / "nvidia-cuda-mps-control"
    program.write_text("#!/bin/sh\necho no GPU here\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_MPS_PIPE_DIRECTORY", raising=False)
    return program


@pytest.mark.usefixtures("haproxy", "h100", "mps")
def test_bulk_gives_way_to_queries_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    first, *servers = serve("embedding", "--dry-run").stdout.splitlines()[:5]
    assert first == "nvidia-cuda-mps-control -d"
    assert all("CUDA_MPS_PIPE_DIRECTORY=/tmp/nvidia-mps" in line for line in servers)
    assert ["CUDA_MPS_CLIENT_PRIORITY=1" in line for line in servers] == [False, True, True, True]
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", "/run/mps")
    own = serve("embedding", "--dry-run").stdout
    assert "nvidia-cuda-mps-control" not in own
    assert own.count("CUDA_MPS_CLIENT_PRIORITY=1") == 3
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", "")
    assert "CUDA_MPS" not in serve("embedding", "--dry-run").stdout


@pytest.mark.usefixtures("haproxy", "h100", "mps")
@pytest.mark.parametrize(
    "arguments", [("embedding", "--no-mps"), ("embedding", "--replicas", "2"), ("reranker",), ("both",)]
)
def test_no_mps_where_nobody_has_to_give_way_or_it_is_not_wanted(arguments: tuple[str, ...]) -> None:
    result = serve(*arguments, "--dry-run")
    assert "nvidia-cuda-mps-control" not in result.stdout
    assert "CUDA_MPS" not in result.stdout
    assert result.exit_code == 0


@pytest.mark.usefixtures("h100", "mps")
def test_servers_start_without_an_mps_that_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started: list[Server] = []
    monkeypatch.setattr("qwen3_vllm.cli.serve.supervise", lambda servers, *_, **__: started.extend(servers))
    port = str(free_ports(1)[0])
    several = ("embedding", "--replicas", "3", "--balancer", "none", "--port", port, "--log-dir", ".")
    arguments = (*several, "--", "--tokenizer", "elsewhere")
    result = serve(*arguments)
    assert "mps: not used; the mps server died" in result.stderr
    assert "no GPU here" in result.stderr
    assert len(started) == 3, result.stderr
    assert not any("MPS" in str(server.command) for server in started)

    monkeypatch.setattr("qwen3_vllm.cli._server_set.mps_daemon", lambda *_: nullcontext(tmp_path))
    started.clear()
    assert "mps: the servers compute side by side" in serve(*arguments).stderr
    assert [server.command.env["CUDA_MPS_PIPE_DIRECTORY"] for server in started] == [str(tmp_path)] * 3

    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", "")
    started.clear()
    assert "mps: not used; CUDA_MPS_PIPE_DIRECTORY is empty" in serve(*arguments).stderr
    assert not any("MPS" in str(server.command) for server in started)


@pytest.mark.usefixtures("no_haproxy", "h100")
def test_without_a_balancer_one_server_starts_and_it_is_said() -> None:
    result = serve("embedding", "--dry-run")
    assert len(result.stdout.splitlines()) == 1
    assert "replicas: 1; 4 would fill the GPU, but HAProxy is not installed" in result.stderr


def test_the_router_is_printed_with_its_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qwen3_vllm.serving.balancer.router_program", lambda: Path("/venv/bin/vllm-router"))
    result = serve("embedding", "--replicas", "2", "--balancer", "vllm-router", *ELSEWHERE)
    *servers, router = result.stdout.splitlines()
    assert len(servers) == 2
    addresses = ["http://127.0.0.1:" + line.partition("--port ")[2].split()[0] for line in servers]
    words = shlex.split(router)
    assert words[:5] == ["/venv/bin/vllm-router", "--host", "127.0.0.1", "--port", "8000"]
    assert words[-3:] == ["--worker-urls", *addresses]


@pytest.mark.usefixtures("haproxy")
def test_servers_of_tls_stay_without_a_balancer() -> None:
    result = serve("embedding", "--replicas", "2", *ELSEWHERE, "--", "--ssl-certfile", "cert.pem")
    assert "no balancer in front: the balancer is started without TLS" in result.stderr


def test_the_access_log_is_written_on_request() -> None:
    assert "--disable-uvicorn-access-log" in serve("embedding", *ELSEWHERE).stdout
    assert "--disable-uvicorn-access-log" not in serve("embedding", "--access-log", *ELSEWHERE).stdout


def test_help_has_examples() -> None:
    assert "Example: qwen3-vllm serve embedding" in serve("--help").stdout
