"""Which addresses only this machine can reach."""

from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address. A name other than localhost counts as public."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
