"""An archive that is begun, ends in between and goes on, by a scripted server; its shards are judged without Ray."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result

from client.__main__ import main
from client.archiving.rows import read_metadata
from client.archiving.work import endpoints_of
from client.core.errors import RequestError, Unreachable
from client.files import StorageError
from tests.client.archiving.conftest import Place, expected
from tests.client.judging.scripted_server import RELEASE, Script, scripted_server
from tests.products import unused_url


def test_an_archive_that_was_stopped_goes_on_and_asks_nothing_twice(
    place: Place, script: Script, stops_after: list[int]
) -> None:
    stops_after[0] = 2
    outcome = place.run()
    assert (outcome.n_images, outcome.tally.images, outcome.fault) == (10, 8, "Interrupted.")
    assert not place.results.exists()
    outcome = place.run()
    assert (outcome.tally.images, outcome.fault) == (10, None)
    assert place.said == ["8 of 10 images were judged before."]
    assert place.rows() == expected(*range(10))
    assert len(script.asked) == 10
    assert not place.parts.exists()
    metadata = read_metadata(place.results)
    assert metadata["question"] == {
        "category": "pill", "threshold": None, "min_area": 0, "score_only": False, "encoded": False,
    }  # fmt: skip
    assert metadata["tally"]["releases"] == {str(RELEASE): 10}


def test_a_complete_archive_is_left_as_it_is(place: Place, script: Script) -> None:
    place.run()
    place.parts.mkdir()  # a kill after the results were there, and before the parts were gone
    (place.parts / ".plan").touch()
    outcome = place.run()
    assert (outcome.tally.images, outcome.fault, len(script.asked)) == (10, None, 10)
    assert place.said == [f"{place.results} is complete; nothing was asked."]
    assert not place.parts.exists()
    place.put(10)
    with pytest.raises(StorageError, match=r"is a complete archive of 10 images, and .* has 11"):
        place.run()
    with pytest.raises(
        StorageError, match=r"with threshold None, and threshold 3\.0 was asked for; give another"
    ):
        place.run(task=place.asking(threshold=3.0))
    place.results.write_bytes(b"a user's file")
    with pytest.raises(StorageError, match="exists and holds no archive"):
        place.run()
    assert place.results.read_bytes() == b"a user's file"


def test_an_archive_goes_on_with_what_is_new_and_without_what_is_gone(
    place: Place, script: Script, stops_after: list[int]
) -> None:
    stops_after[0] = 1
    place.run()
    place.put(20, 21)
    for number in (1, 8):  # one is judged, one is not
        (place.drop / f"{number:03}.png").unlink()
    stops_after[0] = 1000
    outcome = place.run()
    assert place.said == [
        f"{place.drop} has changed since this was begun: 4 images were judged before, 1 of which are gone, and 7 are "
        "to be judged."
    ]
    assert place.rows() == expected(*range(8), 9, 20, 21)
    assert (outcome.tally.images, len(script.asked)) == (11, 11)
    assert place.run().fault is None
    assert len(script.asked) == 11


@pytest.mark.parametrize(
    "changes", [{"threshold": 3.0}, {"min_area": 5}, {"score_only": True}, {"encoded": True}]
)
def test_another_question_is_refused(place: Place, stops_after: list[int], changes: dict[str, Any]) -> None:
    stops_after[0] = 1
    place.run()
    with pytest.raises(
        StorageError, match=r"holds an unfinished archive with .*; ask as before, or remove the folder"
    ):
        place.run(task=place.asking(**changes))
    assert place.run(task=place.asking(in_flight=1)).tally.images == 8  # this decides about no row


def test_another_release_is_refused_unless_it_is_wanted(
    place: Place, script: Script, stops_after: list[int]
) -> None:
    stops_after[0] = 1
    place.run()
    script.release_id = RELEASE + 1
    with pytest.raises(
        RequestError, match=f"4 images were judged by release {RELEASE}, and {RELEASE + 1} is live"
    ):
        place.run()
    stops_after[0] = 1000
    assert place.run(mixed_releases=True).tally.releases == {RELEASE: 4, RELEASE + 1: 6}


def test_servers_of_several_releases_are_refused_unless_it_is_wanted(place: Place) -> None:
    with scripted_server(Script(release_id=RELEASE + 1, delay_s=0.01)) as other:
        both = replace(
            place.asked.task, endpoints=endpoints_of([*(e.url for e in place.asked.task.endpoints), other])
        )
        with pytest.raises(
            RequestError, match=r"serve several releases \(.*\); serve one of them everywhere"
        ):
            place.run(task=both)
        assert not place.parts.exists()
        assert set(place.run(task=both, mixed_releases=True).tally.releases) == {RELEASE, RELEASE + 1}


def test_a_server_that_is_named_twice_is_asked_as_one(place: Place) -> None:
    (url,) = (endpoint.url for endpoint in place.asked.task.endpoints)
    port = url.rpartition(":")[2]
    place.run(
        task=replace(
            place.asked.task, endpoints=endpoints_of([url, f"localhost:{port}", "nowhere.invalid:1"])
        )
    )
    assert place.said[0] == f"localhost:{port} is the same server as {url}; it is asked as one."
    assert "nowhere.invalid:1" in place.said[1]


def test_without_a_server_nothing_is_begun(place: Place, script: Script) -> None:
    nobody = replace(place.asked.task, endpoints=endpoints_of([unused_url()]))
    with pytest.raises(Unreachable, match="No Triton server answers"):
        place.run(task=nobody)
    assert not place.parts.exists()
    some = replace(nobody, endpoints=nobody.endpoints + place.asked.task.endpoints)
    assert place.run(task=some).tally.images == 10
    assert "No Triton server answers" in place.said[0]
    assert len(script.asked) == 10


def test_servers_that_all_go_away_leave_what_is_done(place: Place, script: Script) -> None:
    gone = (grpc.StatusCode.UNAVAILABLE, "Server is stopping, scheduler for model has stopped")
    script.refuse = lambda number: gone if number > 5 else None
    outcome = place.run()
    assert outcome.tally.images == 4
    assert "takes no requests" in str(outcome.fault)
    script.refuse = lambda number: None
    assert place.run().tally.images == 10
    assert place.rows() == expected(*range(10))


def test_a_damaged_part_is_judged_again(place: Place, stops_after: list[int]) -> None:
    stops_after[0] = 1
    place.run()
    part = place.parts / "000000.parquet"
    part.write_bytes(part.read_bytes()[:-10])
    stops_after[0] = 1000
    assert place.run().tally.images == 10
    assert place.said == ["Part 0 was damaged, and its images are judged again."]
    assert place.rows() == expected(*range(10))


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_asked(
    place: Place, script: Script
) -> None:
    for results in (Path("/dev/null"), place.drop, place.drop / "000.png" / "results.parquet"):
        with pytest.raises(StorageError):
            place.run(results=results)
    with pytest.raises(
        StorageError, match=r"has the ending \.csv, and what is written is Parquet; give a name"
    ):
        place.run(results=place.results.with_name("full.csv"))
    assert not script.asked


def test_exit_codes_are_those_of_predict(place: Place, stops_after: list[int]) -> None:
    (url,) = (endpoint.url for endpoint in place.asked.task.endpoints)

    def run(name: str, *options: str) -> Result:
        command = [
            "archive",
            str(place.drop),
            "--to",
            str(place.results.with_name(name)),
            "--category",
            "pill",
        ]
        return CliRunner().invoke(main, [*command, "--url", url, "--shard", "4", *options])

    good = run("good")
    assert (good.exit_code, good.stderr) == (0, "")
    assert good.stdout.splitlines()[0] == "10 judged: 0 anomalous, 10 good."
    place.put(200)
    assert run("anomalous").exit_code == 1
    (place.drop / "011.png").write_bytes(b"none")
    (place.drop / "part.gif").touch()
    broken = run("broken")
    assert broken.exit_code == 2
    assert broken.stdout.startswith("11 judged: 1 anomalous, 10 good. 1 of 12 not judged.")
    assert "011.png" in broken.stderr
    assert "part.gif has the ending '.gif'" in broken.stderr
    assert run("broken").stdout == broken.stdout  # it is complete, and says the same
    assert run("broken", "--skip-broken").exit_code == 1
    stops_after[0] = 1
    stopped = run("stopped", "--skip-broken")
    assert stopped.exit_code == 2
    assert (
        f"4 of 12 images are done, in {place.results.with_name('stopped.parts')}; the same" in stopped.stderr
    )
    assert run("good").exit_code == 2  # the list is another by now


@pytest.mark.parametrize(
    "options", [["--threshold", "-1"], ["--workers", "0"], ["--shard", "0"], ["--url", "nowhere"]]
)
def test_what_cannot_be_asked_is_refused(place: Place, options: list[str]) -> None:
    command = ["archive", str(place.drop), "--to", str(place.results), "--category", "pill", *options]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2
    assert "Error: " in done.stderr
    assert "Traceback" not in done.stderr
    assert not place.parts.exists()
