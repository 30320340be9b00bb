"""Start vLLM servers for Qwen3 models, from Python as from the command line.

Needs none of the clients, and imports no vLLM: that runs in a process of its own.
"""

from .errors import LaunchError, ServerDied
from .launch import make_server, running, start_server
from .options import ServeOptions
from .server import Progress, Server, wait_until_ready

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
