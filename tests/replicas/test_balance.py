"""Whose turn an app is."""

from __future__ import annotations

import math
from collections import Counter

from deployer.replicas import balance

APPS = [f"app-{number}" for number in range(3000)]


def shares(slots: dict[str, int]) -> Counter[str]:
    return Counter(balance.order(slots, "shop", app)[0] for app in APPS)


def test_equal_replicas_have_about_the_same_number_of_apps() -> None:
    assert all(900 < count < 1100 for count in shares({"a": 128, "b": 128, "c": 128}).values())


def test_a_replica_with_more_slots_has_more_apps() -> None:
    found = shares({"small": 10, "large": 30})
    assert 2.6 < found["large"] / found["small"] < 3.5


def test_one_that_is_gone_leaves_the_others_what_they_have() -> None:
    before, after = {"a": 8, "b": 8, "c": 8}, {"a": 8, "b": 8}
    for app in APPS:
        first, *rest = balance.order(before, "shop", app)
        assert balance.order(after, "shop", app)[0] == (first if first != "c" else rest[0])


def test_everybody_finds_the_same_order_whatever_it_heard_first() -> None:
    one, other = {"a": 1, "b": 2, "c": 3}, {"c": 3, "a": 1, "b": 2}
    assert all(balance.order(one, "shop", app) == balance.order(other, "shop", app) for app in APPS)


def test_the_others_step_in_one_after_the_other_within_seconds() -> None:
    slots = dict.fromkeys("abcdefgh", 1)
    first, second, *_, last = balance.order(slots, "shop", "cart")
    assert balance.patience(first, slots, "shop", "cart") == 0.0
    assert balance.patience(second, slots, "shop", "cart") == balance.STEP_IN
    assert balance.patience(last, slots, "shop", "cart") == balance.PATIENCE_MOST


def test_one_without_slots_takes_up_nothing() -> None:
    assert balance.order({"a": 0, "b": 1}, "shop", "cart") == ["b"]
    assert balance.patience("a", {"a": 0, "b": 1}, "shop", "cart") == math.inf
    assert balance.patience("unknown", {"b": 1}, "shop", "cart") == math.inf
