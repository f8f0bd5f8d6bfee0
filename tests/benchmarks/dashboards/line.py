"""A line in front of a real server: parts pass, a few of them bad, and the lamp above them fades."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence

from PIL import Image

from client import JudgeClient

BATCH = 4
BAD_OF = 12  # one of so many batches is of bad parts
STEP = 0.05  # of the light


def dimmed(image: Image.Image, gain: float) -> Image.Image:
    """The picture under a part of the light."""
    return image.point([min(round(gain * value), 255) for value in range(256)] * len(image.getbands()))


def keep_judging(
    judge: JudgeClient,
    good: Sequence[Image.Image],
    bad: Sequence[Image.Image],
    *,
    until: Callable[[], bool],
    within_s: float,
) -> bool:
    """Let parts pass until something comes true; False where it does not in time."""
    deadline = time.monotonic() + within_s
    for number in itertools.count():
        if until():
            return True
        if time.monotonic() > deadline:
            return False
        of = bad if bad and number % BAD_OF == 1 else good
        batch = [of[(number * BATCH + place) % len(of)] for place in range(BATCH)]
        list(judge.score_many(batch, batch=BATCH))  # it asks as it is read
    raise AssertionError


def light_that_moves(
    judge: JudgeClient, good: Sequence[Image.Image], *, usual: float, threshold: float, by: float
) -> list[Image.Image]:
    """The same parts under the first light whose median score has moved so far, in thresholds; they still pass.

    Args:
        judge: asks the server.
        good: pictures of good parts.
        usual: the median score of the calibration's good images.
        threshold: above which a part is rejected.
        by: how far their median is to move, in thresholds.

    Raises:
        ValueError: with no light do they score so and pass.
    """
    for number in range(1, round(1 / STEP)):
        for gain in (1 - number * STEP, 1 + number * STEP):
            images = [dimmed(image, gain) for image in good]
            scores = [verdict.score for verdict in judge.score_many(images, batch=BATCH)]
            passing = [score for score in scores if score <= threshold]
            if len(passing) >= 0.75 * len(scores):
                moved = statistics.median(passing) - usual
                if abs(moved) >= by * threshold:
                    return images
    raise ValueError(f"no light moves the scores of good parts by {by} of a threshold and lets them pass")
