"""What can go wrong between `serve` and a server that answers."""


class LaunchError(Exception):
    """Something that can be seen before boot makes it pointless; the message says what to change."""


class ServerDied(Exception):
    """The server ended, or was not ready in time; the message holds the cause and the last log lines."""
