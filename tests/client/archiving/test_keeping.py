"""What of an archive lies on the disk: its list, its plan, the parts that are done, and one file of them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from client.archiving.listing import find, list_images
from client.archiving.merging import merge
from client.archiving.parts import Parts
from client.archiving.plan import MISSING, Plan, digest_of, read_plan, split, states_of, write_plan
from client.archiving.rows import Row, read_metadata, shard_file
from client.archiving.tally import Tally
from client.core.defects import Defect
from client.core.errors import ImageFileError
from client.files import StorageError
from client.predictions.prediction import Prediction
from tests.client.samples import RELEASE, save_image

NOW = datetime(2026, 11, 27, 6, 12, 1, 250, tzinfo=UTC)
DEFECT = Defect(
    left=301, top=96, width=22, height=40, area=610, peak=2.5, mean=1.25, centre_x=312.5, centre_y=116.0
)


def prediction(path: str, *, anomalous: bool = False, release_id: int = RELEASE) -> Prediction:
    return Prediction(
        image=path,
        category="pill",
        defect=None,
        score=2.0 if anomalous else 0.5,
        threshold=1.0,
        anomalous=anomalous,
        release_id=release_id,
        latency_ms=2.5,
        synthetic=False,
        overlay=None,
        original_size=(640, 480),
        defects=(DEFECT,) if anomalous else (),
    )


def judged(path: bytes, *, anomalous: bool = False) -> Row:
    return Row(path, "pill", NOW, prediction(os.fsdecode(path), anomalous=anomalous), "line:8001")


def paths(*names: str) -> bytes:
    return b"".join(name.encode() + b"\0" for name in names)


def numbered(pieces: Iterable[bytes]) -> list[tuple[int, bytes, bytes]]:
    """Shards of files that are not there."""
    return [(number, piece, MISSING * piece.count(b"\0")) for number, piece in enumerate(pieces)]


def make_plan(folder: Path, *pieces: bytes) -> Plan:
    return write_plan(folder / ".plan", question={"category": "pill"}, listed="x", pieces=numbered(pieces))


def content_of(shard: bytes) -> bytes:
    return shard_file(
        [judged(path) for path in shard.split(b"\0")[:-1]],
        digest=digest_of(shard, MISSING * shard.count(b"\0")),
    )


def test_paths_are_cut_into_shards_and_read_back(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    images = [b"/b\n", b"/c", bytes(tmp_path / "a")]
    states = states_of(images)
    cut = split(images, states, 2)
    assert cut == [(b"/b\n\0/c\0", 2 * MISSING), (images[2] + b"\0", states[-len(MISSING) :])]
    pieces = [piece for piece, _ in cut]
    plan = write_plan(
        tmp_path / ".plan",
        question={},
        listed="x",
        pieces=[(number, *each) for number, each in enumerate(cut)],
    )
    read = read_plan(tmp_path / ".plan")
    assert read == plan
    assert read is not None
    assert [read.paths_of(shard) for shard in read.shards] == pieces
    assert [read.states_of(shard) for shard in read.shards] == [states for _, states in cut]
    whole = read.digest_of(read.shards[1])
    os.utime(tmp_path / "a", ns=(1, 1))
    assert digest_of(pieces[1], states_of(images[2:])) != whole  # the same size, at another time
    assert ([shard.count for shard in read.shards], read.n_images) == ([2, 1], 3)
    assert read_plan(tmp_path / "none") is None


@pytest.mark.parametrize("content", [b"", b"no plan", b"{}\n", b'{"format": 1}\n'])
def test_what_is_no_plan_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".plan").write_bytes(content)
    with pytest.raises(StorageError, match="is no plan of this version; remove the folder"):
        read_plan(tmp_path / ".plan")


def test_a_plan_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, paths("/a", "/b"))
    plan.path.write_bytes(plan.path.read_bytes()[:-1])
    with pytest.raises(StorageError, match="is no plan"):
        plan.digest_of(plan.shards[0])


def test_a_folder_is_listed_by_the_rules_of_predict(tmp_path: Path) -> None:
    for name in ("b.png", "lot/a.png"):
        save_image(tmp_path / name)
    (tmp_path / "odd.pgm").write_bytes(b"P5")
    (tmp_path / "results.parquet").write_bytes(b"PAR1")
    listed = list_images(tmp_path)
    assert listed.paths.decode() == f"{tmp_path}/b.png\0{tmp_path}/lot/a.png\0"
    assert listed.count == 2
    assert {(entry.path.name, entry.may_be_part) for entry in listed.left_out} == {
        ("odd.pgm", True),
        ("results.parquet", False),
    }
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageFileError, match="holds no images"):
        list_images(tmp_path / "empty")  # the sentence passes between the processes


def test_a_text_file_names_images_that_need_not_be_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (
        b"\xef\xbb\xbf/share/2.png\r\n\r\n/share/1 #.png\nlot/\xfc.png\n/share/x/../2.png\n/share/notes.txt\n"
    )
    (tmp_path / "list").write_bytes(text)
    listed = find(Path("list"))
    assert listed.paths.split(b"\0")[:-1] == sorted(
        [b"/share/1 #.png", b"/share/2.png", os.fsencode(tmp_path) + b"/lot/\xfc.png"]
    )
    assert [str(entry) for entry in listed.left_out] == [
        "/share/2.png was given twice and is judged once",
        "/share/notes.txt is no image",
    ]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("list.txt", b" \n", "names no image"),
        ("a.png", b"", "has the ending of an image"),
        ("list", b"/a\0/b", "is no text"),
        ("gone", None, "No such file"),
    ],
)
def test_what_is_no_list_is_refused(tmp_path: Path, name: str, content: bytes | None, reason: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageFileError, match=reason):
        find(tmp_path / name)


def test_rows_are_read_back_as_they_were(tmp_path: Path) -> None:
    rows = [
        judged(b"/lot/\xfc.png", anomalous=True),
        Row(b"/lot/b.png", "pill", NOW, error="/lot/b.png is no image."),
    ]
    (tmp_path / "part").write_bytes(shard_file(rows, digest="d"))
    first, second = pq.read_table(tmp_path / "part").to_pylist()
    assert first == {
        "path": "/lot/\\udcfc.png", "category": "pill", "score": 2.0, "label": "anomalous", "threshold": 1.0,
        "release_id": RELEASE, "original_size": {"width": 640, "height": 480}, "defects": [DEFECT.to_dict()],
        "error": None, "judged_at": NOW, "server": "line:8001",
    }  # fmt: skip
    assert (second["label"], second["error"], second["score"]) == (
        "not judged",
        "/lot/b.png is no image.",
        None,
    )
    metadata = read_metadata(tmp_path / "part")
    tally = Tally.from_dict(metadata["tally"])
    assert (metadata["images"], tally.images, tally.anomalous, tally.not_judged) == ("d", 2, 1, 1)
    assert (tally.releases, tally.errors) == ({RELEASE: 1}, ["/lot/b.png is no image."])


def test_only_whole_files_of_the_right_images_are_done(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "results.parquet")
    shards = [paths("/a"), paths("/b"), paths("/c"), paths("/d")]
    with parts.locked():
        plan = make_plan(parts.folder, *shards)
        parts.add(plan.shards[0], content_of(shards[0]))
        parts.add(plan.shards[1], content_of(shards[0]))  # of other images
        parts.path_of(plan.shards[2]).write_bytes(content_of(shards[2])[:100])
        (parts.folder / ".000003.parquet.123").write_bytes(b"half written")
        (tmp_path / ".results.parquet.123").write_bytes(b"half merged")
    with parts.locked():
        assert list(parts.done(plan)) == [0]
        assert parts.damaged == [1, 2]
        assert {path.name for path in parts.folder.iterdir()} == {".plan", ".lock", "000000.parquet"}
        assert [path.name for path in tmp_path.iterdir()] == [parts.folder.name]


def test_a_second_run_and_anothers_folder_are_refused(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "results.parquet")
    with parts.locked():
        make_plan(parts.folder, paths("/a"))
        with (
            pytest.raises(StorageError, match=rf"written already, by process {os.getpid()} on "),
            parts.locked(),
        ):
            pass
    other = Parts(tmp_path / "other")
    save_image(other.folder / "a.png")
    with pytest.raises(StorageError, match="holds no unfinished archive"), other.locked():
        pass
    assert (other.folder / "a.png").exists()
    hidden = Parts(tmp_path / "hidden")
    hidden.folder.mkdir()
    (hidden.folder / ".mine").touch()
    with pytest.raises(StorageError, match="holds no unfinished archive"), hidden.locked():
        pass
    assert (hidden.folder / ".mine").exists()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "no folder" / "results.parquet")
    with pytest.raises(StorageError, match=r"link cannot be written \(No such file"), Parts(link).locked():
        pass
    assert not Parts(link).folder.exists()
    never = Parts(tmp_path / "never")
    with never.locked():
        pass  # nothing was begun
    assert not never.folder.exists()


def test_parts_become_one_file_or_none(tmp_path: Path) -> None:
    results = tmp_path / "results.parquet"
    shards = [paths("/a", "/b"), paths("/c")]
    for number, shard in enumerate(shards):
        (tmp_path / f"{number}").write_bytes(content_of(shard))
    files = [tmp_path / "0", tmp_path / "1"]
    with pytest.raises(StorageError, match="hold 3 rows, and 4 images were listed"):
        merge(files, results, metadata={}, n_rows=4)
    assert not results.exists()
    merge(files, results, metadata={"client": "0"}, n_rows=3)
    assert pq.read_table(results).column("path").to_pylist() == ["/a", "/b", "/c"]
    assert pq.ParquetFile(results).num_row_groups == 2
    assert read_metadata(results) == {"client": "0"}
    (tmp_path / "1").write_bytes(b"PAR1")
    with pytest.raises(StorageError, match=r"is damaged .* and was removed"):
        merge(files, results, metadata={}, n_rows=3)
    assert not (tmp_path / "1").exists()
