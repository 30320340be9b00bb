"""Download a model so that a folder of its name is always whole and verified.

Files are fetched into a hidden folder beside the models, checked against the sizes and hashes that the hub
lists, and only then put in place. A second run verifies what is there and fetches what is missing or damaged.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from qwen3_vllm.errors import DownloadError
from qwen3_vllm.serving.download.hubs import Hub, HubFile, Listing

WEIGHTS = (".safetensors", ".bin")
RECEIPT = ".qwen3-vllm-download.json"
STAGING = ".downloading"  # two levels down, so that no search for */config.json takes it for a model
SPARE_BYTES = 512 * 2**20  # the hubs' clients join large files from parts
_PARALLEL_FILES = 4
_ATTEMPTS = 2  # a file that arrives damaged is fetched once more, from its first byte


@dataclass(frozen=True)
class Download:
    """A verified model folder; `fetched` files of `fetched_bytes` came over the network this time."""

    folder: Path
    files: int
    size: int
    fetched: int
    fetched_bytes: int
    unhashed: tuple[str, ...]


def download(
    hub: Hub, repo: str, models_dir: Path, *, report: Callable[[str], None] = lambda line: None
) -> Download:
    """Download a repository into `models_dir`, under the last part of its name, and verify it.

    Args:
        hub: Where from.
        repo: `owner/name`.
        models_dir: Made if missing.
        report: Told in a sentence what happens next.

    Raises:
        DownloadError: The repository does not exist or holds no model that vLLM can load, the hub cannot be
            reached, the disk is too small, a file stays damaged, or a folder in the way is not ours.
    """
    from filelock import FileLock, Timeout

    listing = hub.list_files(repo)
    check_is_model(repo, listing.files)
    (models_dir / STAGING).mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(models_dir / STAGING / ".lock", timeout=0):
            return _download_locked(hub, repo, listing, models_dir, report)
    except Timeout as error:
        raise DownloadError(f"another download into {models_dir} is running; wait for it to end") from error


def check_is_model(repo: str, files: Iterable[HubFile]) -> None:
    """Refuse a repository that vLLM could not serve, or whose paths would leave the folder, before fetching.

    Raises:
        DownloadError: It is one.
    """
    paths = [file.path for file in files]
    for path in paths:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts or "\\" in path:
            raise DownloadError(
                f"{repo} lists the file {path!r}, which would be written outside the model's folder"
            )
    if "config.json" not in paths or not any(path.endswith(WEIGHTS) for path in paths):
        hint = (
            "a GGUF repository is for llama.cpp; vLLM needs GPTQ, AWQ or compressed-tensors"
            if any(path.endswith(".gguf") for path in paths)
            else "it needs config.json and *.safetensors"
        )
        raise DownloadError(f"{repo} holds no model that vLLM can load: {hint}")


def matches(path: Path, file: HubFile) -> bool:
    """Whether this file on disk has the size and hash that the hub lists."""
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    if file.sha256 is not None:
        return _digest(path, hashlib.sha256()) == file.sha256.lower()
    if file.git_sha1 is not None:
        header = f"blob {file.size}\0".encode()
        return _digest(path, hashlib.sha1(header, usedforsecurity=False)) == file.git_sha1.lower()
    return True


def _digest(path: Path, digest: "hashlib._Hash") -> str:
    with path.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _download_locked(
    hub: Hub, repo: str, listing: Listing, models_dir: Path, report: Callable[[str], None]
) -> Download:
    target = models_dir / repo.rpartition("/")[2]
    staging = models_dir / STAGING / target.name
    # The Hugging Face client's notes and unfinished files, which it does not resume.
    shutil.rmtree(staging / ".cache", ignore_errors=True)
    if target.exists():
        report(f"{target} exists: files to verify: {len(listing.files)}")
    missing = [file for file in listing.files if not matches(target / file.path, file)]
    _check_is_ours(repo, target, missing)
    if missing:
        _check_space(models_dir, staging, missing)
        size = sum(file.size for file in missing)
        report(f"files to fetch: {len(missing)}, {in_gigabytes(size)}, from {hub.name}")
        _fetch_all(hub, repo, listing.revision, missing, staging)
        report("all files verified")
        receipt = {"repo": repo, "hub": hub.name, "revision": listing.revision}
        (staging / RECEIPT).write_text(json.dumps(receipt) + "\n", encoding="utf-8")
        _publish(staging, target, missing)
    return Download(
        folder=target,
        files=len(listing.files),
        size=sum(file.size for file in listing.files),
        fetched=len(missing),
        fetched_bytes=sum(file.size for file in missing),
        unhashed=tuple(file.path for file in listing.files if not (file.sha256 or file.git_sha1)),
    )


def _check_is_ours(repo: str, target: Path, missing: list[HubFile]) -> None:
    """Refuse to overwrite files in a folder that did not come from this repository by this command."""
    replaced = [file.path for file in missing if (target / file.path).exists()]
    if not replaced:
        return
    try:
        receipt = json.loads((target / RECEIPT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        receipt = None
    if not isinstance(receipt, dict) or receipt.get("repo") != repo:
        raise DownloadError(
            f"{target} exists and differs from {repo} in {', '.join(replaced[:5])}, but this command did not "
            "make it: it may be your own model. Move it away, or choose another --dir."
        )


def _check_space(models_dir: Path, staging: Path, missing: list[HubFile]) -> None:
    there = sum(path.stat().st_size for path in staging.rglob("*") if path.is_file())
    needed = max(0, sum(file.size for file in missing) - there) + SPARE_BYTES
    free = shutil.disk_usage(models_dir).free
    if free < needed:
        raise DownloadError(
            f"{models_dir} has {in_gigabytes(free)} free and the download needs {in_gigabytes(needed)}; "
            "make room, or choose another --dir"
        )


def _fetch_all(hub: Hub, repo: str, revision: str, files: list[HubFile], staging: Path) -> None:
    staging.mkdir(exist_ok=True)

    def fetch(file: HubFile) -> None:
        for _ in range(_ATTEMPTS):
            if matches(staging / file.path, file):
                return
            (staging / file.path).unlink(missing_ok=True)
            hub.fetch(repo, revision, file, staging)
        if not matches(staging / file.path, file):
            (staging / file.path).unlink(missing_ok=True)
            raise DownloadError(
                f"{file.path} of {repo} arrived damaged from {hub.name}: its size or hash is not the one "
                "listed there. Run the command again later, or use the other --source."
            )

    # The largest first, so that the last to end is not the one that began last.
    largest_first = sorted(files, key=lambda file: -file.size)
    pool = ThreadPoolExecutor(_PARALLEL_FILES)
    try:
        futures = [pool.submit(fetch, file) for file in largest_first]
        for future in futures:
            future.result()
    except BaseException as error:
        # After a failure the files under way may end, they are kept; Ctrl-C does not wait for gigabytes.
        pool.shutdown(wait=isinstance(error, Exception), cancel_futures=True)
        raise
    pool.shutdown()


def _publish(staging: Path, target: Path, files: list[HubFile]) -> None:
    """Put verified files in place: the whole folder by one rename, or file by file into one that exists."""
    wanted = {staging / file.path for file in files} | {staging / RECEIPT}
    if target.exists():
        for path in wanted:
            place = target / path.relative_to(staging)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)
        shutil.rmtree(staging)
        return
    for path in staging.rglob("*"):
        if path.is_file() and path not in wanted:
            path.unlink()
    for path in sorted(staging.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    staging.rename(target)


def in_gigabytes(size: int) -> str:
    """Return a size in bytes for people: `1.2 GB`."""
    return f"{size / 1e9:.1f} GB"
