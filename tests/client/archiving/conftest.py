"""An archive in a folder of its own, by a scripted server; its shards are judged without Ray."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from client.archiving import archive as archive_module
from client.archiving.archive import Archive, Outcome, archive
from client.archiving.listing import find
from client.archiving.plan import Plan, Shard
from client.archiving.rows import shard_file
from client.archiving.streaming import Done
from client.archiving.work import ShardJudge, StoppedError, Task, endpoints_of
from client.predictions.outcome import Asking
from tests.client.judging.scripted_server import Script, png, scripted_server


@pytest.fixture
def stops_after(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Judge in this process; the run is stopped once it has given back so many shards."""
    limit: list[int] = [1000]

    def judged(
        plan: Plan, shards: Sequence[Shard], task: Task, *, workers: int, stop: threading.Event
    ) -> Iterator[Done]:
        judge = ShardJudge(task)
        try:
            for shard in list(shards)[: limit[0]]:
                paths = plan.paths_of(shard)
                try:
                    content = shard_file(judge.judge(paths), digest=plan.digest_of(shard))
                except StoppedError as error:
                    yield Done(shard.number, b"", str(error))
                else:
                    yield Done(shard.number, content, "")
        finally:
            judge.close()

    monkeypatch.setattr(archive_module, "judged_shards", judged)
    monkeypatch.setattr(archive_module, "ray_cluster", lambda *_, **__: nullcontext())
    monkeypatch.setattr(archive_module, "list_images", find)
    return limit


class Place:
    """A folder of images, a server and what was said."""

    def __init__(self, folder: Path, url: str) -> None:
        self.drop, self.results = folder / "drop", folder / "out" / "results.parquet"
        self.parts = folder / "out" / "results.parquet.parts"
        self.said: list[str] = []
        self.asked = Archive(
            self.drop, self.results, Task("pill", endpoints_of([url]), Asking(), timeout_s=1.0), shard=4
        )

    def put(self, *numbers: int) -> None:
        self.drop.mkdir(exist_ok=True)
        for number in numbers:
            (self.drop / f"{number:03}.png").write_bytes(png(number))

    def run(self, **changes: Any) -> Outcome:
        asked = replace(self.asked, **changes)
        return archive(asked, stop=threading.Event(), say=self.said.append)

    def asking(self, **changes: Any) -> Task:
        return replace(self.asked.task, asking=Asking(**changes))

    def rows(self) -> list[tuple[str, float]]:
        columns = pq.read_table(self.results, columns=["path", "score"]).to_pydict()
        return [
            (Path(path).stem, score) for path, score in zip(columns["path"], columns["score"], strict=True)
        ]


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def place(tmp_path: Path, script: Script, stops_after: list[int]) -> Iterator[Place]:
    with scripted_server(script) as url:
        made = Place(tmp_path, url)
        made.put(*range(10))
        yield made


def expected(*numbers: int) -> list[tuple[str, float]]:
    return [(f"{number:03}", float(number)) for number in numbers]
