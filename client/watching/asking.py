"""One picture to the server and back, in a thread of a few: read whole, decoded to its end, judged; or why not."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from client.core.errors import ClientError, ImageFileError, RefusedImage, RequestError, ServerError
from client.core.inputs import FILE
from client.judging.connection import JudgeClient
from client.predictions.prediction import Prediction
from client.watching.arrivals import Arrival, digest_of
from model_repository.image_decoder.image_decoding import ImageError, decode_image, naming
from model_repository.image_decoder.picture_limits import require_file_size


class End(Enum):
    """How asking about a picture ended."""

    JUDGED = "it has a verdict"
    BROKEN = "it is no whole image, now"
    REFUSED = "the server cannot judge it, and would not later"
    UNREADABLE = "the file cannot be read, now"
    CHANGED = "the file is gone or another one by now"
    FAILED = "the server gave no verdict"


@dataclass(frozen=True)
class Outcome:
    """What became of asking about a picture.

    Attributes:
        arrival: which.
        end: how it ended.
        digest: of its content, where that was read.
        prediction: the verdict, if it is judged.
        message: one sentence, if it is not.
        error: the server's fault, if it FAILED.
    """

    arrival: Arrival
    end: End
    digest: bytes = b""
    prediction: Prediction | None = None
    message: str = ""
    error: ServerError | None = None


class Server:
    """The connection, made when it is first needed and then kept; threads may share it."""

    def __init__(self, connect: Callable[[], JudgeClient]) -> None:
        """Connect with that function."""
        self._connect = connect
        self._lock = threading.Lock()
        self._judge: JudgeClient | None = None

    def judge(self) -> JudgeClient:
        """The client.

        Raises:
            ClientError: it cannot be connected.
        """
        with self._lock:
            self._judge = self._judge or self._connect()
            return self._judge

    def leave(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close the connection at the end of a `with` block; who presses Ctrl-C twice does not wait for answers."""
        if self._judge is not None and kind is not KeyboardInterrupt:
            self._judge.close()


def ask(server: Server, folder: Path, arrival: Arrival) -> Outcome:
    """Read a picture and have it judged.

    Raises:
        RequestError: nothing can be asked in this way.
    """
    path = folder / arrival.name
    try:
        with naming(path):
            require_file_size(arrival.size)
        read = _read(path, arrival)
    except ImageError as error:
        return Outcome(arrival, End.REFUSED, message=f"{error}.")
    except OSError as error:
        return Outcome(arrival, End.UNREADABLE, message=f"{path} cannot be read ({error.strerror or error}).")
    if read is None:
        return Outcome(arrival, End.CHANGED)
    content, arrival = read
    del read
    digest = digest_of(content)
    try:
        judge = server.judge()
        with naming(path):
            image = decode_image(content, bit_depth=judge.bit_depth)
        image.info[FILE] = str(path)
        del content
        verdict = judge.judge(image)
    except (ImageError, ImageFileError) as error:
        return Outcome(arrival, End.BROKEN, digest, message=f"{str(error).rstrip('.')}.")
    except RefusedImage as error:
        return Outcome(arrival, End.REFUSED, digest, message=f"{path} was not judged: {error.message}")
    except ServerError as error:
        return Outcome(
            arrival, End.FAILED, digest, message=f"{path} was not judged: {error.message}", error=error
        )
    except RequestError:
        raise
    except (
        Exception
    ) as error:  # a file that no decoder foresaw, or too large for the memory: the others go on
        why = error.message if isinstance(error, ClientError) else f"{type(error).__name__}: {error}"
        return Outcome(arrival, End.REFUSED, digest, message=f"{path} was not judged: {why}")
    prediction = Prediction.of(verdict, image=str(path), category=judge.category, synthetic=judge.synthetic)
    return Outcome(arrival, End.JUDGED, digest, prediction=prediction)


def _read(path: Path, arrival: Arrival) -> tuple[bytes, Arrival] | None:
    """The content of a file, and which it is; None where it is not, or not any more, the one that was found.

    Raises:
        OSError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            content = file.read()
            after = os.fstat(file.fileno())
    except FileNotFoundError:
        return None
    same = (after.st_size, after.st_mtime_ns) == (arrival.size, arrival.mtime_ns)
    same = same and before.st_ctime_ns == after.st_ctime_ns and len(content) == arrival.size
    return (
        (content, replace(arrival, ctime_ns=after.st_ctime_ns)) if same and arrival.is_still(path) else None
    )
