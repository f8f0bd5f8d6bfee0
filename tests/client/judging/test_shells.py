"""Both shells have the same names and give the same results, whatever becomes of an image or of the category."""

from __future__ import annotations

import asyncio
import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import ExifTags, Image

from client import (
    AsyncJudgeClient,
    Failure,
    ImageFileError,
    JudgeClient,
    RefusedImage,
    RequestError,
    ServerFault,
)
from client.core.errors import AnswerError
from model_repository.image_size import NATIVE, SIDE_STEP
from tests.client.judging.scripted_server import SIZE, TIMEOUT_S, Script, grey, png, scripted_server
from tests.deploy.conftest import comes_true

SHELLS = ("JudgeClient", "AsyncJudgeClient")
METHODS = ("judge", "score", "judge_many", "score_many")
OF_ASYNC_ALONE = {"connect"}


def public(client: type) -> dict[str, Any]:
    return {name: value for name, value in inspect.getmembers(client) if not name.startswith("_")}


def results(
    shell: str,
    url: str,
    method: str,
    images: Iterable[Any],
    *,
    shared_memory: bool = False,
    timeout_s: float = TIMEOUT_S,
    got: list[Any] | None = None,
    closing: list[bool] | None = None,
    **options: Any,
) -> list[Any]:
    """What a method gives of images, one after the other or all at once.

    Args:
        got: they are put into it as they come.
        closing: once it holds something, the client is closed.
    """
    got = [] if got is None else got
    connection: dict[str, Any] = {"category": "pill", "timeout_s": timeout_s, "shared_memory": shared_memory}
    connection |= {"probe": options.pop("probe")} if "probe" in options else {}

    def ask() -> None:
        with JudgeClient(url, **connection) as judge:
            asked = getattr(judge, method)
            many = method.endswith("_many")
            for result in asked(images, **options) if many else (asked(image, **options) for image in images):
                got.append(result)
                if closing:
                    judge.close()

    async def ask_async() -> None:
        async with AsyncJudgeClient(url, **connection) as judge:
            asked = getattr(judge, method)
            if method.endswith("_many"):
                async for result in asked(images, **options):
                    got.append(result)
                    if closing:
                        await judge.close()
                return
            for image in images:
                got.append(await asked(image, **options))

    ask() if shell == "JudgeClient" else asyncio.run(ask_async())
    return got


def test_both_have_the_same_names_and_parameters() -> None:
    sync, other = public(JudgeClient), public(AsyncJudgeClient)
    assert other.keys() - sync.keys() == OF_ASYNC_ALONE
    assert sync.keys() <= other.keys()
    for name in (*METHODS, "__init__"):
        there, here = (inspect.signature(getattr(client, name)) for client in (AsyncJudgeClient, JudgeClient))
        assert list(there.parameters) == list(here.parameters), name
        for parameter, value in here.parameters.items():
            assert there.parameters[parameter].default == value.default, f"{name}: {parameter}"


@pytest.mark.parametrize("shell", SHELLS)
def test_a_probe_says_so_and_nothing_else_does(shell: str) -> None:
    script = Script()
    with scripted_server(script) as url:
        for method in ("judge", "score", "judge_many", "score_many"):
            results(shell, url, method, [grey(10)], probe=True)
            results(shell, url, method, [grey(10)])
    assert script.probes == [True, False] * 4


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_fault_in_one_image_ends_that_one(shell: str, batch: int, tmp_path: Path) -> None:
    """Unreadable here, or refused by the server in the middle of a batch: those beside it have their verdicts."""
    images = [png(10), "gone.png", png(20), b"no image", png(30), np.zeros((2, 2)), grey(40), grey(50)]
    script = Script()
    with scripted_server(script) as url:
        got = results(shell, url, "score_many", images, batch=batch, on_error="return")
        verdicts = results(shell, url, "judge_many", images[2:5], batch=batch, on_error="return")
        with pytest.raises(RefusedImage, match="is not an image"):
            results(shell, url, "judge_many", images[2:5], batch=batch)
    assert [getattr(result, "score", type(getattr(result, "error", None))) for result in got] == [
        10, ImageFileError, 20, RefusedImage, 30, got[5].error.__class__, 40, 50,
    ]  # fmt: skip
    failures = [result for result in got if isinstance(result, Failure)]
    assert [failure.index for failure in failures] == [1, 3, 5]
    assert failures[0].message.startswith("gone.png cannot be read")
    assert isinstance(failures[2].error, TypeError)
    assert failures[2].message.startswith("Image 5 (counted from 0) is an array [2, 2] of float64; expected")
    assert [type(result).__name__ for result in verdicts] == ["Verdict", "Failure", "Verdict"]


@pytest.mark.parametrize("shell", SHELLS)
def test_values_that_are_not_finite_cost_their_own_image_alone(shell: str) -> None:
    """As the fusion says it of a batch, and then of the image alone."""
    fault = (grpc.StatusCode.INTERNAL, "image 2 of 3 cannot be judged: its distance maps are not finite")
    with scripted_server(Script(refuse=lambda number: fault if number in (1, 3) else None)) as url:
        got = results(shell, url, "score_many", [grey(10), grey(20), grey(30)], batch=3, on_error="return")
    assert [type(result).__name__ for result in got] == ["Score", "Failure", "Score"]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_server_that_fails_gives_a_failure_an_image(shell: str) -> None:
    fault = (grpc.StatusCode.INTERNAL, "out of paper")
    with scripted_server(Script(refuse=lambda number: fault if number > 1 else None)) as url:
        got = results(shell, url, "score_many", [grey(30)] * 3, on_error="return", in_flight=1)
    assert [isinstance(result, Failure) for result in got] == [False, True, True]
    assert all(isinstance(result.error, ServerFault) for result in got[1:])


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("on_error", ["raise", "return"])
def test_what_the_images_themselves_raise_comes_after_the_verdicts_before_it(
    shell: str, on_error: str
) -> None:
    def images() -> Iterator[Any]:
        yield from (grey(10), grey(20), grey(30))
        raise ZeroDivisionError

    got: list[Any] = []
    with scripted_server(Script()) as url, pytest.raises(ZeroDivisionError):
        results(shell, url, "score_many", images(), got=got, in_flight=8, batch=2, on_error=on_error)
    assert [score.score for score in got] == [10, 20, 30]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shared_memory", [False, True], ids=["wire", "shared memory"])
@pytest.mark.parametrize("new_size", [SIZE // 2, 3 * SIZE])
@pytest.mark.parametrize("kind", ["pixels", "files"])
def test_a_release_of_another_size_breaks_no_running_client(
    shell: str, method: str, shared_memory: bool, new_size: int, kind: str
) -> None:
    """In the middle of a stream too, with requests on their way: formerly that ended it."""
    script = Script()
    image: Callable[[int], Any] = grey if kind == "pixels" else png
    value = 0 if shared_memory and kind == "pixels" else 10  # nobody looks into shared memory here

    def images() -> Iterator[Any]:
        for index in range(8):
            if index == 4:
                script.size, script.release_id = new_size, 78
            yield image(value)

    with scripted_server(script) as url:
        options = {"batch": 2, "in_flight": 2} if method.endswith("_many") else {}
        got = results(shell, url, method, images(), shared_memory=shared_memory, **options)
        assert [score.score for score in got] == [value] * 8
        assert got[-1].release_id == 78
        if method.startswith("judge"):
            assert got[0].anomaly_map.shape == (SIZE, SIZE)
            assert got[-1].anomaly_map.shape == (new_size, new_size)
            assert [verdict.original_size for verdict in got] == [(SIZE, SIZE)] * 8
        assert comes_true(lambda: not script.registered, within_s=20)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("there", [False, True], ids=["to their own size", "back"])
def test_a_release_that_keeps_the_size_of_images_gets_them_whole(
    shell: str, method: str, there: bool
) -> None:
    """It would take one that was shrunk for the release before, and judge what is left of it."""
    releases = [(SIDE_STEP, 4, 77), (NATIVE, 1, 78)][:: -1 if there else 1]
    script, seen = Script(), list[tuple[int, ...]]()
    script.size, script.max_batch, script.release_id = releases[0]
    script.change = lambda outputs: seen.append(outputs["anomaly_map"].shape[1:])
    # One of them fills up to the other release's size; those of different sizes cannot be put together.
    pictures = [Image.new("RGB", size, (10, 10, 10)) for size in ((30, 31), (40, 50), (30, 31))]

    def images() -> Iterator[Any]:
        yield pictures[0]
        script.size, script.max_batch, script.release_id = releases[1]
        yield from pictures[1:]

    options = {"batch": 1 if there else 3, "in_flight": 1} if method.endswith("_many") else {}
    with scripted_server(script) as url:
        got = results(shell, url, method, images(), **options)
    assert [score.score for score in got] == [10] * 3
    fixed = (SIDE_STEP, SIDE_STEP)
    assert seen[-2:] == ([fixed] * 2 if there else [(64, 64), fixed])
    if method.startswith("judge"):
        assert [verdict.anomaly_map.shape for verdict in got[1:]] == (
            [fixed] * 2 if there else [(50, 40), (31, 30)]
        )


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("method", ["judge", "judge_many"])
@pytest.mark.parametrize("lasting", [False, True])
def test_a_release_of_another_size_that_was_live_for_a_moment(shell: str, method: str, lasting: bool) -> None:
    """Promoted, and rolled back before the client asked what is live: the image is asked about once more."""
    script, answers = Script(), itertools.count(1)

    def of_another_release(outputs: dict[str, Any]) -> None:
        if next(answers) == 2 or lasting:
            outputs |= {name: outputs[name][:, ::2, ::2] for name in ("anomaly_map", "pred_mask")}

    script.change = of_another_release
    with scripted_server(script) as url:
        asked = lambda: results(shell, url, method, [grey(10)] * 3)  # noqa: E731
        if lasting:
            with pytest.raises(
                AnswerError, match=r"anomaly_map is FP32 \[1, 4, 4\], expected FP32 \[1, 8, 8\]"
            ):
                asked()
        else:
            assert [verdict.score for verdict in asked()] == [10] * 3
            assert script.tries == 4


@pytest.mark.parametrize("shell", SHELLS)
def test_a_release_that_takes_smaller_batches_breaks_no_stream(shell: str) -> None:
    script = Script()

    def images() -> Iterator[Any]:
        for index in range(12):
            if index == 5:
                script.max_batch, script.release_id = 1, 78
            yield grey(index)

    with scripted_server(script) as url:
        got = results(shell, url, "judge_many", images(), batch=4, in_flight=2)
    assert [verdict.score for verdict in got] == list(range(12))


@pytest.mark.parametrize("shell", SHELLS)
def test_a_release_of_another_bit_depth_reads_deep_images_anew(shell: str) -> None:
    """Formerly the client said that other pixels were judged than meant, and gave no verdict."""
    script = Script(bit_depth=12)
    deep = np.full((SIZE, SIZE), 2**11, np.uint16)

    def images() -> Iterator[Any]:
        for index in range(4):
            if index == 2:
                script.bit_depth, script.release_id = 16, 78
            yield deep

    with scripted_server(script) as url:
        for method in ("score", "score_many"):
            script.bit_depth, script.release_id = 12, 77
            got = results(shell, url, method, images(), **({"in_flight": 1} if "many" in method else {}))
            assert [score.score for score in got] == [128, 128, 8, 8]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("method", METHODS)
def test_what_the_category_did_not_take_when_it_was_looked_up(shell: str, method: str) -> None:
    """A client that has not asked since then: nothing has told it of the release that takes deeper or more images."""
    script = Script(bit_depth=8, max_batch=1)

    def images() -> Iterator[Any]:
        script.bit_depth, script.max_batch, script.release_id = 16, 4, 78
        yield np.full((SIZE, SIZE), 2**15, np.uint16)
        script.bit_depth, script.release_id = 10, 79
        yield Image.fromarray(np.full((SIZE, SIZE), 2**9, np.uint16))

    with scripted_server(script) as url:
        got = results(shell, url, method, images(), **({"in_flight": 1} if "many" in method else {}))
        assert [score.score for score in got] == [128, 128]
        script.max_batch = 1
        connected = JudgeClient(url, category="pill", timeout_s=TIMEOUT_S)
        script.max_batch = 4
        with connected as judge:
            assert len(list(judge.score_many([grey(1)] * 4, batch=4))) == 4


@pytest.mark.parametrize("shell", SHELLS)
def test_the_original_size_is_the_image_as_it_came_upright(shell: str, tmp_path: Path) -> None:
    lying = Image.new("RGB", (30, 20))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    lying.save(tmp_path / "lying.jpg", exif=exif)
    forms = [np.zeros((20, 30), np.uint8), np.zeros((20, 30, 4), np.uint8), lying, tmp_path / "lying.jpg"]
    with scripted_server(Script()) as url:
        got = results(shell, url, "judge", forms)
        got += results(shell, url, "judge_many", forms, batch=4)
        assert [verdict.original_size for verdict in got] == [(30, 20), (30, 20), (30, 20), (20, 30)] * 2
        (verdict,) = results(shell, url, "judge", [png(255)], min_area=70)
        assert (verdict.original_size, verdict.defects) == ((SIZE, SIZE), ())
        (verdict,) = results(shell, url, "judge", [png(255)], min_area=64)
        assert [defect.area for defect in verdict.defects] == [64]
        assert verdict.map_at_original_size().shape == (SIZE, SIZE)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_area": -1}, "The smallest area is -1; expected a whole number of pixels, at least 0."),
        ({"min_area": 1.5}, "The smallest area is 1.5; expected a whole number of pixels, at least 0."),
        ({"on_error": "ignore"}, "on_error is 'ignore'; expected 'raise' or 'return'."),
        ({"batch": 0}, "The batch is 0; expected a whole number of at least 1."),
    ],
)
def test_options_that_cannot_be(shell: str, options: dict[str, Any], message: str) -> None:
    with scripted_server(Script()) as url, pytest.raises(RequestError) as caught:
        results(shell, url, "judge_many", [grey(1)], **options)
    assert caught.value.message == message


@pytest.mark.parametrize("shell", SHELLS)
def test_a_closed_client_is_no_failure_of_an_image(shell: str) -> None:
    def images() -> Iterator[Any]:
        yield grey(1)
        closing.append(True)
        yield from [grey(2)] * 9

    closing: list[bool] = []
    with scripted_server(Script()) as url, pytest.raises(RequestError, match="is closed; connect anew"):
        results(shell, url, "score_many", images(), closing=closing, on_error="return", in_flight=1)
