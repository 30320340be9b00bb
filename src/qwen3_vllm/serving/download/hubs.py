"""The two hubs that carry Qwen3's weights, each through its own client: list a repository, fetch one file.

Mirrors, proxies and tokens are the clients' own business: `MODELSCOPE_ENDPOINT` and `MODELSCOPE_API_TOKEN`,
`HF_ENDPOINT` and `HF_TOKEN`, `HTTPS_PROXY` for both.
"""

import importlib.util
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from qwen3_vllm.errors import DownloadError

Source = Literal["modelscope", "huggingface"]

_INSTALL = "install it: pip install 'qwen3-vllm[download]'"
_QUERY_STRING = re.compile(r"\?[^\s'\"<>)]*")


@dataclass(frozen=True)
class HubFile:
    """A file as its hub lists it: `sha256` where the hub has one, else git's SHA-1 of the blob, or none."""

    path: str
    size: int
    sha256: str | None = None
    git_sha1: str | None = None


@dataclass(frozen=True)
class Listing:
    """All files of a repository at one revision: a commit on Hugging Face, a branch on ModelScope."""

    revision: str
    files: tuple[HubFile, ...]


class Hub(Protocol):
    """What a download needs of a hub. Both methods raise DownloadError."""

    name: Source

    def list_files(self, repo: str) -> Listing:
        """List the repository's files with sizes and hashes."""

    def fetch(self, repo: str, revision: str, file: HubFile, folder: Path) -> None:
        """Put one file into the folder under its path."""


def choose_hub(source: Source | None) -> Hub:
    """Return the hub asked for; None takes ModelScope if its client is installed, else Hugging Face.

    Raises:
        DownloadError: The client is not installed.
    """
    installed: dict[Source, bool] = {
        "modelscope": importlib.util.find_spec("modelscope_hub") is not None,
        "huggingface": importlib.util.find_spec("huggingface_hub") is not None,
    }
    if source is None and not any(installed.values()):
        raise DownloadError(f"neither modelscope nor huggingface-hub is installed; {_INSTALL}")
    chosen: Source = source or ("modelscope" if installed["modelscope"] else "huggingface")
    if not installed[chosen]:
        package = {"modelscope": "modelscope (1.38 or newer)", "huggingface": "huggingface-hub"}[chosen]
        raise DownloadError(f"{package} is not installed; {_INSTALL}")
    return ModelScope() if chosen == "modelscope" else HuggingFace()


class ModelScope:
    """modelscope.cn, or `MODELSCOPE_ENDPOINT`. Its client resumes, fetches large files in parallel parts."""

    name: Source = "modelscope"

    def __init__(self) -> None:
        from modelscope_hub import HubApi

        self._api = HubApi()

    def list_files(self, repo: str) -> Listing:
        with self._errors(repo):
            found = self._api.list_repo_files(repo, "model", revision="master")
        files = (HubFile(file.path, file.size, file.sha256) for file in found if not file.is_dir)
        return Listing("master", tuple(files))

    def fetch(self, repo: str, revision: str, file: HubFile, folder: Path) -> None:
        with self._errors(f"{repo}/{file.path}"):
            self._api.download_file(
                repo,
                "model",
                file.path,
                revision=revision,
                local_dir=folder,
                expected_sha256=file.sha256,
                file_size=file.size,
            )

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        from modelscope_hub.errors import AuthenticationError, HubError, NotExistError, PermissionDeniedError

        try:
            yield
        except NotExistError as error:
            raise _not_found(what, self.name) from error
        except (AuthenticationError, PermissionDeniedError) as error:
            raise _refused(what, self.name, "MODELSCOPE_API_TOKEN") from error
        except (HubError, OSError) as error:
            raise _failed(what, self.name, error, "MODELSCOPE_ENDPOINT") from error


class HuggingFace:
    """huggingface.co, or `HF_ENDPOINT`."""

    name: Source = "huggingface"

    def list_files(self, repo: str) -> Listing:
        from huggingface_hub import HfApi

        with self._errors(repo):
            info = HfApi().model_info(repo, files_metadata=True)
        files = (
            HubFile(
                path=file.rfilename,
                size=file.size or 0,
                sha256=file.lfs.sha256 if file.lfs else None,
                git_sha1=None if file.lfs else file.blob_id,
            )
            for file in info.siblings or ()
        )
        return Listing(info.sha or "main", tuple(files))

    def fetch(self, repo: str, revision: str, file: HubFile, folder: Path) -> None:
        from huggingface_hub import errors, hf_hub_download

        with self._errors(f"{repo}/{file.path}"):
            while True:
                before = _incomplete_bytes(folder)
                try:
                    hf_hub_download(repo, file.path, revision=revision, local_dir=folder)
                    return
                except (errors.HTTPError, OSError):
                    # Releases 0.x give up where a connection is cut, though the next call continues there.
                    if _incomplete_bytes(folder) <= before:
                        raise

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        from huggingface_hub import errors

        try:
            yield
        except errors.GatedRepoError as error:
            raise _refused(what, self.name, "HF_TOKEN") from error
        except (errors.RepositoryNotFoundError, errors.EntryNotFoundError, errors.HFValidationError) as error:
            raise _not_found(what, self.name) from error
        # The hub's HTTP library differs by release (requests, httpx, httpx2); errors re-exports its base.
        except (errors.HTTPError, OSError) as error:
            raise _failed(what, self.name, error, "HF_ENDPOINT") from error


def _incomplete_bytes(folder: Path) -> int:
    """Return what Hugging Face's client keeps in the folder of files that it has not whole."""
    parts = (folder / ".cache" / "huggingface").rglob("*.incomplete")
    return sum(part.stat().st_size for part in parts if part.exists())


def _not_found(what: str, hub: Source) -> DownloadError:
    return DownloadError(f"{hub} has no {what}, or it is private: check the name, the size and --source")


def _refused(what: str, hub: Source, token: str) -> DownloadError:
    return DownloadError(
        f"{hub} does not give {what} to this account; put a token that may read it in {token}"
    )


def _failed(what: str, hub: Source, error: Exception, endpoint: str) -> DownloadError:
    # A redirect to a storage server carries its signature in the query string: a key while it lasts.
    said = _QUERY_STRING.sub("?…", str(error)).strip() or type(error).__name__
    return DownloadError(
        f"{hub} could not send {what}: {said}\n"
        f"Run the command again: it continues where it stopped. Behind a firewall set HTTPS_PROXY, or "
        f"{endpoint} to a mirror, or take the other --source."
    )
