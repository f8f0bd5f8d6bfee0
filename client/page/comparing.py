"""A release that is not live yet beside the live one, on the pictures whose verdicts were marked.

    with preview("pill", 4, repository) as endpoint, JudgeClient(endpoint, category="pill", timeout_s=10) as candidate:
        compared = compare(pictures, live, candidate)

`preview` runs `python -m deploy preview`, which serves the release beside the running server and changes neither that
nor the repository.
"""

from __future__ import annotations

import queue
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from client.core.errors import ClientError, NotServed, RequestError, Unreachable
from client.core.verdicts import Score
from client.judging.connection import JudgeClient
from client.page.deploy_commands import end, failure_of, list_releases, start_python
from client.page.marks import MarkedPicture
from client.page.training_set.contents import is_held_out
from client.page.training_set.reading import digest_of
from model_repository.grpc_endpoint import Endpoint

READY_TIMEOUT_S = 180.0
LIST_TIMEOUT_S = 30.0
END_TIMEOUT_S = 30.0  # the server that is previewed ends its requests


@dataclass(frozen=True)
class Compared:
    """A marked picture, judged by the live release and by the one that may follow it.

    Attributes:
        picture: with what is really so, as the mark says.
        live, candidate: their answers, each with its threshold; None where the picture was not judged by both.
        fault: why it was not, a sentence; None where it was.
        trained_on: whether an export of the marks puts this very picture into train/good, so that a candidate trained
            on it has seen it, and judges others less surely; None where it cannot be read.
    """

    picture: MarkedPicture
    live: Score | None
    candidate: Score | None
    fault: str | None = None
    trained_on: bool | None = None

    @property
    def defective(self) -> bool:
        """Whether the part is defective, as the person says."""
        return self.picture.wrong == "escape"

    @property
    def live_right(self) -> bool | None:
        """Whether the live release judges as the person does; None where it was not judged."""
        return None if self.live is None else self.live.anomalous == self.defective

    @property
    def candidate_right(self) -> bool | None:
        """Whether the candidate judges as the person does; None where it was not judged."""
        return None if self.candidate is None else self.candidate.anomalous == self.defective

    @property
    def put_right(self) -> bool:
        """Whether the candidate puts right what the live release judges wrongly."""
        return self.candidate_right is True and self.live_right is False

    @property
    def made_wrong(self) -> bool:
        """Whether the candidate judges wrongly what the live release judges rightly."""
        return self.candidate_right is False and self.live_right is True


@dataclass(frozen=True)
class Candidate:
    """A release that is not live.

    Attributes:
        number: by which it is previewed and promoted.
        release_id: the one its verdicts carry.
        published_at: when, as ISO 8601 with the time zone.
        threshold: above which it rejects.
        auroc: of its test set; None where there was none.
        reason: why it was made, which may be empty.
        was_live: whether it is the one that was live before.
    """

    number: int
    release_id: int
    published_at: str
    threshold: float
    auroc: float | None
    reason: str
    was_live: bool


def candidates(category: str, repository: Path, *, timeout_s: float = LIST_TIMEOUT_S) -> list[Candidate]:
    """The releases of a category that are not live, the latest first; those that are damaged are left out.

    Raises:
        ClientError: there is no release or no repository, `deploy` is not installed, or it did not answer in time.
    """
    try:
        found = list_releases(category, repository, timeout_s=timeout_s)
    except subprocess.TimeoutExpired:
        raise ClientError(
            f"`python -m deploy releases` gave no answer within {timeout_s:g} seconds; try again."
        ) from None
    return [
        Candidate(
            number=entry["number"],
            release_id=entry["release_id"],
            published_at=entry["at"],
            threshold=entry["threshold"],
            auroc=entry["auroc"],
            reason=entry["why"],
            was_live=entry["live"] == "before",
        )
        for entry in reversed(found)
        if entry["live"] != "live"
    ]


def compare(pictures: Sequence[MarkedPicture], live: JudgeClient, candidate: JudgeClient) -> list[Compared]:
    """Have two releases judge marked pictures, each with its own threshold.

    Args:
        pictures: of one category.
        live: asks the server that serves.
        candidate: asks the one that previews.

    Returns:
        One for each picture, in their order. A fault in one is told there and ends that one alone; once a server is
        gone, the pictures left are not judged, which is told there too.

    Raises:
        RequestError: the clients ask about different categories.
    """
    if live.category != candidate.category:
        raise RequestError(
            f"The live release is of {live.category!r} and the other one of {candidate.category!r}; expected one "
            "product."
        )
    results: list[Compared] = []
    gone: str | None = None
    for picture in pictures:
        result = _compare(picture, live, candidate) if gone is None else Compared(picture, None, None, gone)
        if isinstance(result, str):
            gone = result
            result = Compared(picture, None, None, gone)
        results.append(result)
    return results


def _compare(picture: MarkedPicture, live: JudgeClient, candidate: JudgeClient) -> Compared | str:
    """A picture judged by both; or that a server is gone, a sentence."""
    if picture.category != live.category:
        fault = f"{picture.path} is of {picture.category!r}, not of {live.category!r}; it was not judged."
        return Compared(picture, None, None, fault)
    try:
        trained_on = picture.wrong == "false reject" and not is_held_out(digest_of(picture.path))
    except OSError as error:
        fault = f"{picture.path} cannot be read ({error.strerror or error}); it was not judged."
        return Compared(picture, None, None, fault)
    scores: list[Score] = []
    try:
        for client in (live, candidate):
            scores.append(client.score(picture.path))
    except (Unreachable, NotServed) as error:
        return error.message
    except ClientError as error:
        return Compared(picture, None, None, error.message, trained_on)
    return Compared(picture, scores[0], scores[1], None, trained_on)


@contextmanager
def preview(
    category: str, number: int, repository: Path, *, timeout_s: float = READY_TIMEOUT_S
) -> Iterator[Endpoint]:
    """Serve a release that is not live, for the length of a `with` block; gives its gRPC endpoint for `JudgeClient`.

    It listens on this machine alone, without certificates and keys, whatever those of the server that serves are.

    The server ends with the block, and with this process however that ends.

    Args:
        category: the product.
        number: of the release, as `python -m deploy releases` lists it.
        repository: the repository that is served; it is only read.
        timeout_s: seconds until it must be ready.

    Raises:
        ClientError: there is no such release, it cannot be served here, or was not ready in time; in the words of
            `deploy preview`.
    """
    options = [f"--repository={repository.absolute()}", "--while-stdin", "--", category, str(number)]
    process = start_python(["-m", "deploy", "preview", *options], stdin=subprocess.PIPE)
    urls: queue.Queue[str] = queue.Queue()
    said: list[str] = []
    # Both streams are read to their ends, or the command would wait for room in them.
    readers = [
        threading.Thread(target=_read_lines, args=(process.stdout, urls.put), daemon=True),
        threading.Thread(target=_read_lines, args=(process.stderr, said.append), daemon=True),
    ]
    for reader in readers:
        reader.start()
    with process:
        try:
            url = _first(urls, said, timeout_s)
            if not url:
                exit_code = process.wait()
                readers[1].join()
                raise ClientError(failure_of("".join(said), "deploy preview", exit_code))
            yield Endpoint(url)
        finally:
            end(process, END_TIMEOUT_S)
            for reader in readers:
                reader.join(END_TIMEOUT_S)


def _first(urls: queue.Queue[str], said: list[str], timeout_s: float) -> str:
    """The endpoint that a preview prints once it is ready; empty where it ended before.

    Raises:
        ClientError: it was not ready in time.
    """
    try:
        return urls.get(timeout=timeout_s).strip()
    except queue.Empty:
        words = " ".join("".join(said).split()).rstrip(" .")
        last = f"; it said: {words}" if words else ""
        raise ClientError(
            f"`python -m deploy preview` was not ready within {timeout_s:g} seconds{last}."
        ) from None


def _read_lines(stream: Iterable[str] | None, take: Callable[[str], object]) -> None:
    """Hand over each line of a stream, and an empty one at its end."""
    for line in stream or ():
        take(line)
    take("")
