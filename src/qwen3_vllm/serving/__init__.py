"""Start vLLM servers for Qwen3 models, from Python as from the command line.

Needs none of the clients, and imports no vLLM: that runs in a process of its own.
"""

from qwen3_vllm.errors import LaunchError, ServerDied
from qwen3_vllm.serving.launch import make_server, running, start_server
from qwen3_vllm.serving.options import ServeOptions
from qwen3_vllm.serving.process.server import Progress, Server, wait_until_ready

__all__ = [
    "LaunchError",
    "Progress",
    "ServeOptions",
    "Server",
    "ServerDied",
    "make_server",
    "running",
    "start_server",
    "wait_until_ready",
]
