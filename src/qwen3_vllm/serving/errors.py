"""What can go wrong between `serve` and a server that answers; see `qwen3_vllm.errors` for the whole tree."""

from qwen3_vllm.errors import DownloadError, LaunchError, ServerDied

__all__ = ["DownloadError", "LaunchError", "ServerDied"]
