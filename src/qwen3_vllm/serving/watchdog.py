"""Stop a server when whoever started it is gone, even by kill -9: `python watchdog.py GROUP`.

Standard input is a pipe whose other end only the starter holds: it closes when the starter ends. A byte on
it says that the server is stopped already. Run by path and with `python -I`, so that it costs milliseconds.
"""

import os
import signal
import sys
import time

SECONDS_TO_END = 20.0


def stop_group(group: int) -> None:
    """Ask a process group to end, and make it end."""
    try:
        os.killpg(group, signal.SIGTERM)
        deadline = time.monotonic() + SECONDS_TO_END
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(0.2)
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    if not sys.stdin.buffer.read(1):
        stop_group(int(sys.argv[1]))
