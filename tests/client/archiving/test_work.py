"""A shard judged through servers of which some refuse, fail or go away; without Ray."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from client.archiving import servers as servers_module
from client.archiving.listing import find
from client.archiving.rows import Row
from client.archiving.work import ShardJudge, StoppedError, Task, endpoints_of
from client.core.errors import RequestError
from client.predictions.outcome import Asking
from tests.client.judging.scripted_server import (
    MAX_BATCH,
    RELEASE,
    SIZE,
    Refusal,
    Script,
    png,
    scripted_server,
)
from tests.products import unused_url

TIMEOUT_S = 0.5
FAULT: Refusal = (grpc.StatusCode.INTERNAL, "the step fell over")
GONE: Refusal = (grpc.StatusCode.UNAVAILABLE, "Server is stopping, scheduler for model has stopped")
UNDECODABLE: Refusal = (grpc.StatusCode.INVALID_ARGUMENT, "no image as the category takes it")


@contextmanager
def judging(*scripts: Script, absent: int = 0, **asking: Any) -> Iterator[ShardJudge]:
    """What judges through a server for each script, and through some that are not there."""
    with ExitStack() as stack:
        urls = [stack.enter_context(scripted_server(script)) for script in scripts]
        urls += [unused_url() for _ in range(absent)]
        task = Task("pill", endpoints_of(urls), Asking(**asking), timeout_s=TIMEOUT_S)
        judge = ShardJudge(task.portable())
        stack.callback(judge.close)
        yield judge


def shard(folder: Path, *greys: int) -> bytes:
    """The paths of images whose scores are these."""
    folder.mkdir(exist_ok=True)
    files = [folder / f"{number:03}.png" for number in range(len(greys))]
    for file, grey in zip(files, greys, strict=True):
        file.write_bytes(png(grey))
    return b"".join(bytes(file) + b"\0" for file in files)


def scores(rows: list[Row]) -> list[float | None]:
    return [row.prediction.score if row.prediction else None for row in rows]


@pytest.mark.parametrize("batch", [1, 3, 9])
@pytest.mark.parametrize("asking", [(), ("encoded",), ("score_only",), ("encoded", "score_only")])
def test_rows_come_in_order_from_all_servers(tmp_path: Path, asking: tuple[str, ...], batch: int) -> None:
    scripts = [Script(delay_s=0.002), Script(delay_s=0.002)]
    greys = [number * 5 for number in range(40)]
    with judging(*scripts, threshold=90.0, batch=batch, **dict.fromkeys(asking, True)) as judge:
        rows = judge.judge(shard(tmp_path, *greys))
    assert scores(rows) == greys
    assert [row.label for row in rows] == ["good"] * 19 + ["anomalous"] * 21
    asked = [sum(count for _, count in script.asked) for script in scripts]
    assert sum(asked) == 40
    assert sorted(asked) == pytest.approx([20, 20], abs=8 if batch == 1 else 20)
    assert max(count for script in scripts for _, count in script.asked) == min(batch, MAX_BATCH)
    assert len({row.server for row in rows}) == 2
    first = rows[0].prediction
    assert first is not None
    assert (first.category, first.threshold, first.release_id) == ("pill", 90.0, RELEASE)
    assert first.defects == (None if "score_only" in asking else ())
    assert first.original_size == (None if len(asking) == 2 else (SIZE, SIZE))


def test_images_of_a_server_that_goes_away_go_to_the_others(tmp_path: Path) -> None:
    leaving, staying = Script(refuse=lambda number: GONE if number > 5 else None), Script(delay_s=0.001)
    with judging(leaving, staying, absent=1) as judge:
        rows = judge.judge(shard(tmp_path, *range(40)))
        assert scores(rows) == [*range(40)]
        assert len(leaving.asked) == 5
        tries = leaving.tries
        assert scores(judge.judge(shard(tmp_path, *range(40)))) == [*range(40)]
    assert leaving.tries == tries  # it rests


def test_a_server_that_is_back_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers_module, "REST_S", 0.05)
    script, away = Script(), [True]
    script.refuse = lambda number: GONE if away else None
    with judging(script, Script(delay_s=0.005)) as judge:
        assert len(judge.judge(shard(tmp_path, 1, 2, 3))) == 3
        assert not script.asked
        away.clear()
        judge.judge(shard(tmp_path, *range(100)))
    assert script.asked


def test_with_all_servers_away_the_shard_is_not_done(tmp_path: Path) -> None:
    with judging(absent=2) as judge, pytest.raises(StoppedError, match="No Triton server answers at"):
        judge.judge(shard(tmp_path, *range(8)))


def test_a_server_that_judges_nothing_ends_the_work(tmp_path: Path) -> None:
    script = Script(refuse=lambda number: FAULT)
    with judging(script, in_flight=1) as judge:
        with pytest.raises(StoppedError, match="the step fell over"):
            judge.judge(shard(tmp_path, *range(100)))
        assert script.tries == 3
        script.refuse = lambda number: None  # another run, another try
        assert scores(judge.judge(shard(tmp_path, 7, 8))) == [7, 8]


@pytest.mark.parametrize(("failing", "score"), [((3,), 2), ((3, 5, 7, 9, 10, 11), None)])
def test_an_image_that_no_server_judges_is_asked_about_once_more(
    tmp_path: Path, failing: tuple[int, ...], score: int | None
) -> None:
    script = Script(refuse=lambda number: FAULT if number in failing else None)
    with judging(script, in_flight=1) as judge:
        rows = judge.judge(shard(tmp_path, *range(8)))
    assert scores(rows) == [0, 1, score, 3, score and 4, 5, score and 6, 7]
    assert script.tries == 8 + len(failing) - len(failing) // 2
    if score is None:
        assert "002.png was not judged: " in str(rows[2].error)
        assert "the step fell over" in str(rows[2].error)


def test_of_a_request_that_fails_each_image_is_asked_about_alone(tmp_path: Path) -> None:
    script = Script(refuse=lambda number: UNDECODABLE if number in (1, 3, 6) else None)
    paths = shard(tmp_path, *range(9))
    (tmp_path / "004.png").write_bytes(b"no image")
    with judging(script, in_flight=1, batch=4) as judge:
        rows = judge.judge(paths)
    # The first request is refused; of its images, asked about alone, the second is, twice. The fifth image is none.
    assert scores(rows) == [0, None, 2, 3, None, 5, 6, 7, 8]
    assert "001.png was not judged" in str(rows[1].error)
    assert "004.png" in str(rows[4].error)
    assert [count for _, count in script.asked] == [1, 1, 1, 3, 1]


def test_batches_of_a_server_that_goes_away_go_to_the_others(tmp_path: Path) -> None:
    leaving, staying = Script(refuse=lambda number: GONE if number > 2 else None), Script(delay_s=0.001)
    with judging(leaving, staying, absent=1, batch=4) as judge:
        assert scores(judge.judge(shard(tmp_path, *range(60)))) == [*range(60)]
        assert sum(count for _, count in leaving.asked) <= 8
        tries = leaving.tries
        assert scores(judge.judge(shard(tmp_path, *range(60)))) == [*range(60)]
    assert leaving.tries == tries  # it rests


def test_with_all_servers_away_no_batch_is_done(tmp_path: Path) -> None:
    with (
        judging(absent=2, batch=4) as judge,
        pytest.raises(StoppedError, match="No Triton server answers at"),
    ):
        judge.judge(shard(tmp_path, *range(8)))


def test_images_that_cannot_be_judged_have_a_row_that_says_why(tmp_path: Path) -> None:
    paths = shard(tmp_path, 1, 2, 3, 4)
    broken, gone, _, folder = (Path(path.decode()) for path in paths.split(b"\0")[:-1])
    broken.write_bytes(b"no image")
    gone.unlink()
    folder.unlink()
    folder.mkdir()
    script = Script(refuse=lambda number: UNDECODABLE if number == 1 else None)
    with judging(script, in_flight=1) as judge:
        rows = judge.judge(paths)
    assert scores(rows) == [None] * 4
    assert [row.label for row in rows] == ["not judged"] * 4
    assert all(Path(row.path.decode()).name in str(row.error) for row in rows)
    assert "No such file" in str(rows[1].error)
    assert "no image as the category takes it" in str(rows[2].error)
    assert script.tries == 1  # what cannot be judged is not asked again


def test_a_line_with_quotes_or_spaces_around_its_path_has_a_hint(tmp_path: Path) -> None:
    image = tmp_path / "a b.png"
    image.write_bytes(png(1))
    (tmp_path / "list").write_text(f'"{image}"\n  {image}\n{image} \n{image}\n{tmp_path}/gone.png\n')
    with judging(Script(), in_flight=1) as judge:
        rows = judge.judge(find(tmp_path / "list").paths)
    hinted = ["has quotes or spaces around the path; write the path alone" in str(row.error) for row in rows]
    assert sorted(zip(hinted, scores(rows), strict=True), key=str) == [
        (False, 1.0),
        (False, None),
        *[(True, None)] * 3,
    ]


def test_a_share_that_is_gone_ends_the_work(tmp_path: Path) -> None:
    paths = shard(tmp_path / "share", *range(30))
    with judging(Script(), in_flight=2) as judge:
        assert len(judge.judge(paths)) == 30
        (tmp_path / "share").rename(tmp_path / "elsewhere")
        with pytest.raises(
            StoppedError, match=r"images in a row cannot be reached on .*/share/.*mount their folder"
        ):
            judge.judge(paths)


def test_a_key_file_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASTMFR_KEY_FILE", str(tmp_path / "none"))
    with pytest.raises(RequestError, match="cannot be read"):
        endpoints_of(["localhost:8001"])
