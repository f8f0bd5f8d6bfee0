"""Verdicts that a person marked as wrong, and the training set that they become.

    false reject   a good part that was rejected: the next release learns that it is good. Three of four go to
                   train/good, one of four to test/good, by the hash of its bytes, so that it stays on its side
    escape         a defect that passed: nothing is learnt from defects, so it is tested with, in test/escape, and its
                   mask lies in ground_truth/escape where one was drawn

A mark has the last word: a picture that lies on the other side of the set is taken away there. A picture is named after
the hash of its bytes: it lies in the set once, however often it was marked, and no name from elsewhere becomes a path.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

from client.core.errors import ClientError, RequestError
from client.page.training_set.base_images import RENDERED, TEST_GOOD, TRAIN_GOOD, BaseImages, find_base
from client.page.training_set.contents import ESCAPES, HELD_OUT, INDEX, Contents, Entry, Wrong, place_of
from client.page.training_set.reading import ReadPicture, read_mask, read_picture
from client.page.training_set.staging import Staging, filling_alone
from model_repository.category_names import category_fault, shown
from model_repository.image_decoder.image_decoding import ImageError

README = PurePosixPath("README.txt")
FEWEST = 2  # good images that training takes, one to train on and one to calibrate with


@dataclass(frozen=True)
class Mark:
    """That the verdict of an inspection is wrong, and who says so.

    Attributes:
        inspection: its number in the history.
        wrong: `escape` for a defect that passed, `false reject` for a good part that was rejected.
        note: what the person wrote, which may be empty.
        mask_png: the defect as it was drawn over the upright picture, in its size: a PNG in which whatever is neither 0
            nor transparent is defective; None where nothing was drawn.
        who: the person.
        when: the time of it.
    """

    inspection: int
    wrong: Wrong
    note: str
    mask_png: bytes | None
    who: str
    when: datetime


@dataclass(frozen=True)
class MarkedPicture:
    """A picture whose verdict was marked as wrong, and that verdict.

    Attributes:
        path: its file.
        category: the product.
        wrong, note, mask_png: as those of a `Mark`.
        score, threshold, release_id: of the verdict.
    """

    path: Path
    category: str
    wrong: Wrong
    note: str
    mask_png: bytes | None
    score: float
    threshold: float
    release_id: int


@dataclass(frozen=True)
class Exported:
    """A training set of marks, and what is to be known of it.

    Attributes:
        folder: the set, in MVTec AD's layout.
        category: the product.
        command: trains on the set and publishes the next release, run where the project lies.
        n_train_good, n_test_good, n_escapes, n_masks: marked pictures in it, those of earlier exports included.
        n_added: of these, the pictures that this export added.
        n_base: images and masks of the base set that this export laid beside them.
        left_out: one sentence for each picture or mask that is not in it.
        remarks: one sentence for whatever else is to be known.
    """

    folder: Path
    category: str
    command: str
    n_train_good: int
    n_test_good: int
    n_escapes: int
    n_masks: int
    n_added: int
    n_base: int
    left_out: tuple[str, ...]
    remarks: tuple[str, ...]


def export_marks(pictures: Sequence[MarkedPicture], folder: Path, *, base: Path | None = None) -> Exported:
    """Make a training set of marked pictures, or add new ones to the set of an earlier export.

    What lies in the set stays as it is; only a picture that is marked otherwise now moves, which is told.

    Args:
        pictures: of one category; of a picture that was marked several times the last mark counts.
        folder: a new or empty folder, or one of an earlier export.
        base: the category's data folder, whose images are laid beside the marks so that the set trains on its own: as
            hard links where the disk allows that, else as copies, which is told. None adds the marks alone.

    Returns:
        What is in the set, and what was left out.

    Raises:
        RequestError: no pictures, pictures of several categories, or of one that cannot be.
        ClientError: the folder holds something else, or overlaps with `base`; `base` holds no good images; or no
            picture can be read.
        StorageError: the folder cannot be written; what was there stays.
    """
    category, folder = _category_of(pictures), folder.absolute()
    if base is not None:
        _require_apart(base, folder)
    with filling_alone(folder):
        contents, left_out = Contents.read(folder, category), list[str]()
        readable = _read(pictures, left_out)
        found = BaseImages({}) if base is None else find_base(base, category)
        contents.add_base(found.files)
        for picture, read in readable:
            _add(contents, picture, read, left_out)
        command = f"make export CATEGORY={category} DATA={shlex.quote(str(folder))} FORCE=1"
        with Staging(folder) as staging:
            contents.stage(staging)
            if found.rendered is not None:
                staging.take(PurePosixPath(RENDERED), found.rendered)
            staging.write(README, _readme(contents, category, command).encode(errors="backslashreplace"))
            staging.write(PurePosixPath(INDEX), contents.to_json(base).encode())
            staging.put_in_place()
        contents.remove_overruled()
    return Exported(
        folder=folder,
        category=category,
        command=command,
        n_train_good=contents.count(TRAIN_GOOD),
        n_test_good=contents.count(TEST_GOOD),
        n_escapes=contents.count_escapes(),
        n_masks=contents.count_masks(),
        n_added=len(contents.added),
        n_base=contents.n_base,
        left_out=tuple(left_out),
        remarks=(
            *contents.remarks,
            *_withdrawn(contents, {read.digest for _, read in readable}),
            *_remarks(contents, found, staging, base),
        ),
    )


def _category_of(pictures: Sequence[MarkedPicture]) -> str:
    categories = sorted({picture.category for picture in pictures})
    if not categories:
        raise RequestError("No picture is marked; mark a verdict as wrong first.")
    if len(categories) > 1:
        raise RequestError(
            f"The marked pictures are of {' and '.join(categories)}; export those of one product at a time."
        )
    if fault := category_fault(categories[0]):
        raise RequestError(f"Category {shown(categories[0])} {fault}; give the name of a published product.")
    return categories[0]


def _require_apart(base: Path, folder: Path) -> None:
    one, other = base.resolve(), folder.resolve()
    if one.is_relative_to(other) or other.is_relative_to(one):
        raise ClientError(
            f"{folder} and {base}, the set that the marks are added to, lie in one another; name a folder elsewhere."
        )


def _read(pictures: Sequence[MarkedPicture], left_out: list[str]) -> list[tuple[MarkedPicture, ReadPicture]]:
    """The pictures that can be read, each with its last mark; sentences on the others go to `left_out`."""
    readable: dict[str, tuple[MarkedPicture, ReadPicture]] = {}
    for picture in pictures:
        try:
            read = read_picture(picture.path)
        except ImageError as error:
            left_out.append(f"{error}; its mark was left out.")
            continue
        readable[read.digest] = (picture, read)
    if not readable:
        raise ClientError(f"None of the {len(pictures)} marked pictures can be read: {left_out[0]}")
    return list(readable.values())


def _add(contents: Contents, picture: MarkedPicture, read: ReadPicture, left_out: list[str]) -> None:
    mask = None
    if picture.wrong == "escape" and picture.mask_png is not None:
        try:
            mask = read_mask(picture.mask_png, read.size)
        except ImageError as error:
            left_out.append(f"The mask drawn over {picture.path} {error}; the picture has none in the set.")
    entry = Entry(
        file=str(place_of(picture.wrong, read.digest, read.name)),
        sha256=read.digest,
        n_bytes=read.n_bytes,
        wrong=picture.wrong,
        note=picture.note,
        picture=str(picture.path),
        score=picture.score,
        threshold=picture.threshold,
        release_id=picture.release_id,
    )
    if sentence := contents.add(entry, picture.path, mask):
        left_out.append(sentence)


def _withdrawn(contents: Contents, given: set[str]) -> list[str]:
    """That pictures of earlier exports are not among the marks any more."""
    others = [entry for digest, entry in contents.entries.items() if digest not in given]
    if not others:
        return []
    return [
        f"{len(others)} marked pictures that were exported before are not among the marks now, {others[0].file} among "
        "them; they stay in the set: where a mark was taken back, remove its file, or export into a new folder."
    ]


def _remarks(contents: Contents, found: BaseImages, staging: Staging, base: Path | None) -> list[str]:
    remarks = []
    if found.n_left_out:
        remarks.append(
            f"{found.n_left_out} images of {base} were left out, as training leaves them out: they lie in none of "
            "train/good/, test/<kind>/ and ground_truth/<kind>/."
        )
    if staging.n_copied:
        remarks.append(
            f"{staging.n_copied} files of {base} were copied, since links to them cannot be made there; they take "
            "their room twice."
        )
    n_escapes = contents.count_escapes()
    if n_bare := n_escapes - contents.count_masks():
        remarks.append(
            f"{n_bare} of {n_escapes} marked escapes have no mask, so that pixel measures of the whole test set cannot "
            "be computed; draw their masks to have them."
        )
    n_good = contents.count_files(TRAIN_GOOD)
    if n_good == contents.count(TRAIN_GOOD):
        few = ", too few to train on" if n_good < FEWEST else ""
        remarks.append(
            f"The set holds marked pictures alone: {n_good} to train on{few}; give the category's data folder as the "
            "base."
        )
    return remarks


def _readme(contents: Contents, category: str, command: str) -> str:
    counts = [contents.count_files(TRAIN_GOOD), contents.count(TRAIN_GOOD)]
    counts += [contents.count_files(TEST_GOOD), contents.count(TEST_GOOD), contents.count_files(ESCAPES)]
    train, marked_train, test, marked_test, escapes = counts
    return f"""\
Marked verdicts of {category}, as a training set in MVTec AD's layout.

train/good           {train} good images to train on; the verdict of {marked_train} of them was wrong, called mark-*
test/good            {test} good images to test with; {marked_test} of them marked: one of {HELD_OUT} is kept for this
test/escape          {escapes} defective images that passed
ground_truth/escape  {contents.count_masks()} masks of these, PNG of 0 and 255, where one was drawn
{INDEX}           which verdict each mark-* image had, and what was noted

Train on it, verify, and publish the next release, where the project lies:

    {command}

FORCE=1 because the run before was trained on other images; it is kept in runs/{category}/earlier/. While a server of
that machine serves the repository, the new release is not live before somebody promotes it: look at it first on the
page, which shows it beside the live one on the marked images, or with `python -m deploy preview {category} NUMBER`.

Exporting into this folder again adds new marks, and leaves the others as they are. Images that are not called mark-*
are those of the data set before, and the same files where the disk allows that (hard links): do not edit them. DATA is
where this folder lies; give another path where you moved it.
"""
