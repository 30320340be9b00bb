"""The dashboard's queries on a real server's metrics: as it exports them, and through a real Prometheus."""

import itertools
import json
import math
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from prometheus_client.parser import text_string_to_metric_families

from .conftest import RunningServer, need

DEPLOY = Path(__file__).parent.parent / "deploy"
PANELS = json.loads((DEPLOY / "grafana/dashboards/qwen3-vllm.json").read_text(encoding="utf-8"))["panels"]
TARGETS = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
IDS = [f"{title}-{number}" for number, (title, _) in enumerate(TARGETS)]
# Names that Prometheus or the GPU exporter give, and words of its language that look like names.
METRIC = re.compile(r"\b(vllm:\w+|http_\w+)")


@pytest.fixture(scope="module")
def used_server(embedding_server: RunningServer) -> RunningServer:
    """The embedding server, after answers and a refusal."""
    send_some(embedding_server)
    return embedding_server


def send_some(server: RunningServer, *, marker: str = "") -> None:
    """Send two calls that work and one that does not."""
    url = server.base_url + "/v1/embeddings"
    for texts in (["巴黎" + marker], ["one" + marker, "two" + marker]):
        requests.post(url, json={"input": texts}, timeout=60).raise_for_status()
    assert requests.post(url, json={"input": []}, timeout=60).status_code == 400


@pytest.mark.parametrize(("title", "expression"), TARGETS, ids=IDS)
def test_the_server_exports_what_a_panel_asks_for(
    title: str, expression: str, used_server: RunningServer
) -> None:
    assert_exported(title, expression, used_server)


def assert_exported(title: str, expression: str, server: RunningServer) -> None:
    """Of a query `new or old`, all metrics of one side must be there."""
    text = requests.get(server.base_url + "/metrics", timeout=30).text
    exported = {line.partition("{")[0].partition(" ")[0] for line in text.splitlines() if line[:1] != "#"}
    sides = [set(METRIC.findall(side)) for side in expression.split(" or ")]
    assert any(side <= exported for side in sides), f"{title}: {sides} not in /metrics"


@pytest.fixture(scope="module")
def prometheus(used_server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus with the configuration of deploy/, its targets replaced, that has scraped for a while."""
    binary = need("prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    key = folder / "key"
    key.write_text("EMPTY")
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"]["scrape_interval"] = config["global"]["scrape_timeout"] = "1s"
    for job in config["scrape_configs"]:
        if "authorization" in job:
            job["authorization"]["credentials_file"] = str(key)
        job["static_configs"][0]["targets"] = [used_server.base_url.removeprefix("http://")]
    config["rule_files"] = [str(DEPLOY / "alerts.yml")]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    arguments = [
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([binary, *arguments], stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for_scrapes(url, used_server)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def wait_for_scrapes(url: str, server: RunningServer) -> None:
    """Keep the server busy until every counter has grown between two scrapes."""
    deadline = time.monotonic() + 60
    grown = 'rate(http_requests_total{job="embedding",status="4xx"}[30s]) > 0'
    for number in itertools.count():
        send_some(server, marker=str(number))
        try:
            if evaluate(url, grown) and evaluate(
                url, 'rate(vllm:request_success_total{job="embedding"}[30s]) > 0'
            ):
                return
        except requests.ConnectionError:
            pass  # Prometheus is starting
        assert time.monotonic() < deadline, "Prometheus did not see the server's counters grow"
        time.sleep(0.5)


def evaluate(url: str, expression: str) -> list[Any]:
    """Return the result of an instant query; a query that Prometheus refuses fails the test."""
    answer = requests.get(url + "/api/v1/query", params={"query": expression}, timeout=30)
    if answer.status_code == 503:
        return []  # not ready yet
    body = answer.json()
    assert body["status"] == "success", f"{expression}: {body}"
    return list(body["data"]["result"])


@pytest.mark.parametrize(("title", "expression"), TARGETS, ids=IDS)
def test_prometheus_evaluates_a_panels_query(title: str, expression: str, prometheus: str) -> None:
    result = evaluate(prometheus, expression.replace("$__rate_interval", "30s").replace("$server", ".*"))
    if not METRIC.search(expression):
        return  # GPU metrics come from the DCGM exporter, which needs a GPU
    values = [float(series["value"][1]) for series in result if series["metric"].get("job") == "embedding"]
    assert values, title
    # 0/0 is right for a route nobody uses, and for the hit rate: the embedding server has no prefix cache.
    assert title == "Prefix-cache hit rate" or any(math.isfinite(value) for value in values), (title, values)


def test_a_panel_shows_the_chosen_server_alone(prometheus: str) -> None:
    for _, expression in TARGETS:
        if METRIC.search(expression):
            chosen = expression.replace("$__rate_interval", "30s").replace("$server", "another:8000")
            assert evaluate(prometheus, chosen) == []


def test_prometheus_evaluates_the_alerts(prometheus: str) -> None:
    url = prometheus + "/api/v1/rules"
    deadline = time.monotonic() + 60
    while True:
        groups = requests.get(url, timeout=30).json()["data"]["groups"]
        rules = {rule["name"]: rule for group in groups for rule in group["rules"]}
        if all(rule["health"] != "unknown" for rule in rules.values()):
            break
        assert time.monotonic() < deadline, rules
        time.sleep(0.5)
    assert {rule["health"] for rule in rules.values()} == {"ok"}
    assert len(rules) == 4
    assert {rule["state"] for name, rule in rules.items() if name != "Qwen3ServerDown"} == {"inactive"}


def test_the_counters_count_documents_calls_and_refusals(prometheus: str, used_server: RunningServer) -> None:
    """By the counters themselves: `increase` guesses what was before the first scrape and after the last."""
    routes = 'http_requests_total{job="embedding",handler="/v1/embeddings",status="%s"}'
    counters = (routes % "2xx", routes % "4xx", 'vllm:request_success_total{job="embedding"}')

    def wait_until(settled: Callable[[list[float]], bool]) -> list[float]:
        deadline = time.monotonic() + 60
        while True:
            sums = [evaluate(prometheus, f"sum({counter})") for counter in counters]
            now = [float(series[0]["value"][1]) for series in sums]
            if settled(now):
                return now
            assert time.monotonic() < deadline, now
            time.sleep(0.5)

    time.sleep(1)  # vLLM counts a request a moment after it has answered
    good, refused, documents = wait_until(lambda now: now == exported_counters(used_server))
    for number in range(3):
        send_some(used_server, marker=f"counted {number}")
    expected = [good + 6, refused + 3, documents + 9]
    assert wait_until(lambda now: sum(now) >= sum(expected)) == expected


def exported_counters(server: RunningServer) -> list[float]:
    """The server's own counts of answered calls, refused calls and embedded documents."""
    sums = [0.0, 0.0, 0.0]
    for family in text_string_to_metric_families(requests.get(server.base_url + "/metrics", timeout=30).text):
        for sample in family.samples:
            if sample.name == "vllm:request_success_total":
                sums[2] += sample.value
            elif sample.name == "http_requests_total" and sample.labels["handler"] == "/v1/embeddings":
                sums[{"2xx": 0, "4xx": 1}[sample.labels["status"]]] += sample.value
    return sums


@pytest.mark.parametrize(
    "arguments", [["config", "--syntax-only", "prometheus.yml"], ["rules", "alerts.yml"]], ids=lambda a: a[0]
)
def test_promtool_accepts_what_is_shipped(arguments: list[str]) -> None:
    *options, name = arguments
    command = [need("promtool"), "check", *options, str(DEPLOY / name)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
