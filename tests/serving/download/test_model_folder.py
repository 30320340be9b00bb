"""Downloads against a server on this machine that speaks both hubs' protocols; no hub is asked."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from qwen3_vllm.cli import app
from qwen3_vllm.errors import DownloadError
from qwen3_vllm.serving.download import hubs
from qwen3_vllm.serving.download.hubs import Hub, HuggingFace, ModelScope, choose_hub
from qwen3_vllm.serving.download.model_folder import RECEIPT, STAGING, Download, download

HubConfig = pytest.importorskip("modelscope_hub").HubConfig
pytest.importorskip("huggingface_hub")

_SPEC = importlib.util.spec_from_file_location("fake_hub", Path(__file__).parent / "fake_hub.py")
assert _SPEC is not None and _SPEC.loader is not None
fake_hub = importlib.util.module_from_spec(_SPEC)
sys.modules["fake_hub"] = fake_hub  # dataclasses look their module up there
_SPEC.loader.exec_module(fake_hub)

REPO = "Qwen/Qwen3-Embedding-0.6B"
RERANKER = "Qwen/Qwen3-Reranker-0.6B"
WEIGHTS = "model.safetensors"
WEIGHT_BYTES = 2**20
# Both clients write to disk in large pieces (10 MB is the largest): a partial file must be longer than that.
LARGE, HALF = 24, 14 * 2**20
TOKEN = "hf_NeverShowThisToken"


@pytest.fixture
def fake() -> Iterator[Any]:
    files = {
        "config.json": b'{"model_type": "qwen3"}\n',
        "1_Pooling/config.json": b"{}",
        "README.md": "说明\n".encode(),
        WEIGHTS: os.urandom(WEIGHT_BYTES),
    }
    with fake_hub.running(fake_hub.FakeHub({REPO: dict(files), RERANKER: dict(files)})) as hub:
        yield hub


@pytest.fixture
def large_weights(fake: Any) -> None:
    fake.repos[REPO][WEIGHTS] *= LARGE


@pytest.fixture(params=["modelscope", "huggingface"])
def hub(request: pytest.FixtureRequest, fake: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    monkeypatch.setenv("MODELSCOPE_HOME", str(tmp_path / "modelscope-home"))
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "modelscope-cache"))
    return hub_at(fake.url, request.param, monkeypatch)


def hub_at(url: str, name: str, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The hub's client, pointed at this URL: both read the environment only once. Neither waits for long."""
    if name == "modelscope":
        monkeypatch.setattr("modelscope_hub.config._default_config", HubConfig(endpoint=url))
        monkeypatch.setattr("modelscope_hub._download.DOWNLOAD_INTEGRITY_RETRY_BACKOFF", 0)
        return ModelScope()
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(seconds / 50))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    # Releases before 1.0 have copied it.
    monkeypatch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    return HuggingFace()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but our receipt."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != RECEIPT)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def folder_name(repo: str) -> str:
    return repo.rpartition("/")[2]


def look_like_models(models: Path) -> list[Path]:
    """What a search for models would find."""
    return list(models.glob("*/config.json"))


def test_a_download_gives_exactly_the_listed_files(hub: Hub, fake: Any, models: Path) -> None:
    done = download(hub, REPO, models)
    assert done.folder == models / "Qwen3-Embedding-0.6B"
    assert tree(done.folder) == fake.repos[REPO]
    assert (done.files, done.fetched, done.unhashed) == (4, 4, ())
    assert not (models / STAGING / folder_name(REPO)).exists()


def test_a_second_run_verifies_and_fetches_nothing(hub: Hub, fake: Any, models: Path) -> None:
    download(hub, REPO, models)
    fake.requests.clear()
    again = download(hub, REPO, models)
    assert (again.fetched, again.files) == (0, 4)
    assert fake.requests == []


@pytest.mark.usefixtures("large_weights")
def test_a_cut_connection_is_continued_not_restarted(hub: Hub, fake: Any, models: Path) -> None:
    fake.cut[WEIGHTS] = HALF
    done = download(hub, REPO, models)
    assert tree(done.folder) == fake.repos[REPO]
    first, *later = fake.ranges(WEIGHTS)
    assert first is None
    assert later and later[0] is not None and int(later[0].removeprefix("bytes=").rstrip("-")) > 0


def test_a_damaged_file_is_fetched_again(hub: Hub, fake: Any, models: Path) -> None:
    fake.corrupt["config.json"] = 1
    assert tree(download(hub, REPO, models).folder) == fake.repos[REPO]
    assert len(fake.ranges("config.json")) == 2


def test_a_file_that_stays_damaged_leaves_no_model(hub: Hub, fake: Any, models: Path) -> None:
    fake.corrupt[WEIGHTS] = 100
    with pytest.raises(DownloadError, match=WEIGHTS):
        download(hub, REPO, models)
    assert look_like_models(models) == []
    fake.corrupt.clear()
    assert tree(download(hub, REPO, models).folder) == fake.repos[REPO]


def test_a_rerun_repairs_a_damaged_and_a_missing_file(hub: Hub, fake: Any, models: Path) -> None:
    folder = download(hub, REPO, models).folder
    weights = bytearray(fake.repos[REPO][WEIGHTS])
    weights[-1] ^= 1
    (folder / WEIGHTS).write_bytes(weights)
    (folder / "1_Pooling" / "config.json").unlink()
    (folder / "mine.txt").write_text("kept")
    done = download(hub, REPO, models)
    assert done.fetched == 2
    assert tree(folder) == {**fake.repos[REPO], "mine.txt": b"kept"}
    assert not (models / STAGING / folder_name(REPO)).exists()


def test_a_folder_of_the_users_own_is_not_overwritten(hub: Hub, models: Path) -> None:
    own = models / "Qwen3-Embedding-0.6B" / WEIGHTS
    own.parent.mkdir(parents=True)
    own.write_bytes(b"fine-tuned for weeks")
    with pytest.raises(DownloadError, match="may be your own"):
        download(hub, REPO, models)
    assert own.read_bytes() == b"fine-tuned for weeks"


@pytest.mark.usefixtures("large_weights")
def test_a_full_disk_is_noticed_before_anything_is_fetched(
    hub: Hub, fake: Any, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 10**8))
    with pytest.raises(DownloadError, match=r"0\.1 GB free and the download needs 0\.6 GB"):
        download(hub, REPO, models)
    assert fake.requests == []
    assert look_like_models(models) == []


def test_bytes_that_are_there_already_need_no_space(
    hub: Hub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download(hub, REPO, models)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 0))
    assert download(hub, REPO, models).fetched == 0


def test_an_unknown_repository_says_what_to_check(hub: Hub, models: Path) -> None:
    with pytest.raises(DownloadError, match=r"has no Qwen/Qwen3-Embedding-9B.*check the name, the size"):
        download(hub, "Qwen/Qwen3-Embedding-9B", models)
    assert not models.exists()


def test_a_refusal_names_the_token_variable_and_shows_no_token(
    hub: Hub, fake: Any, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    fake.forbidden = True
    with pytest.raises(DownloadError) as caught:
        download(hub, REPO, models)
    assert TOKEN not in str(caught.value)


def test_a_gguf_repository_is_refused_before_its_weights_are_fetched(
    hub: Hub, fake: Any, models: Path
) -> None:
    fake.repos["someone/Qwen3-Embedding-0.6B-GGUF"] = {"model-Q4.gguf": b"x", "README.md": b"y"}
    with pytest.raises(DownloadError, match=r"llama\.cpp"):
        download(hub, "someone/Qwen3-Embedding-0.6B-GGUF", models)
    assert fake.requests == []


def test_a_path_that_leaves_the_folder_is_refused(hub: Hub, fake: Any, models: Path) -> None:
    fake.repos["evil/model"] = {"config.json": b"{}", WEIGHTS: b"x", "../../escaped": b"x"}
    with pytest.raises(DownloadError, match="outside the model's folder"):
        download(hub, "evil/model", models)


def test_an_unreachable_hub_says_how_to_go_on(
    hub: Hub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelscope_hub._legacy_api.REPO_TREE_PAGE_MAX_ATTEMPTS", 1)
    unreachable = hub_at("http://127.0.0.1:9", hub.name, monkeypatch)
    with pytest.raises(DownloadError, match=r"HTTPS_PROXY, or \w+_ENDPOINT to a mirror"):
        download(unreachable, REPO, models)


def test_two_downloads_into_one_folder_do_not_mix(hub: Hub, models: Path) -> None:
    filelock = pytest.importorskip("filelock")
    (models / STAGING).mkdir(parents=True)
    with (
        filelock.FileLock(models / STAGING / ".lock"),
        pytest.raises(DownloadError, match="another download"),
    ):
        download(hub, REPO, models)


def test_a_storage_servers_signature_is_not_shown() -> None:
    error = hubs._failed("m", "huggingface", OSError("GET https://cdn/x?Signature=secret&Key=1 broke"), "E")
    assert "secret" not in str(error) and "https://cdn/x?…" in str(error)


@pytest.mark.parametrize(
    ("installed", "chosen"),
    [
        ({"modelscope_hub", "huggingface_hub"}, "modelscope"),
        ({"huggingface_hub"}, "huggingface"),
    ],
)
def test_modelscope_is_taken_first_if_installed(
    installed: set[str], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name in installed else None)
    assert choose_hub(None).name == chosen


@pytest.mark.parametrize("source", [None, "modelscope", "huggingface"])
def test_a_missing_client_gets_an_install_hint(source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DownloadError, match=r"pip install 'qwen3-vllm\[download\]'"):
        choose_hub(source)


class TestCommand:
    """The command itself, with the hub's work left out."""

    @pytest.fixture(autouse=True)
    def asked(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        asked: list[str] = []

        def fetched(hub: Hub, repo: str, models_dir: Path, *, report: Any) -> Download:
            asked.append(f"{hub.name} {repo}")
            return Download(models_dir / repo.rpartition("/")[2], 3, 10**9, 3, 10**9, ())

        monkeypatch.setattr("qwen3_vllm.serving.download.model_folder.download", fetched)
        return asked

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            ([], [f"modelscope {REPO}", f"modelscope {RERANKER}"]),
            (["embedding", "--size", "4B"], ["modelscope Qwen/Qwen3-Embedding-4B"]),
            (["reranker", "--size", "8B", "--source", "huggingface"], ["huggingface Qwen/Qwen3-Reranker-8B"]),
            (["embedding", "--quantized", "owner/some-W4A16"], ["modelscope owner/some-W4A16"]),
        ],
    )
    def test_options_name_the_repository(
        self, arguments: list[str], expected: list[str], asked: list[str]
    ) -> None:
        result = CliRunner().invoke(app, ["download", *arguments])
        assert result.exit_code == 0, result.output
        assert asked == expected

    @pytest.mark.parametrize(
        "arguments",
        [
            ["both", "--quantized", "owner/name"],
            ["embedding", "--quantized", "owner/name", "--size", "4B"],
            ["embedding", "--quantized", "gptq"],
            ["embedding", "--size", "7B"],
        ],
    )
    def test_contradictions_are_usage_errors(self, arguments: list[str], asked: list[str]) -> None:
        assert CliRunner().invoke(app, ["download", *arguments]).exit_code == 2
        assert asked == []


def test_a_folder_that_cannot_be_written_is_a_plain_error(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    arguments = ["download", "embedding", "--source", hub.name, "--dir", str(tmp_path / "file" / "models")]
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, "download failed" in result.output) == (1, True)


@pytest.mark.usefixtures("large_weights")
@pytest.mark.parametrize("source", ["modelscope", "huggingface"])
def test_a_killed_download_is_no_model_and_is_resumed(source: str, fake: Any, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "MODELSCOPE_ENDPOINT": fake.url,
        "HF_ENDPOINT": fake.url,
        "HF_TOKEN": TOKEN,
        "HOME": str(tmp_path),
    }
    command = [sys.executable, "-c", "from qwen3_vllm.cli import app; app()", "download", "embedding"]
    command += ["--source", source, "--dir", str(tmp_path / "models")]
    staging = tmp_path / "models" / STAGING / folder_name(REPO)
    fake.stall[WEIGHTS] = HALF
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        assert fake.stalled.wait(60)
        deadline = time.monotonic() + 30
        while not _is_half_done(staging) and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        process.kill()
        process.communicate(timeout=30)
    assert look_like_models(tmp_path / "models") == []

    fake.stall.clear()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "models" / "Qwen3-Embedding-0.6B") == fake.repos[REPO]
    assert len(fake.ranges("config.json")) == 1  # what was whole is not fetched again
    if source == "modelscope":  # nor is the first part of a file; the other client starts it over
        last = fake.ranges(WEIGHTS)[-1]
        assert last is not None and int(last.removeprefix("bytes=").partition("-")[0]) > 0
    assert TOKEN not in done.stdout + done.stderr


def _is_half_done(staging: Path) -> bool:
    small = ("config.json", "1_Pooling/config.json", "README.md")
    unfinished = [path for path in staging.rglob("*.incomplete") if path.stat().st_size]
    return bool(unfinished) and all((staging / path).is_file() for path in small)
