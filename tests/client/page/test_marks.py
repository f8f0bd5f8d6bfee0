"""Marks become a training set: what goes where, what is left out, and that training takes it."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from client.core.errors import ClientError, RequestError
from client.files import StorageError
from client.page import marks
from client.page.marks import MarkedPicture, export_marks
from client.page.training_set.contents import Wrong, is_held_out
from client.page.training_set.reading import ReadPicture, digest_of
from tests.products import ROOT

WIDTH, HEIGHT = 40, 24


def picture(path: Path, seed: int, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def marked(path: Path, wrong: Wrong = "false reject", mask: bytes | None = None) -> MarkedPicture:
    return MarkedPicture(path, "pill", wrong, "dust", mask, score=2.5, threshold=1.0, release_id=2**62 + 1)


def png(pixels: NDArray[np.uint8]) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    return encoded.getvalue()


def drawn(*, width: int = WIDTH, height: int = HEIGHT) -> bytes:
    """What a page's canvas gives: half transparent red where somebody drew."""
    pixels = np.zeros((height, width, 4), np.uint8)
    pixels[4:9, 10:20] = (255, 0, 0, 128)
    return png(pixels)


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def images(folder: Path) -> set[str]:
    return {name for name in files(folder) if "/" in name}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Six good images, two to test with, and a scratch with its mask."""
    folder = tmp_path / "data" / "pill"
    for number in range(6):
        picture(folder / "train" / "good" / f"{number}.png", number)
    for number in (6, 7):
        picture(folder / "test" / "good" / f"{number}.png", number)
    picture(folder / "test" / "scratch" / "8.png", 8)
    (folder / "ground_truth" / "scratch").mkdir(parents=True)
    (folder / "ground_truth" / "scratch" / "8_mask.png").write_bytes(drawn())
    (folder / "license.txt").write_text("none", encoding="utf-8")
    return folder


def rejects(folder: Path, count: int) -> list[MarkedPicture]:
    return [marked(picture(folder / f"reject {number}.PNG", 100 + number)) for number in range(count)]


def test_each_mark_goes_where_training_and_testing_look_for_it(tmp_path: Path, base: Path) -> None:
    good = rejects(tmp_path / "line", 12)
    escape = marked(picture(tmp_path / "line" / "escape.jpg", 200), "escape", drawn())
    bare = marked(picture(tmp_path / "line" / "bare", 201, format="BMP"), "escape")
    before = files(base)
    exported = export_marks([*good, escape, bare], tmp_path / "next", base=base)
    names = {item.path: f"mark-{digest_of(item.path)[:16]}" for item in (*good, escape, bare)}
    held_out = [item.path for item in good if is_held_out(digest_of(item.path))]
    assert 0 < len(held_out) < 6
    expected = {
        f"{'test' if item.path in held_out else 'train'}/good/{names[item.path]}.png" for item in good
    }
    expected |= {f"test/escape/{names[escape.path]}.jpg", f"test/escape/{names[bare.path]}.bmp"}
    expected |= {f"ground_truth/escape/{names[escape.path]}_mask.png"}
    assert images(tmp_path / "next") == expected | {name for name in before if "/" in name}
    assert (exported.n_train_good, exported.n_test_good) == (12 - len(held_out), len(held_out))
    assert (exported.n_escapes, exported.n_masks, exported.n_added, exported.n_base) == (2, 1, 14, 10)
    assert exported.left_out == ()
    assert exported.command == f"make export CATEGORY=pill DATA={tmp_path / 'next'} FORCE=1"
    assert exported.command in (tmp_path / "next" / "README.txt").read_text(encoding="utf-8")
    assert files(base) == before
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_mask_is_of_the_upright_pictures_size_and_holds_0_and_255(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    path = picture(tmp_path / "turned.jpg", 1, exif=exif)
    upright = drawn(width=HEIGHT, height=WIDTH)
    assert export_marks([marked(path, "escape", upright)], tmp_path / "turned").n_masks == 1
    (file,) = (tmp_path / "turned" / "ground_truth" / "escape").iterdir()
    mask = np.asarray(Image.open(file))
    assert mask.shape == (WIDTH, HEIGHT)
    assert (mask[4:9, 10:20] == 255).all()
    assert mask.sum() == 255 * 50
    sideways = export_marks([marked(path, "escape", drawn())], tmp_path / "sideways")
    assert sideways.n_masks == 0
    assert "is 40 x 24 pixels, expected the picture's 24 x 40" in sideways.left_out[0]
    nothing = png(np.zeros((WIDTH, HEIGHT, 4), np.uint8))
    assert export_marks([marked(path, "escape", nothing)], tmp_path / "empty").n_masks == 0


def test_training_takes_the_set_without_a_warning(tmp_path: Path, base: Path) -> None:
    """As `python -m train fit` reads and checks it; no picture lies on both sides."""
    escape = marked(picture(tmp_path / "line" / "escape.png", 200), "escape", drawn())
    folder = tmp_path / "the next set"
    exported = export_marks([*rejects(tmp_path / "line", 6), escape], folder, base=base)
    check = (
        "import sys\n"
        "from pathlib import Path\n"
        "from train.data.checks import check_training_data\n"
        "from train.data.ground_truth import load_masks\n"
        "from train.data.sources import find_category\n"
        "data = find_category('pill', data=sys.argv[1], data_dir=Path('data'))\n"
        "check_training_data(data, fingerprints={}, force=False)\n"
        "masks = load_masks(data.test, image_size=24)\n"
        "print(len(data.train_good), len(data.test), int(masks.any(axis=(1, 2)).sum()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", check, folder], cwd=ROOT, capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].split() == [
        str(6 + exported.n_train_good),
        str(3 + exported.n_test_good + 1),
        "2",
    ]
    assert "Warning" not in done.stdout + done.stderr
    assert "Note" not in done.stdout + done.stderr


def test_exporting_again_adds_new_marks_and_changes_nothing(tmp_path: Path, base: Path) -> None:
    wrong = rejects(tmp_path / "line", 4)
    folder = tmp_path / "next"
    export_marks(wrong[:2], folder, base=base)
    before = files(folder)
    assert export_marks(wrong[:2], folder, base=base).n_added == 0
    assert files(folder) == before
    again = export_marks(wrong, folder)
    assert (again.n_added, again.n_base) == (2, 0)
    after = files(folder)
    assert {name: after[name] for name in before if "/" in name} == {
        name: content for name, content in before.items() if "/" in name
    }
    assert len(images(folder)) == len({name for name in before if "/" in name}) + 2


def test_the_same_picture_lies_in_the_set_once_and_the_last_mark_counts(tmp_path: Path) -> None:
    path = picture(tmp_path / "line" / "a.png", 1)
    copy = picture(tmp_path / "line" / "b.png", 1)
    export_marks([marked(path), marked(copy)], tmp_path / "next")
    assert len(images(tmp_path / "next")) == 1
    changed = export_marks([marked(path), marked(copy, "escape", drawn())], tmp_path / "next")
    assert {name.split("/mark")[0] for name in images(tmp_path / "next")} == {
        "test/escape",
        "ground_truth/escape",
    }
    assert "is marked as escape; it is no longer there" in " ".join(changed.remarks)
    back = export_marks([marked(path)], tmp_path / "next")
    assert {name.split("/mark")[0] for name in images(tmp_path / "next")} <= {"train/good", "test/good"}
    assert (back.n_escapes, back.n_masks) == (0, 0)


def test_a_mark_that_was_taken_back_is_told_and_may_be_removed_by_hand(tmp_path: Path) -> None:
    kept, withdrawn = rejects(tmp_path / "line", 2)
    export_marks([kept, withdrawn], tmp_path / "next")
    exported = export_marks([kept], tmp_path / "next")
    (place,) = (name for name in images(tmp_path / "next") if digest_of(withdrawn.path)[:16] in name)
    assert (
        f"1 marked pictures that were exported before are not among the marks now, {place} among them"
        in " ".join(exported.remarks)
    )
    (tmp_path / "next" / place).unlink()
    again = export_marks([kept], tmp_path / "next")
    assert again.n_train_good + again.n_test_good == 1
    assert "exported before" not in " ".join(again.remarks)


def test_a_picture_that_changes_meanwhile_is_not_taken_for_the_marked_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (mark,) = rejects(tmp_path / "line", 1)
    read = marks.read_picture

    def changing(path: Path) -> ReadPicture:
        result = read(path)
        picture(path, 999)
        return result

    monkeypatch.setattr(marks, "read_picture", changing)
    with pytest.raises(ClientError, match="changed while it was exported; export again"):
        export_marks([mark], tmp_path / "next")
    assert not (tmp_path / "next").exists()


def test_a_defect_that_was_trained_on_is_no_longer(tmp_path: Path, base: Path) -> None:
    """The base set held the escape as good, so that the release before learnt it."""
    before = files(base)
    exported = export_marks(
        [marked(base / "train" / "good" / "3.png", "escape")], tmp_path / "next", base=base
    )
    assert "train/good/3.png" not in images(tmp_path / "next")
    assert len(list((tmp_path / "next" / "test" / "escape").iterdir())) == 1
    assert "was in the set as train/good/3.png and is marked as escape" in exported.remarks[0]
    assert files(base) == before


def test_pictures_of_the_base_set_stay_where_they_are_right(tmp_path: Path, base: Path) -> None:
    """A test image that is trained on would make the next release look better than it is."""
    wrong = [
        marked(base / "test" / "good" / "6.png"),
        marked(base / "test" / "scratch" / "8.png", "escape", drawn()),
    ]
    exported = export_marks(wrong, tmp_path / "next", base=base)
    assert images(tmp_path / "next") == {name for name in files(base) if "/" in name}
    assert exported.n_added == 0
    assert "ground_truth/scratch/8_mask.png is its mask in the base set" in exported.left_out[0]
    good = export_marks([marked(base / "test" / "scratch" / "8.png")], tmp_path / "other", base=base)
    assert not (images(tmp_path / "other") & {"test/scratch/8.png", "ground_truth/scratch/8_mask.png"})
    assert good.n_added == 1


@pytest.mark.parametrize("shape", ["plain", "Train/OK", "good", "several"])
def test_the_base_is_read_as_training_reads_it(tmp_path: Path, shape: str) -> None:
    root = tmp_path / "photos"
    place = {"plain": root, "several": root / "pill" / "train" / "good"}.get(shape, root / shape)
    for number in range(3):
        picture(place / f"{number}.png", number)
    picture(place / ".hidden.png", 9)
    export_marks(rejects(tmp_path / "line", 1), tmp_path / "next", base=root)
    laid = {name for name in images(tmp_path / "next") if "mark-" not in name}
    assert laid == {f"train/good/{number}.png" for number in range(3)}


def test_rendered_images_stay_called_so(tmp_path: Path, base: Path) -> None:
    (base / "synthetic.json").write_text("{}", encoding="utf-8")
    exported = export_marks(rejects(tmp_path / "line", 1), tmp_path / "next", base=base)
    assert (tmp_path / "next" / "synthetic.json").is_file()
    assert exported.n_base == 10


def test_copies_are_made_where_links_cannot_be_and_that_is_told(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked = export_marks(rejects(tmp_path / "line", 1), tmp_path / "linked", base=base)
    assert linked.remarks == ()
    assert (tmp_path / "linked/train/good/0.png").samefile(base / "train/good/0.png")

    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    copied = export_marks(rejects(tmp_path / "line", 1), tmp_path / "copied", base=base)
    assert f"10 files of {base} were copied" in copied.remarks[0]
    assert not (tmp_path / "copied/train/good/0.png").samefile(base / "train/good/0.png")
    assert images(tmp_path / "linked") == images(tmp_path / "copied")


def test_a_picture_that_is_gone_or_broken_ends_that_one(tmp_path: Path) -> None:
    whole = rejects(tmp_path / "line", 1)
    broken = tmp_path / "line" / "broken.png"
    broken.write_bytes(whole[0].path.read_bytes()[:500])
    wrong = [marked(tmp_path / "gone.png"), marked(broken), *whole]
    exported = export_marks(wrong, tmp_path / "next")
    assert exported.n_added == 1
    assert len(exported.left_out) == 2
    assert (
        "gone.png cannot be read (No such file or directory); its mark was left out." in exported.left_out[0]
    )
    with pytest.raises(ClientError, match="None of the 1 marked pictures can be read"):
        export_marks(wrong[:1], tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_names_from_elsewhere_become_no_paths(tmp_path: Path) -> None:
    """Names that are not UTF-8, and what a browser sent."""
    odd = tmp_path / os.fsdecode(b"line \xff") / "a\n..b.png"
    picture(odd, 1)
    export_marks([marked(odd)], tmp_path / "next")
    (name,) = images(tmp_path / "next")
    assert name.rpartition("/")[2] == f"mark-{digest_of(odd)[:16]}.png"
    (entry,) = json.loads((tmp_path / "next" / "marks.json").read_text(encoding="utf-8"))["marks"]
    assert entry["picture"] == str(odd)
    assert entry["release_id"] == 2**62 + 1


def test_a_full_disk_leaves_what_was_there(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = rejects(tmp_path / "line", 6)
    export_marks(wrong[:2], tmp_path / "next", base=base)
    before = files(tmp_path / "next")
    write = Path.write_bytes

    def fill_up(path: Path, content: bytes) -> int:
        if path.name == "marks.json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", fill_up)
    for folder in (tmp_path / "next", tmp_path / "new"):
        with pytest.raises(StorageError, match="No space left on device"):
            export_marks(wrong, folder, base=base)
    assert files(tmp_path / "next") == before
    assert not (tmp_path / "new").exists()
    monkeypatch.undo()
    (tmp_path / ".next.filling").mkdir()  # as a killed export leaves it
    assert export_marks(wrong, tmp_path / "next", base=base).n_added == 4


def test_two_exports_at_once_wait_for_each_other(tmp_path: Path, base: Path) -> None:
    wrong = rejects(tmp_path / "line", 8)
    faults: list[Exception] = []

    def export(pictures: list[MarkedPicture]) -> None:
        try:
            export_marks(pictures, tmp_path / "next", base=base)
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=export, args=(wrong[start : start + 5],)) for start in (0, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert len(json.loads((tmp_path / "next" / "marks.json").read_text(encoding="utf-8"))["marks"]) == 8


def test_what_cannot_be_exported_is_one_sentence(tmp_path: Path, base: Path) -> None:
    (mark,) = rejects(tmp_path / "line", 1)
    with pytest.raises(RequestError, match="No picture is marked"):
        export_marks([], tmp_path / "next")
    with pytest.raises(RequestError, match="are of mono and pill; export those of one product at a time"):
        export_marks([mark, replace(mark, category="mono")], tmp_path / "next")
    with pytest.raises(RequestError, match="no safe folder name"):
        export_marks([replace(mark, category="../x")], tmp_path / "next")
    with pytest.raises(ClientError, match=r"holds no marks\.json, so no marks were exported there"):
        export_marks([mark], base)
    with pytest.raises(ClientError, match="lie in one another"):
        export_marks([mark], base / "next", base=base)
    with pytest.raises(ClientError, match="holds no good images to train on"):
        export_marks([mark], tmp_path / "next", base=base / "ground_truth")
    with pytest.raises(ClientError, match="is no folder"):
        export_marks([mark], tmp_path / "next", base=tmp_path / "missing")
    export_marks([mark], tmp_path / "next")
    with pytest.raises(ClientError, match="holds marks of 'pill', not of 'mono'"):
        export_marks([replace(mark, category="mono")], tmp_path / "next")
    (tmp_path / "next" / "marks.json").write_text("{", encoding="utf-8")
    with pytest.raises(ClientError, match=r"cannot be read .* restore it, or name a new folder"):
        export_marks([mark], tmp_path / "next")


def test_marks_alone_say_that_they_are_few(tmp_path: Path) -> None:
    escape = marked(picture(tmp_path / "a.png", 1), "escape")
    exported = export_marks([escape], tmp_path / "next")
    assert "1 of 1 marked escapes have no mask" in exported.remarks[0]
    assert "The set holds marked pictures alone: 0 to train on, too few to train on" in exported.remarks[1]
