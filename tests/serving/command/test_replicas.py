"""Several servers of one model on one GPU."""

from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from qwen3_vllm.serving import Server
from qwen3_vllm.serving.command import replicas as module
from qwen3_vllm.serving.command.replicas import replicate, router, why_no_router
from qwen3_vllm.serving.machine.hardware import Machine
from qwen3_vllm.serving.machine.vllm_build import VllmBuild
from qwen3_vllm.serving.options import Checkpoint, Command, ServeOptions
from qwen3_vllm.serving.plan import Plan


def plan(cores: int | None = 64, **options: Any) -> Plan:
    serve = ServeOptions("embedding", "./m", **options)
    return Plan.of(serve, Checkpoint(), VllmBuild(Version("0.33.0")), Machine(cores, None))


def test_they_share_the_memory_and_take_consecutive_ports() -> None:
    replicas = replicate(plan(), 3, behind_router=False)
    assert [each.options.port for each in replicas] == [8000, 8001, 8002]
    assert {each.options.gpu_memory_utilization for each in replicas} == {0.3}


def test_behind_a_router_the_named_port_is_the_routers() -> None:
    ports = {each.options.port for each in replicate(plan(), 2, behind_router=True)}
    assert len(ports) == 2
    assert 8000 not in ports


@pytest.mark.parametrize(("cores", "count"), [(16, None), (15, 1), (None, None)])
def test_few_cores_leave_one_api_server_each(cores: int | None, count: int | None) -> None:
    assert replicate(plan(cores), 2, behind_router=False)[0].options.api_server_count == count


def test_few_cores_leave_one_api_server_for_each_copy() -> None:
    replicas = replicate(plan(16, data_parallel_size=2), 2, behind_router=False)
    assert replicas[0].options.api_server_count == 2


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"api_key": "k"}, "API key"),
        ({"host": "0.0.0.0", "insecure": True}, "add and remove"),
    ],
)
def test_no_router_stands_before_guarded_or_public_servers(
    options: dict[str, Any], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "router_program", lambda: Path("vllm-router"))
    assert why in (why_no_router(plan(**options)) or "")
    assert why_no_router(plan()) is None


def test_a_router_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "router_program", lambda: None)
    assert "pip install vllm-router" in (why_no_router(plan()) or "")


def test_the_router_knows_every_replica(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "router_program", lambda: Path("/bin/vllm-router"))
    workers = [Server("w", Command((), {}), f"http://127.0.0.1:{port}", tmp_path / "log") for port in (1, 2)]
    front = router(plan(port=0), workers, tmp_path / "router.log")
    assert front.command.argv[0] == "/bin/vllm-router"
    assert front.command.argv[-3:] == ("--worker-urls", "http://127.0.0.1:1", "http://127.0.0.1:2")
