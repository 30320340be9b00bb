"""retry_delay: how long to wait before another attempt."""

import pytest

from qwen3_vllm import errors
from qwen3_vllm._core.http.retries import retry_delay


def test_waiting_doubles_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    busy = errors.OverloadedError("", status=503)

    assert [retry_delay(busy, n) for n in range(6)] == [0.5, 1, 2, 4, 8, 8]


def test_waiting_varies_so_that_clients_do_not_come_back_all_at_once() -> None:
    busy = errors.OverloadedError("", status=503)

    assert len({retry_delay(busy, 3) for _ in range(20)}) > 10


@pytest.mark.parametrize(("asked", "waited"), [(0.0, 0.0), (7.0, 7.0), (86_400.0, 60.0)])
def test_retry_after_is_honoured_up_to_a_minute(asked: float, waited: float) -> None:
    error = errors.OverloadedError("", status=429, retry_after=asked)

    assert retry_delay(error, 0) == waited
