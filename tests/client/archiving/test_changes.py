"""Images that are replaced, go or come between two runs of an archive: none keeps the verdict of another."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.files import StorageError
from tests.client.archiving.conftest import Place, expected
from tests.client.judging.scripted_server import Script, png


def test_a_file_replaced_under_its_name_is_judged_again(
    place: Place, script: Script, stops_after: list[int]
) -> None:
    stops_after[0] = 2
    place.run()
    place.put(9)  # written anew, and not judged yet
    (place.drop / "002.png").write_bytes(png(222))
    stops_after[0] = 1000
    outcome = place.run()
    assert place.said == [
        f"{place.drop} has changed since this was begun: 4 images were judged before, and 6 are to be judged.",
        "1 of these were judged before and have changed since; they are judged again, with the images of their shards, "
        "4 in all.",
    ]
    assert sorted(place.rows()) == sorted([*expected(0, 1, *range(3, 10)), ("002", 222.0)])
    assert (outcome.tally.images, outcome.tally.anomalous, len(script.asked)) == (10, 1, 14)
    (place.drop / "005.png").write_bytes(png(200))
    with pytest.raises(
        StorageError, match=r"10 images, and files of .* were changed or replaced since; give another"
    ):
        place.run()


def test_a_file_of_a_list_that_is_gone_keeps_its_row_and_one_that_comes_is_judged(
    place: Place, stops_after: list[int], tmp_path: Path
) -> None:
    names = tmp_path / "list"
    names.write_text("".join(f"{place.drop}/{number:03}.png\n" for number in (3, 4, 5, 12, 13, 14)))
    stops_after[0] = 2
    assert place.run(source=names, shard=2).tally.not_judged == 1
    (place.drop / "004.png").unlink()
    place.put(12)
    stops_after[0] = 1000
    outcome = place.run(source=names)
    assert "2 images were judged before, 1 of which are gone, and 4 are to be judged" in place.said[0]
    assert "2 in all" in place.said[1]
    assert place.rows() == [*expected(3, 4, 5, 12), ("013", None), ("014", None)]
    assert (outcome.tally.images, outcome.tally.not_judged) == (6, 2)
