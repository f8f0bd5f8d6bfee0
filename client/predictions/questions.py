"""What a server is asked about several images in one request, or about one alone, for an archive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from client.core.errors import ClientError, ImageFileError
from client.core.verdicts import Failure, Score
from client.judging.connection import JudgeClient
from client.pictures.images import load_image
from client.predictions.outcome import Asking
from client.predictions.prediction import Prediction
from model_repository.image_decoder.image_decoding import ImageError, naming
from model_repository.image_decoder.picture_limits import require_file_size


def ask_one(judge: JudgeClient, name: str, *, category: str, asking: Asking) -> Prediction:
    """The verdict of an image.

    Raises:
        ClientError: there is none.
    """
    ask: Callable[..., Score] = (
        judge.score if asking.score_only else partial(judge.judge, min_area=asking.min_area)
    )
    try:
        image, size = _prepared(judge, name, asking)
        verdict = ask(image, threshold=asking.threshold)
        return Prediction.of(verdict, image=name, category=category, synthetic=judge.synthetic, size=size)
    except ClientError:
        raise
    except (
        Exception
    ) as error:  # a file that no decoder foresaw, or too large for the memory: the others go on
        raise ImageFileError(f"{name} was not judged: {type(error).__name__}: {error}") from None


def ask_together(
    judge: JudgeClient, names: Sequence[str], *, category: str, asking: Asking
) -> list[Prediction | ClientError]:
    """The verdict of each image, or why it has none; in one request, or in some where the category takes fewer."""
    ask: Callable[..., Any] = (
        judge.score_many if asking.score_only else partial(judge.judge_many, min_area=asking.min_area)
    )
    try:
        prepared = [_prepared(judge, name, asking) for name in names]
        results = ask(
            [image for image, _ in prepared],
            in_flight=1,
            batch=min(len(names), judge.max_batch),
            threshold=asking.threshold,
            on_error="return",
        )
        return [
            result.error
            if isinstance(result, Failure)
            else Prediction.of(result, image=name, category=category, synthetic=judge.synthetic, size=size)
            for name, (_, size), result in zip(names, prepared, results, strict=True)
        ]
    except ClientError as error:
        return [error] * len(names)
    except Exception as error:
        return [ImageFileError(f"{type(error).__name__}: {error}")] * len(names)


def _prepared(judge: JudgeClient, name: str, asking: Asking) -> tuple[Any, tuple[int, int] | None]:
    """An image as it is asked about, and its width and height where no verdict tells them.

    Raises:
        ImageFileError: it cannot be read.
    """
    if asking.encoded:
        return _read(name), None
    if asking.score_only:
        picture = load_image(name, bit_depth=judge.bit_depth)
        return picture, picture.size
    return name, None


def _read(name: str) -> bytes:
    """An image file's bytes, for the server to decode.

    Raises:
        ImageFileError: it cannot be read, or is too large for an image.
    """
    path = Path(name)
    try:
        with naming(path):
            require_file_size(path.stat().st_size)
        return path.read_bytes()
    except ImageError as error:
        raise ImageFileError(f"{error}.") from None
    except OSError as error:
        raise ImageFileError(f"{name} cannot be read ({error.strerror}).") from None
