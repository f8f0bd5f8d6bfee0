"""As many verdicts as images, in their order, or an error after those before it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client import ClientError
from client.core.errors import ImageFileError, RequestError
from client.core.windows import Window
from tests.client.judging.scripted_server import MAX_BATCH, Script, grey, png, scripted_judge
from tests.deploy.conftest import comes_true


@pytest.mark.parametrize("batch", [1, 2, MAX_BATCH])
def test_images_of_every_kind_in_one_stream(tmp_path: Path, batch: int) -> None:
    """Formerly a batch of a file and an image gave one verdict."""
    grey(60).save(tmp_path / "60.png")
    images = [
        png(10),
        grey(20),
        png(30),
        png(40),
        np.asarray(grey(50)),
        tmp_path / "60.png",
        bytearray(png(70)),
    ]
    script = Script()
    with scripted_judge(script) as judge:
        scores = [score.score for score in judge.score_many(images, batch=batch)]
        assert scores == [10, 20, 30, 40, 50, 60, 70]
        assert sum(count for _, count in script.asked) == len(images)
        scores = [verdict.score for verdict in judge.judge_many(images, batch=batch)]
        assert scores == [10, 20, 30, 40, 50, 60, 70]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "The batch is 0; expected a whole number of at least 1."),
        ({"batch": -1}, "The batch is -1; expected a whole number of at least 1."),
        ({"batch": 1.5}, "The batch is 1.5; expected a whole number of at least 1."),
        ({"in_flight": 0}, "The number of requests in flight is 0; expected a whole number of at least 1."),
        ({"in_flight": -3}, "The number of requests in flight is -3; expected a whole number of at least 1."),
        ({"threshold": float("nan")}, "The threshold is nan; expected a finite number of at least 0."),
    ],
)
def test_numbers_that_cannot_be_are_refused_at_once(options: dict[str, int], message: str) -> None:
    with scripted_judge(Script()) as judge:
        for ask in (judge.judge_many, judge.score_many):
            with pytest.raises(RequestError) as caught:
                ask([grey(10)], **options)  # before anything is asked for
            assert caught.value.message == message
            assert caught.value.exit_code == 2


@pytest.mark.parametrize("one", [grey(1), png(1), "part.png", Path("part.png"), np.asarray(grey(1)), None, 3])
def test_one_image_is_not_taken_for_many(one: object) -> None:
    """Formerly a path was taken apart into its letters and bytes into numbers."""
    with scripted_judge(Script()) as judge, pytest.raises(RequestError, match="Several images were expected"):
        judge.score_many(one)  # type: ignore[arg-type]


def test_none_of_no_images() -> None:
    with scripted_judge(Script()) as judge:
        assert list(judge.score_many([])) == []


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("in_flight", [1, 4])
def test_what_was_asked_before_an_unreadable_image_is_answered(batch: int, in_flight: int) -> None:
    def images() -> Iterator[object]:
        yield from (grey(10), grey(20), grey(30))
        yield "gone.png"
        yield grey(40)

    with scripted_judge(Script()) as judge:
        answers = judge.score_many(images(), batch=batch, in_flight=in_flight)
        assert [next(answers).score for _ in range(3)] == [10, 20, 30]
        with pytest.raises(ImageFileError, match=r"^gone\.png cannot be read"):
            next(answers)
        with pytest.raises(StopIteration):
            next(answers)


def test_an_image_that_is_none_is_named_by_its_place() -> None:
    with scripted_judge(Script()) as judge:
        answers = judge.score_many([grey(10), np.zeros((2, 2), np.bool_)])
        assert next(answers).score == 10
        with pytest.raises(ClientError, match=r"^Image 1 \(counted from 0\) is an array \[2, 2\] of bool"):
            next(answers)


@pytest.mark.parametrize("shared_memory", [False, True])
def test_a_flood_is_answered_in_order_although_the_server_refuses(shared_memory: bool) -> None:
    """Far more in flight than the server has room for: formerly the first refusal ended it."""
    script = Script(room=4, delay_s=0.01)
    values = [0] * 100 if shared_memory else list(range(100))
    with scripted_judge(script, shared_memory=shared_memory) as judge:
        assert [score.score for score in judge.score_many(map(grey, values), in_flight=500)] == values
        assert script.tries > len(values)  # some were refused
        assert [verdict.score for verdict in judge.judge_many(map(grey, values), in_flight=20)] == values


def test_the_window_is_halved_once_for_all_that_were_refused_together() -> None:
    window = Window(16)
    numbers = [window.next_number() for _ in range(16)]
    for number in numbers[8:]:
        window.narrow(number)
    assert window.size == 8
    window.narrow(window.next_number())
    assert window.size == 4
    for _ in range(5):
        window.narrow(window.next_number())
    assert window.size == 1


def test_a_stream_that_is_given_up_leaves_nothing_on_its_way() -> None:
    script = Script(delay_s=0.1)
    with scripted_judge(script, shared_memory=True) as judge:
        answers = judge.judge_many([Image.new("L", (5, 5))] * 9, in_flight=3)
        next(answers)
        answers.close()  # type: ignore[attr-defined]
        assert script.tries == len(script.asked)
        assert len(script.registered) == 1  # of single calls
        assert judge.score(grey(0)).score == 0


def test_a_verdict_comes_before_the_window_is_full_where_it_is_there() -> None:
    """A line's images come when they come: formerly the first verdict came when as many images had as go together."""
    script, read = Script(), []

    def images() -> Iterator[Image.Image]:
        for value in range(9):
            yield grey(value)
            read.append(value)
            assert comes_true(lambda: len(script.asked) == len(read), within_s=20)
            time.sleep(0.05)

    with scripted_judge(script) as judge:
        scores = judge.score_many(images(), in_flight=4)
        assert next(scores).score == 0
        assert len(read) <= 2
        assert [score.score for score in scores] == [*range(1, 9)]
