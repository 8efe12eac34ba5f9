"""What counts as a callback."""

from typing import Any

import pytest

from pgkit.callbacks.protocol import Watch, check_callbacks, watch_of
from pgkit.errors import PgkitError


def callback(**attributes: Any) -> object:
    """An object of a class Mine with these attributes."""
    return type("Mine", (), attributes)()


def nothing(self: object, view: object) -> None:
    """A method that does nothing."""


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (callback(on_end=nothing), r"callbacks must be a list of callbacks, such as \[MyCallback\(\)\], got Mine"),
        ([type("Mine", (), {"on_end": nothing})], "callbacks must be objects, got the class Mine"),
        ([callback()], "callback Mine defines none of on_start, on_rollout"),
        ([callback(on_evalution=nothing)], "Mine: unknown moment 'on_evalution', did you mean 'on_evaluation'"),
        ([callback(_on_step=nothing)], "Mine has _on_step, which is on_update in pgkit"),
        ([callback(on_train_end=nothing)], "Mine has on_train_end, which is on_end in pgkit"),
        ([callback(on_update=nothing, every=0)], "every must be a whole number of at least 1, got 0"),
        ([callback(on_log=nothing, every=2)], "every = 2 has no effect without on_rollout or on_update"),
    ],
)
def test_what_is_no_callback_is_refused(value: Any, problem: str) -> None:
    with pytest.raises(PgkitError, match=problem):
        check_callbacks(value)


def test_workers_watch_what_any_callback_defines() -> None:
    several = [callback(on_update=nothing, every=4), callback(on_log=nothing), callback(on_rollout=nothing, every=6)]
    watch = watch_of(check_callbacks(several))
    assert watch == Watch(frozenset(["on_update", "on_log", "on_rollout"]), (4, 6))
    watched = [update + 1 for update in range(24) if watch.unwatched(update) == 0]
    assert watched == [4, 6, 8, 12, 16, 18, 20, 24]
    assert watch_of([callback(on_log=nothing)]).unwatched(7) is None
