"""A private certificate authority, made with OpenSSL."""

import shutil
import subprocess
from pathlib import Path

import pytest


def make_authority(folder: Path) -> Path:
    """Write an authority, and a certificate and key for 127.0.0.1 that it signed; returns the folder."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    use = "keyUsage=critical,keyCertSign,cRLSign"
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1")
    sign = "x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -out cert.pem -extfile names"
    for command in (
        # Python 3.13 requires the use of the key to be named.
        [
            "req",
            "-x509",
            *ec,
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
            "-subj",
            "/CN=Private CA",
            "-addext",
            use,
        ],
        ["req", *ec, "-keyout", "key.pem", "-out", "request.pem", "-subj", "/CN=gpu"],
        sign.split(" "),
    ):
        subprocess.run([openssl, *command], check=True, capture_output=True, cwd=folder)
    return folder
