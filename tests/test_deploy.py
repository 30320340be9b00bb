"""The files in deploy/ agree with the launcher, with each other and with the repository; none is run."""

import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.version import Version

from qwen3_vllm.serving.command.flags import build_command
from qwen3_vllm.serving.command.haproxy import haproxy_config
from qwen3_vllm.serving.guard import ApiKeyGuard
from qwen3_vllm.serving.machine.hardware import Gpu, Machine
from qwen3_vllm.serving.machine.vllm_build import VllmBuild
from qwen3_vllm.serving.options import Checkpoint, ServeOptions
from qwen3_vllm.serving.plan import Plan

DEPLOY = Path(__file__).parent.parent / "deploy"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "qwen3-vllm.json"
PORTS = {"embedding": 8000, "reranker": 8001}
REPLICAS = ("embedding", "embedding-1", "embedding-2")
MANIFESTS = {"embedding": "kubernetes.yaml", "reranker": "kubernetes-reranker.yaml"}


def load(name: str, **environment: str) -> Any:
    """Read a YAML file with compose's `${NAME:-default}` filled, with the defaults where nothing is given."""
    text = (DEPLOY / name).read_text(encoding="utf-8")
    return yaml.safe_load(
        re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: environment.get(found[1], found[2]), text)
    )


@pytest.fixture(scope="module")
def compose() -> Any:
    return load("compose.yaml")


@pytest.fixture(scope="module")
def targets() -> list[str]:
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def launcher_command(role: Any, compose: Any, **more: Any) -> Any:
    """What `qwen3-vllm serve` would run in this image: the official 0.6B model on a GPU of 24 GB."""
    version = compose["services"][role]["image"].rpartition(":v")[2]
    options = ServeOptions(
        role,
        compose["services"][role]["command"][0],
        host="0.0.0.0",
        api_key_file=Path("/run/secrets/vllm_api_key"),
        **more,
    )
    checkpoint = Checkpoint(
        is_local=True,
        architectures=("Qwen3ForCausalLM",),
        max_position_embeddings=32768,
        weights_bytes=1_191_586_416,
        dtype="bfloat16",
    )
    machine = Machine(None, (Gpu("24 GB", 24 * 2**30),))
    return build_command(Plan.of(options, checkpoint, VllmBuild(Version(version)), machine))


def words_of(service: Any) -> list[str]:
    """Its command, each flag apart from its value."""
    words = [*service["entrypoint"]]
    for argument in service["command"]:
        flag, is_flag, value = argument.partition("=")
        words += [flag, value] if is_flag and flag.startswith("--") else [argument]
    return words


@pytest.mark.parametrize("role", PORTS)
def test_compose_runs_the_command_that_the_launcher_prints(role: str, compose: Any) -> None:
    expected = launcher_command(role, compose)
    ours = str(Path(__file__).parent.parent / "src/qwen3_vllm/templates/qwen3_reranker.jinja")
    inside = "/opt/qwen3-vllm/qwen3_reranker.jinja"
    service = compose["services"][role]
    assert words_of(service) == [inside if word == ours else word for word in expected.argv]
    assert expected.env.items() <= service["environment"].items()


def test_compose_runs_three_embedding_servers_behind_haproxy_in_the_memory_of_one() -> None:
    services = load("compose.yaml", EMBEDDING_SHARE="0.15", EMBEDDING_HTTP="1")["services"]
    one = launcher_command("embedding", {"services": services}, gpu_memory_utilization=0.15)
    for name in REPLICAS:
        words, processes = words_of(services[name]), one.argv.index("--api-server-count") + 1
        assert words[processes] == "1"
        assert [*words[:processes], *words[processes + 1 :]] == [
            *one.argv[:processes],
            *one.argv[processes + 1 :],
        ]
    by_profile = {name for name, service in services.items() if service.get("profiles") == ["haproxy"]}
    assert by_profile == {*REPLICAS[1:], "haproxy"}
    # One after the other, and HAProxy when all are there.
    waits = {name: next(iter(services[name]["depends_on"])) for name in by_profile}
    assert waits == {"embedding-1": "reranker", "embedding-2": "embedding-1", "haproxy": "embedding-2"}


def test_haproxy_has_the_configuration_of_the_launcher_with_names_that_docker_resolves(compose: Any) -> None:
    text = (DEPLOY / "haproxy.cfg").read_text(encoding="utf-8")
    _, _, after = text.partition("\n\n")
    resolvers = r"# Containers get.*\nresolvers docker\n    nameserver dns 127\.0\.0\.11:53\n\n"
    ours = re.sub(resolvers, "", after).replace(" resolvers docker init-addr none", "")
    port = compose["services"]["haproxy"]["ports"][0].rpartition(":")[2]
    expected = haproxy_config("embedding", "0.0.0.0", int(port), [f"{name}:8000" for name in REPLICAS])
    assert ours == expected.partition("\n\n")[2]


def manifest(role: str) -> tuple[Any, Any]:
    deployment, service = yaml.safe_load_all((DEPLOY / MANIFESTS[role]).read_text(encoding="utf-8"))
    return deployment, service


@pytest.mark.parametrize("role", MANIFESTS)
def test_kubernetes_runs_the_same_command_with_the_key_from_a_secret(role: str, compose: Any) -> None:
    deployment, service = manifest(role)
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    same = compose["services"][role]
    assert container["image"] == same["image"]
    assert [container["command"], container["args"]] == [same["entrypoint"], same["command"]]
    env = {each["name"]: each["value"] for each in container["env"]}
    assert env == {k: v for k, v in same["environment"].items() if k != "VLLM_CACHE_ROOT"}
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert mounts["key"] == env["QWEN3_VLLM_API_KEY_FILE"]
    assert set(mounts) == {volume["name"] for volume in pod["spec"]["volumes"]}
    files = {volume.split(":")[1] for volume in same["volumes"]}
    assert {path for path in mounts.values() if "." in Path(path).name} <= files
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert deployment["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    assert container["ports"][0]["containerPort"] == service["spec"]["ports"][0]["port"] == PORTS[role]


@pytest.mark.parametrize(
    ("role", "asked"),
    [
        ("embedding", ("/v1/embeddings", {"input": "ready?"})),
        ("reranker", ("/v1/rerank", {"query": "ready?", "documents": ["yes"]})),
    ],
)
def test_kubernetes_waits_for_a_real_answer_with_the_key(
    role: str, asked: tuple[str, dict[str, Any]], tmp_path: Path
) -> None:
    (container,) = manifest(role)[0]["spec"]["template"]["spec"]["containers"]
    assert container["readinessProbe"]["exec"] == container["startupProbe"]["exec"]
    key_file = tmp_path / "keys"
    key_file.write_text("# ours\n\nthe-key\n")
    seen: list[tuple[str, Any, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append((self.path, body, self.headers["Authorization"]))
            self.send_response(200 if len(seen) > 1 else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        *_, code = container["startupProbe"]["exec"]["command"]
        code = code.replace("/run/secrets/vllm_api_key", str(key_file)).replace(
            str(PORTS[role]), str(server.server_port)
        )
        ends = [
            subprocess.run([sys.executable, "-S", "-c", code], capture_output=True).returncode == 0
            for _ in range(2)
        ]
        server.shutdown()
    assert ends == [False, True]
    assert seen == [(*asked, "Bearer the-key")] * 2


def test_files_mounted_from_the_repository_exist(compose: Any) -> None:
    sources = [
        volume.split(":")[0]
        for service in compose["services"].values()
        for volume in service.get("volumes", ())
    ]
    for source in sources:
        if source.startswith(".") and source != "../models":
            assert (DEPLOY / source).exists(), source


def test_the_guard_loads_from_its_one_mounted_file(compose: Any, tmp_path: Path) -> None:
    service = compose["services"]["embedding"]
    (mount,) = (volume for volume in service["volumes"] if volume.split(":")[0].endswith("guard.py"))
    source, inside, _ = mount.split(":")
    copy = tmp_path / Path(inside).relative_to(service["environment"]["PYTHONPATH"])
    copy.parent.mkdir(parents=True)
    copy.write_bytes((DEPLOY / source).read_bytes())
    name = f"{ApiKeyGuard.__module__}.{ApiKeyGuard.__qualname__}"
    assert f"--middleware={name}" in service["command"]
    code = f"import {ApiKeyGuard.__module__} as guard; print(guard.ApiKeyGuard.__name__, guard.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    # -S: without the installed package, as in the image.
    done = subprocess.run([sys.executable, "-S", "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["ApiKeyGuard", str(copy)], done.stderr


def test_every_port_is_on_the_loopback(compose: Any) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert len(ports) == 5
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_every_service_with_a_port_has_a_health_check(compose: Any) -> None:
    services = {name for name, service in compose["services"].items() if service.get("ports")}
    checked = {name for name, service in compose["services"].items() if "healthcheck" in service}
    assert checked == services | set(REPLICAS)
    for role, port in PORTS.items():
        assert f"http://127.0.0.1:{port}/health" in compose["services"][role]["healthcheck"]["test"][-1]


def test_keys_come_as_secrets_and_nowhere_else(compose: Any) -> None:
    assert compose["secrets"]["vllm_api_key"] == {"environment": "VLLM_API_KEY"}
    for service in compose["services"].values():
        assert set(service.get("secrets", ())) <= set(compose["secrets"])
        assert not {"VLLM_API_KEY", "GF_SECURITY_ADMIN_PASSWORD"} & set(service.get("environment", ()))
        assert not any("api-key" in argument for argument in service.get("command", ()))


def test_the_reranker_waits_for_the_embedding_server_on_their_one_gpu(compose: Any) -> None:
    assert compose["services"]["reranker"]["depends_on"] == {"embedding": {"condition": "service_healthy"}}


def test_prometheus_scrapes_services_that_exist_with_the_key(compose: Any) -> None:
    jobs = {job["job_name"]: job for job in load("prometheus.yml")["scrape_configs"]}
    assert set(jobs) == {"embedding", "reranker", "gpu"}
    for role, port in PORTS.items():
        assert jobs[role]["static_configs"] == [{"targets": [f"{role}:{port}"]}]
        assert jobs[role]["authorization"] == {"credentials_file": "/run/secrets/vllm_api_key"}
    (more,) = jobs["embedding"]["dns_sd_configs"]
    assert set(more["names"]) == {name for name in compose["services"] if name.startswith("embedding-")}
    (gpu,) = jobs["gpu"]["static_configs"][0]["targets"]
    assert gpu.partition(":")[0] in compose["services"]
    assert "vllm_api_key" in compose["services"]["prometheus"]["secrets"]


def test_grafana_is_provisioned_with_the_datasource_that_the_panels_name(compose: Any) -> None:
    (source,) = load("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    (provider,) = load("grafana/provisioning/dashboards/qwen3-vllm.yaml")["providers"]
    assert source["url"].removeprefix("http://").partition(":")[0] in compose["services"]
    mounts = [volume.split(":")[1] for volume in compose["services"]["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounts and "/etc/grafana/provisioning" in mounts
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {source["uid"]}


def test_every_panel_of_a_server_can_be_filtered_by_it() -> None:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    (server,) = dashboard["templating"]["list"]
    assert (server["name"], server["allValue"], server["multi"]) == ("server", ".*", True)
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            metrics = re.findall(r"vllm:\w+|http_\w+|\bup\b", target["expr"])
            assert target["expr"].count('{instance=~"$server"') == len(metrics), target["expr"]


def test_panels_do_not_overlap() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]:
        place = panel["gridPos"]
        mine = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not mine & cells and max(x for x, _ in mine) < 24, panel["title"]
        cells |= mine


@pytest.mark.parametrize(
    "metric",
    [
        "vllm:request_queue_time_seconds_bucket",
        "vllm:num_requests_running",
        "vllm:num_requests_waiting",
        "vllm:e2e_request_latency_seconds_bucket",
        "vllm:request_success_total",
        "vllm:prompt_tokens_total",
        "http_requests_total",
        "DCGM_FI_DEV_GPU_UTIL",
    ],
)
def test_the_dashboard_shows(metric: str, targets: list[str]) -> None:
    assert any(metric in expression for expression in targets)


@pytest.mark.parametrize(
    ("today", "before"),
    [
        ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
        ("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total"),
    ],
)
def test_metrics_that_were_renamed_are_found_under_either_name(
    today: str, before: str, targets: list[str]
) -> None:
    (expression,) = (expression for expression in targets if today in expression)
    assert before in expression.partition(" or ")[2]
