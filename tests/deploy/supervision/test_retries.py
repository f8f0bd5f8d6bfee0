from __future__ import annotations

import math

from deploy.supervision.retries import LoadRetries, Restarts


def test_a_server_that_served_is_started_at_once() -> None:
    restarts = Restarts()
    assert [restarts.next_delay_s(served_s=20) for _ in range(5)] == [0] * 5


def test_starts_that_fail_are_further_and_further_apart() -> None:
    restarts = Restarts()
    delays = [restarts.next_delay_s(served_s=None) for _ in range(10)]
    assert delays == [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert restarts.next_delay_s(served_s=0.5) == 60  # it died as it began
    assert restarts.next_delay_s(served_s=5) == 0
    assert restarts.next_delay_s(served_s=None) == 0


def test_a_model_is_left_out_after_three_tries_and_tried_again_now_and_then() -> None:
    retries = LoadRetries()
    times = [retries.failed("pill", "no file", now_s=100).next_s - 100 for _ in range(8)]
    assert times == [1, 2, 60, 120, 240, 480, 600, 600]
    assert retries.left_out() == {"pill": "no file"}
    assert retries.due(now_s=699) is None
    assert retries.due(now_s=700) == "pill"
    assert retries.loaded(["pill", "nut"]) == ["pill"]
    assert retries.left_out() == {}


def test_of_two_models_that_a_server_died_of_each_is_tried_alone() -> None:
    retries = LoadRetries()
    told = [retries.killed_the_server(["nut", "pill"], "died", now_s=0) for _ in range(3)]
    assert told == [[], [], ["nut", "pill"]]
    assert retries.due(now_s=0) == "nut"
    retries.loaded(["nut"])
    retries.killed_the_server(["pill"], "died", now_s=0)
    assert retries.failures["pill"].next_s == math.inf
    assert retries.due(now_s=1e9) is None


def test_that_a_model_loads_after_all_is_news_only_where_a_failure_was_told() -> None:
    retries = LoadRetries()
    retries.killed_the_server(["nut", "pill"], "died", now_s=0)
    retries.failed("pill", "no file", now_s=0)
    retries.killed_the_server(["pill"], "died", now_s=0)  # what was told once stays told
    assert retries.loaded(["nut", "pill"]) == ["pill"]
    assert retries.failures == {}
