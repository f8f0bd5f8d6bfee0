"""One shard judged: several requests on their way at a time, to all servers, and a row for each image."""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from client.archiving.plan import END
from client.archiving.rows import Row
from client.archiving.servers import Server, Servers
from client.core.errors import ClientError, ImageFileError, RequestError, ServerError
from client.core.faults import is_of_one_image
from client.judging.connection import JudgeClient
from client.predictions.outcome import Asking
from client.predictions.prediction import Prediction
from client.predictions.questions import ask_one, ask_together
from model_repository.grpc_endpoint import Endpoint

FAILURES_IN_A_ROW = 3  # images that no server judged; by then it is the servers
MISSING_IN_A_ROW = 10  # images that cannot be reached; by then it is the disk, or a share that is not mounted


# Of a path that was no path from the root for the quote or space before it, and of one that ends so.
ODD_ENDS = re.compile(r"""/["'\s]+/|["'\s]$""")


class StoppedError(Exception):
    """The work cannot go on; the shard that it came from is not done."""


@dataclass(frozen=True)
class Task:
    """What every worker does with its images.

    Attributes:
        category: that they are asked about.
        endpoints: the servers.
        asking: how they are asked.
        timeout_s: deadline of every call, seconds; of an image, at each server that it is sent to.
        load: let a server load the category when it is not in memory.
        insecure: the value of the variable of that name here; workers may be started elsewhere.
    """

    category: str
    endpoints: tuple[Endpoint, ...]
    asking: Asking
    timeout_s: float
    load: bool = False
    insecure: str = ""

    def portable(self) -> Task:
        """The same as other processes can have it."""
        return replace(self, endpoints=tuple(replace(each, keys=dict(each.keys)) for each in self.endpoints))

    def connect(self, endpoint: Endpoint) -> JudgeClient:
        """A connection to a server.

        Raises:
            ClientError: see `JudgeClient`.
        """
        return JudgeClient(endpoint, category=self.category, timeout_s=self.timeout_s, load=self.load)


class ShardJudge:
    """Judges shards, one after the other."""

    def __init__(self, task: Task, *, first: int = 0) -> None:
        """Connect to no server yet; the one with the index `first` gets the first image."""
        self._task = task
        self._servers = Servers(task.endpoints, task.connect, first=first)
        self._pool = ThreadPoolExecutor(task.asking.in_flight * len(self._servers))
        self._lock = threading.Lock()
        self._failed = self._missing = 0  # images in a row
        self._fault: str | None = None

    def judge(self, paths: bytes) -> list[Row]:
        """A row for each image, in their order.

        Args:
            paths: each ended by a zero byte.

        Raises:
            StoppedError: all servers are away, judge nothing, or the images cannot be reached.
            RequestError: nothing can be asked in this way.
        """
        self._fault, self._failed, self._missing = None, 0, 0
        images, batch = paths.split(END)[:-1], self._task.asking.batch
        groups = [images[first : first + batch] for first in range(0, len(images), batch)]
        rows = [row for rows in self._pool.map(self._rows_unless_stopped, groups) for row in rows]
        # Once more, now that the others are judged: the server may have been busy, or just started again.
        again = [index for index, (_, may_pass) in enumerate(rows) if may_pass]
        for index in again:
            self._failed = 0  # these are known to fail, and others were judged between them
            rows[index] = self._row_unless_stopped(images[index])
        if self._fault is not None:
            raise StoppedError(self._fault)
        return [row for row, _ in rows]

    def close(self) -> None:
        """End the threads, and close the connections."""
        self._pool.shutdown()
        self._servers.close()

    def _rows_unless_stopped(self, paths: Sequence[bytes]) -> list[tuple[Row, bool]]:
        """The rows of images that may go together, and of each whether asking again may help.

        Those that have no verdict that way are asked about one by one, which other servers may answer, or which tells
        why there is none.
        """
        together = (
            self._judge_together(paths) if len(paths) > 1 and self._fault is None else [None] * len(paths)
        )
        return [
            (row, False) if row is not None else self._row_unless_stopped(path)
            for path, row in zip(paths, together, strict=True)
        ]

    def _judge_together(self, paths: Sequence[bytes]) -> list[Row | None]:
        """The rows of images after one request about them, or as few as the category takes; None without a verdict."""
        server, fault = self._servers.take(), None
        if server is None:
            return [None] * len(paths)
        try:
            results = ask_together(
                server.judge(),
                [os.fsdecode(path) for path in paths],
                category=self._task.category,
                asking=self._task.asking,
            )
            fault = next((result for result in results if isinstance(result, ServerError)), None)
        except ServerError as error:  # of connecting
            results, fault = [error] * len(paths), error
        except ClientError as error:
            results = [error] * len(paths)
        finally:
            self._servers.give_back(server, fault)
        if any(isinstance(result, Prediction) for result in results):
            self._answered()
        return [
            self._row(path, prediction=result, server=server.url) if isinstance(result, Prediction) else None
            for path, result in zip(paths, results, strict=True)
        ]

    def _row_unless_stopped(self, path: bytes) -> tuple[Row, bool]:
        """The row of an image, and whether asking again may help."""
        if self._fault is not None:
            return self._row(path, error=self._fault), False
        try:
            return self._judge_image(path)
        except ClientError as error:  # whatever the image
            self._stop(error.message)
            return self._row(path, error=error.message), False

    def _judge_image(self, path: bytes) -> tuple[Row, bool]:
        """The row of an image, from the first server that judges it or says that it cannot be judged."""
        name, tried, last = os.fsdecode(path), list[Server](), None
        while (server := self._servers.take(tried)) is not None:
            tried.append(server)
            fault: ServerError | None = None
            try:
                prediction = ask_one(
                    server.judge(), name, category=self._task.category, asking=self._task.asking
                )
                self._answered()
                return self._row(path, prediction=prediction, server=server.url), False
            except ImageFileError as error:
                hint = "" if self._look_for(name) else _hint(name)
                return self._row(path, error=error.message + hint), False
            except ServerError as error:
                fault = error
                if is_of_one_image(error):
                    self._answered()
                    return self._row(path, error=f"{name} was not judged: {error.message}"), False
                last = error
            finally:
                self._servers.give_back(server, fault)
        return self._unanswered(path, last or self._servers.away)

    def _answered(self) -> None:
        with self._lock:
            self._failed = self._missing = 0

    def _unanswered(self, path: bytes, error: ServerError | None) -> tuple[Row, bool]:
        """The row of an image that no server judged; after some in a row, or with all servers away, the work ends."""
        message = error.message if error else "No server answers."
        with self._lock:
            self._failed += 1
            ended = self._failed >= FAILURES_IN_A_ROW
        if ended or self._servers.away is not None:
            self._stop(message)
        return self._row(path, error=f"{os.fsdecode(path)} was not judged: {message}"), True

    def _look_for(self, name: str) -> bool:
        """After an image could not be read: whether it is there. After some in a row that are not, the work ends."""
        try:
            with open(name, "rb"):  # noqa: PTH123 (a path object would cost as much as reading)
                missing = 0
        except OSError:
            missing = 1
        with self._lock:
            self._missing = (self._missing + 1) * missing
            ended = self._missing >= MISSING_IN_A_ROW
        if ended:
            self._stop(
                f"{MISSING_IN_A_ROW} images in a row cannot be reached on {socket.gethostname()}, {name} among them; "
                f"mount their folder there, or take them out of the list, and run the same command again.{_hint(name)}"
            )
        return not missing

    def _stop(self, sentence: str) -> None:
        with self._lock:
            self._fault = self._fault or sentence

    def _row(
        self,
        path: bytes,
        *,
        prediction: Prediction | None = None,
        server: str | None = None,
        error: str | None = None,
    ) -> Row:
        return Row(path, self._task.category, datetime.now(UTC), prediction, server, error)


def _hint(name: str) -> str:
    """What may be the matter with the line of a list whose image is not there; empty where it looks right."""
    if ODD_ENDS.search(name) is None:
        return ""
    return " Its line in the list has quotes or spaces around the path; write the path alone."


def endpoints_of(urls: Sequence[str]) -> tuple[Endpoint, ...]:
    """The servers of some addresses, each once, with the certificates and keys that the environment names.

    Raises:
        RequestError: a certificate or key cannot be used.
    """
    try:
        return tuple(Endpoint.of(url) for url in dict.fromkeys(urls))
    except ValueError as error:
        raise RequestError(str(error)) from None
