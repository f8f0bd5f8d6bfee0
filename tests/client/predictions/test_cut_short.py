"""A run that cannot go on, or not for every image: what was answered is kept, and the rest is named."""

from __future__ import annotations

import itertools
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image

import client.predictions.drawing
from client.core.errors import ClientError, RefusedImage, ServerError
from client.core.verdicts import Failure, Verdict
from client.files import StorageError
from client.judging.connection import JudgeClient
from client.pictures.folders import find_images
from client.predictions.asking import FAILURES_IN_A_ROW, Asking, Outcome, predict_images
from client.predictions.prediction import Prediction
from client.predictions.table import counts
from tests.client.predictions.test_predictions import BrightnessJudge
from tests.client.samples import save_image

N_IMAGES = 8


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images `0.png` to `7.png`, each as bright as its number."""
    for index in range(N_IMAGES):
        save_image(tmp_path / "lot" / f"{index}.png", colour=f"rgb({index}, {index}, {index})")
    return tmp_path / "lot"


class FailingJudge(BrightnessJudge):
    """Reads ahead as the real one does, and fails for these images."""

    failing: dict[int, BaseException]
    asked: int = 0

    def __init__(self, failing: dict[int, BaseException]) -> None:
        super().__init__()
        self.failing = failing

    def judge_many(
        self,
        images: Iterable[Image.Image | bytes],
        *,
        in_flight: int,
        batch: int,
        threshold: float | None,
        min_area: int = 0,
        on_error: str = "raise",
    ) -> Iterator[Verdict | Failure]:
        self.asked += 1
        pending: list[list[Any]] = []
        rest = iter(images)
        while True:
            while len(pending) < in_flight and (chosen := list(itertools.islice(rest, batch))):
                pending.append(chosen)
            if not pending:
                return
            request = pending.pop(0)
            for picture in request:
                error = self.failing.get(picture.getpixel((0, 0))[0])
                if isinstance(error, ClientError):
                    yield Failure(0, error)
                    continue
                if error is not None:
                    raise error
                yield self.judge(picture, threshold=threshold)


def run(folder: Path, failing: dict[int, BaseException], *, batch: int = 1, **options: Any) -> Outcome:
    options.setdefault("overlays_dir", None)
    return predict_images(
        cast(JudgeClient, FailingJudge(failing)),
        find_images([folder]).images,
        asking=Asking(batch=batch, in_flight=3),
        **options,
    )


def judged(outcome: Outcome) -> list[int]:
    return [int(Path(entry.image).stem) for entry in outcome.predictions]


def failures(*numbers: int) -> dict[int, BaseException]:
    return {number: ServerError(f"fault {number}.") for number in numbers}


def test_a_request_that_fails_costs_its_own_image_alone(folder: Path) -> None:
    outcome = run(folder, failures(0, 3, 4, 7))
    assert judged(outcome) == [1, 2, 5, 6]
    assert outcome.stopped is None
    assert outcome.unanswered == [f"{folder}/{i}.png was not judged: fault {i}." for i in (0, 3, 4, 7)]


def test_an_image_that_fails_costs_its_batch_nothing(folder: Path) -> None:
    outcome = run(folder, failures(3), batch=2)
    assert judged(outcome) == [0, 1, 2, 4, 5, 6, 7]
    assert outcome.unanswered == [f"{folder}/3.png was not judged: fault 3."]


def test_images_of_one_request_that_fail_together_are_one_failure(folder: Path) -> None:
    first, second = ServerError("away."), ServerError("still away.")
    outcome = run(folder, dict.fromkeys((0, 1, 2, 3), first) | dict.fromkeys((4, 5, 6), second), batch=4)
    assert (judged(outcome), outcome.stopped) == ([7], None)
    assert len(outcome.unanswered) == 7


def test_refused_images_never_end_a_run(folder: Path) -> None:
    outcome = run(folder, {number: RefusedImage("no image.") for number in range(7)}, batch=4)
    assert (judged(outcome), outcome.stopped) == ([7], None)


def test_failures_in_a_row_end_the_run(folder: Path) -> None:
    outcome = run(folder, failures(*range(2, 2 + FAILURES_IN_A_ROW)))
    assert judged(outcome) == [0, 1]
    assert outcome.stopped == "fault 2."
    assert outcome.next_image == folder / "2.png"
    assert outcome.unanswered == []
    assert counts(outcome.predictions, n_images=outcome.n_images) == (
        "2 judged: 0 anomalous, 2 good. 6 of 8 not judged."
    )


def test_an_image_that_gets_no_verdict_is_named(folder: Path) -> None:
    """Whatever the connection does: an image without a verdict is not passed over."""

    class SilentJudge(BrightnessJudge):
        def judge_many(self, images: Any, **options: Any) -> Iterator[Verdict]:
            yield from list(super().judge_many(images, **options))[:-2]

    outcome = predict_images(
        cast(JudgeClient, SilentJudge()), find_images([folder]).images, asking=Asking(), overlays_dir=None
    )
    assert judged(outcome) == [0, 1, 2, 3, 4, 5]
    assert outcome.unanswered == [f"{folder}/{i}.png was not judged: no answer came." for i in (6, 7)]


def test_a_fault_of_no_image_ends_the_run_at_once(folder: Path) -> None:
    class NoJudge(BrightnessJudge):
        def judge_many(self, images: Any, **_: Any) -> Iterator[Verdict]:
            raise ServerError("Batches of up to 4.")
            yield

    with pytest.raises(ServerError, match="Batches of up to 4"):
        predict_images(
            cast(JudgeClient, NoJudge()), find_images([folder]).images, asking=Asking(), overlays_dir=None
        )


def test_a_run_that_is_to_stop_awaits_the_answers_on_their_way(folder: Path) -> None:
    stop = threading.Event()

    def stop_soon(prediction: Prediction) -> None:
        if Path(prediction.image).stem == "2":
            stop.set()

    outcome = run(folder, {}, keep=stop_soon, stop=stop)
    assert judged(outcome) == [0, 1, 2, 3, 4]  # three are in flight
    assert (outcome.stopped, outcome.next_image) == ("Interrupted.", folder / "5.png")
    assert judged(run(folder, {}, keep=lambda _: None, stop=stop)) == []


def test_a_run_that_is_to_stop_after_its_last_answer_is_complete(folder: Path) -> None:
    stop = threading.Event()
    outcome = run(folder, {}, keep=lambda _: stop.set() if _.image.endswith("7.png") else None, stop=stop)
    assert (len(outcome.predictions), outcome.stopped) == (N_IMAGES, None)


def test_ctrl_c_keeps_the_answers(folder: Path) -> None:
    outcome = run(folder, {5: KeyboardInterrupt()})
    assert judged(outcome) == [0, 1, 2, 3, 4]
    assert (outcome.stopped, outcome.next_image) == ("Interrupted.", folder / "5.png")


def test_a_full_disk_ends_the_run_before_an_answer_is_lost(folder: Path) -> None:
    kept: list[Prediction] = []

    def keep(prediction: Prediction) -> None:
        if len(kept) == 2:
            raise StorageError("full")
        kept.append(prediction)

    outcome = run(folder, {}, keep=keep)
    assert outcome.predictions == kept
    assert (outcome.stopped, outcome.next_image) == ("full", folder / "2.png")


def test_answers_go_on_when_pictures_cannot_be_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace: Callable[..., None] = client.predictions.drawing.replace_file

    def fill_up(path: Path, write: Callable[[Path], object]) -> None:
        if path.name >= "3":
            raise StorageError("full")
        replace(path, write)

    monkeypatch.setattr(client.predictions.drawing, "replace_file", fill_up)
    outcome = run(folder, {}, overlays_dir=tmp_path / "overlays")
    assert judged(outcome) == list(range(N_IMAGES))
    assert [entry.overlay is None for entry in outcome.predictions] == [False] * 3 + [True] * 5
    assert (outcome.no_pictures, outcome.stopped) == ("full", None)


def test_an_image_that_vanishes_during_the_run_is_named(folder: Path) -> None:
    def remove_later_ones(_: Prediction) -> None:
        (folder / "6.png").unlink(missing_ok=True)

    outcome = run(folder, {}, keep=remove_later_ones)
    assert judged(outcome) == [0, 1, 2, 3, 4, 5, 7]
    assert outcome.broken == [f"{folder}/6.png cannot be read (No such file or directory)."]


def test_the_picture_of_an_image_that_has_vanished_is_drawn(folder: Path, tmp_path: Path) -> None:
    images = find_images([folder]).images

    class TidyJudge(BrightnessJudge):
        def judge_many(self, images: Any, **options: Any) -> Iterator[Verdict]:
            pictures = list(images)
            for file in folder.iterdir():
                file.unlink()
            yield from super().judge_many(pictures, **options)

    outcome = predict_images(
        cast(JudgeClient, TidyJudge()), images, asking=Asking(), overlays_dir=tmp_path / "overlays"
    )
    assert len(outcome.predictions) == N_IMAGES
    assert len(list((tmp_path / "overlays").iterdir())) == N_IMAGES


def test_a_folder_that_vanishes_is_told_once(folder: Path) -> None:
    missed: list[tuple[Path, str]] = []

    def remove_all(_: Prediction) -> None:
        shutil.rmtree(folder, ignore_errors=True)

    outcome = run(folder, {}, keep=remove_all, miss=lambda image, reason: missed.append((image, reason)))
    assert judged(outcome) == [0, 1, 2]  # which had been read
    assert (outcome.broken, outcome.n_broken) == ([], 5)
    assert outcome.vanished == {folder: 5}
    assert [image.name for image, _ in missed] == [f"{index}.png" for index in (3, 4, 5, 6, 7)]


def test_every_image_without_a_verdict_is_handed_on_with_its_reason(folder: Path) -> None:
    (folder / "2.png").write_bytes(b"none")
    told: list[str] = []
    outcome = run(
        folder,
        failures(5),
        keep=lambda prediction: told.append(Path(prediction.image).name),
        miss=lambda image, reason: told.append(f"{image.name}: {reason.split()[-1]}"),
    )
    assert sorted(entry[:5] for entry in told) == [f"{index}.png" for index in range(N_IMAGES)]
    assert "5.png: 5." in told
    assert outcome.unanswered == [f"{folder}/5.png was not judged: fault 5."]


def test_a_table_that_takes_no_more_ends_the_run(folder: Path) -> None:
    (folder / "2.png").write_bytes(b"none")

    def miss(_image: Path, _reason: str) -> None:
        raise StorageError("full")

    outcome = run(folder, {}, miss=miss)
    assert outcome.stopped == "full"
