"""Mask: a secret is hidden in every form in which a server or a proxy may repeat it."""

import html
import json
from urllib.parse import quote

import pytest

from qwen3_vllm._core.http.masking import Mask

SECRET = "p@ss/w&rd+9 Ü"
FORMS = {
    "itself": SECRET,
    "JSON": json.dumps(SECRET),
    "URL": quote(SECRET, safe=""),
    "path": quote(SECRET),
    "HTML": f"<p>{html.escape(SECRET)}</p>",
    "bytes": repr(SECRET.encode()),
}


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS)
def test_a_secret_is_hidden_in_every_form(text: str) -> None:
    masked = Mask([SECRET])(f"you sent {text}!")

    assert "***" in masked
    assert "rd" not in masked
