"""When one of several servers is set aside, and for how long; by a clock of the test's own."""

import pytest

from qwen3_vllm import errors
from qwen3_vllm._core.http.several.health import Health

REFUSED = errors.ServerUnreachableError("refused")
LOST = errors.ServerUnreachableError("lost", "lost")
BROKEN = errors.ServerError("broken", status=500)
HUNG = errors.RequestTimeoutError("hung")
FULL = errors.OverloadedError("full", status=503)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    """A server that has been checked."""
    health = Health(clock, jitter=lambda: 1.0)
    health.passed()
    clock.now += 1
    return health


def test_a_server_is_not_used_before_it_was_checked(clock: Clock) -> None:
    health = Health(clock)
    assert (health.usable, health.due) == (False, True)
    health.passed()
    assert (health.usable, health.due) == (True, False)


@pytest.mark.parametrize(
    ("problem", "failures"), [(REFUSED, 1), (HUNG, 1), (LOST, 2), (BROKEN, 2), (FULL, None)]
)
def test_it_is_set_aside_after_so_many_failures_in_a_row(
    problem: errors.Qwen3VLLMError, failures: int | None, health: Health, clock: Clock
) -> None:
    set_aside = [health.failed(problem, clock.now) for _ in range(failures or 9)]
    assert set_aside == [False] * (len(set_aside) - 1) + [failures is not None]
    assert health.usable == (failures is None)


def test_an_answer_ends_the_row(health: Health, clock: Clock) -> None:
    for _ in range(3):
        assert not health.failed(BROKEN, clock.now)
        health.answered()


def test_one_that_is_slow_but_answers_others_is_kept(health: Health, clock: Clock) -> None:
    began = clock.now
    clock.now += 5
    health.answered()
    assert not health.failed(HUNG, began)


def test_what_began_before_the_last_check_says_nothing(health: Health) -> None:
    assert not health.failed(REFUSED, 50.0)


def test_each_pause_is_longer_up_to_a_minute_until_it_has_answered(health: Health, clock: Clock) -> None:
    pauses = [health.set_aside(REFUSED) for _ in range(8)]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    clock.now += 59.9
    assert not health.due
    clock.now += 0.1
    assert health.due
    health.passed()
    assert health.set_aside(REFUSED) == 60  # it passed the check only
    health.passed()
    health.answered()
    assert health.set_aside(REFUSED) == 1


def test_the_pauses_of_many_clients_differ(clock: Clock) -> None:
    assert Health(clock, jitter=lambda: 0.0).set_aside(REFUSED) == 0.5
