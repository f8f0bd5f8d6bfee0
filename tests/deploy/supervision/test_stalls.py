from __future__ import annotations

from dataclasses import replace

from deploy.supervision.stalls import Stalls, Work, work_of


def test_requests_that_wait_with_nothing_done_are_a_stall() -> None:
    stalls = Stalls()
    hung = {"pill": Work(waiting=3, batches=7, batch_s=0.01)}
    assert [stalls.look(hung, now_s=now) for now in (0.0, 3.0, 5.9, 6.0, 6.5)] == [[], [], [], ["pill"], []]


def test_an_overloaded_model_is_not_hung() -> None:
    stalls = Stalls()
    for second in range(60):  # a batch every 5 s, and ever more requests
        work = {"pill": Work(waiting=10 * second, batches=second // 5, batch_s=4.0)}
        assert stalls.look(work, now_s=float(second)) == []


def test_a_slow_model_has_longer() -> None:
    stalls = Stalls()
    slow = {"sam": Work(waiting=1, batches=7, batch_s=4.0)}
    assert [stalls.look(slow, now_s=now) for now in (0.0, 19.0, 20.0)] == [[], [], ["sam"]]


def killed_after_s(stalls: Stalls, work: Work, *, began_s: float = 0.0) -> float:
    """Seconds until a model is found stalled that does nothing more."""
    seconds = 0.0
    while "sam" not in stalls.look({"sam": work}, now_s=began_s + seconds):
        seconds += 1.0
    return seconds


def test_nobody_knows_how_long_the_first_batch_takes() -> None:
    assert killed_after_s(Stalls(), Work(waiting=3, batches=0, batch_s=0.0)) == 60


def test_what_batches_take_is_known_after_a_reload() -> None:
    stalls = Stalls()
    stalls.look({"sam": Work(waiting=0, batches=7, batch_s=9.0)}, now_s=0.0)
    anew = Work(waiting=3, batches=0, batch_s=0.0)
    assert killed_after_s(stalls, anew, began_s=10.0) == 45
    stalls.begin()  # another server
    assert stalls.remembered({"sam": anew, "pill": anew})["sam"] == replace(anew, batch_s=9.0)
    assert stalls.remembered({"pill": anew}) == {"pill": anew}
    assert killed_after_s(stalls, anew, began_s=100.0) == 90


def test_a_model_that_is_reloaded_in_vain_has_twice_as_long() -> None:
    """Single images are fast, and each large batch is killed before it is done."""
    stalls = Stalls()
    fast = Work(waiting=3, batches=7, batch_s=0.01)
    times = []
    for began_s in (0.0, 1000.0, 2000.0, 3000.0, 9000.0):
        stalls.look({"sam": Work(waiting=0, batches=0, batch_s=0.0)}, now_s=began_s)
        times.append(killed_after_s(stalls, fast, began_s=began_s))
    assert times == [6, 12, 24, 48, 6]


def test_a_model_without_requests_is_idle() -> None:
    stalls = Stalls()
    idle = {"pill": Work(waiting=0, batches=7, batch_s=0.01)}
    assert [stalls.look(idle, now_s=now) for now in (0.0, 100.0)] == [[], []]
    assert stalls.look({"pill": Work(waiting=1, batches=7, batch_s=0.01)}, now_s=101) == []


def test_single_images_do_not_make_large_batches_late() -> None:
    """An idle server is asked for single images, one after the other."""
    sizes = [
        {"batch_size": 1, "compute_infer": {"count": 1000, "ns": 4_000 * 10**9}},
        {"batch_size": 8, "compute_infer": {"count": 2, "ns": 60 * 10**9}},
    ]
    stats = {"success": {"count": 1016}, "fail": {"count": 3}}
    entry = {"execution_count": 1002, "inference_stats": stats, "batch_stats": sizes}
    assert work_of([entry], 5) == Work(waiting=5, batches=1005, batch_s=30.0, answered=1016)
    assert work_of([{**entry, "batch_stats": []}], 0).batch_s == 0
