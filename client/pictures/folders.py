"""Find the image files among files and folders, and name everything that is left out."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from client.core.errors import ImageFileError
from model_repository.image_decoder.image_decoding import SUFFIXES

# What lies beside images and is none: notes, labels, tables, programs, answers of the run before.
NO_PARTS = (
    ".bat", ".cfg", ".csv", ".db", ".doc", ".docx", ".htm", ".html", ".ini", ".ipynb", ".json", ".jsonl", ".lnk",
    ".log", ".md", ".md5", ".pdf", ".previous", ".py", ".sh", ".sha256", ".toml", ".tsv", ".txt", ".url", ".xls",
    ".xlsx", ".xml", ".yaml", ".yml",
)  # fmt: skip
NO_PART_NAMES = ("copying", "license", "makefile", "readme")
MAC_COPY = "._"  # begins the name of what a Mac writes beside every file on a foreign disk
# Hold copies and previews of images, made by Jupyter, a Mac's archiver, a file manager and a NAS.
COPIES = (".ipynb_checkpoints", "__macosx", ".thumbnails", ".trash", ".trashes", ".trash-1000", "@eadir")
NO_IMAGE = "is no image"
# Folders of MVTec AD's layout, in any case, as training takes them.
GOOD_NAMES = ("good", "ok", "normal")
TEST, TRAIN = "test", "train"
MASKS = "groundtruth"  # the letters of ground_truth
SHOWN_REASONS = 3  # where all was left out


@dataclass(frozen=True)
class ImageFile:
    """An image to ask about.

    Attributes:
        path: the file.
        name: for reports, its path relative to the given folder; or, where several images would have the same name,
            relative to the folder that all images share.
        defect: in MVTec AD's layout (test/<defect>/), what it really is, `good` for a good one; else None.
    """

    path: Path
    name: Path
    defect: str | None


@dataclass(frozen=True)
class LeftOut:
    """Something among the images that is not judged.

    Attributes:
        path: the file or folder.
        reason: what it is, a phrase that follows its name.
        may_be_part: whether it may be, or hold, an image of a part.
    """

    path: Path
    reason: str
    may_be_part: bool

    def __str__(self) -> str:
        return f"{self.path} {self.reason}"


@dataclass(frozen=True)
class FoundImages:
    """The images among files and folders, and what was left out."""

    images: list[ImageFile]
    left_out: list[LeftOut]


def find_images(paths: Sequence[Path]) -> FoundImages:
    """All images among files and folders, sorted within a folder.

    Folders are searched in depth and links followed. A folder or file that is met again is judged once.

    Raises:
        ImageFileError: a path that does not exist, a folder without images, or one of ground truth masks.
    """
    search = _Search()
    for path in paths:
        try:
            mode = path.stat().st_mode
        except OSError as error:
            raise ImageFileError(_no_such_path(path, error)) from None
        _refuse_masks(path)
        if stat.S_ISDIR(mode):
            search.add_folder(path)
        else:
            search.add_file(path, Path(path.name))
    return FoundImages(_uniquely_named(search.images), search.left_out)


class _Search:
    """Collects images and what is left out, and remembers what it has met."""

    def __init__(self) -> None:
        self.images: list[ImageFile] = []
        self.left_out: list[LeftOut] = []
        self._repeats = 0
        self._defects: dict[Path, str | None] = {}  # of a folder's images
        self._files: set[Path] = set()
        self._folders: dict[Path, Path] = {}  # by where their links lead

    def add_file(self, path: Path, name: Path) -> None:
        absolute = _absolute(path)
        if absolute in self._files:
            self._leave_out_repeat(path, "was given twice and is judged once")
            return
        self._files.add(absolute)
        if path.parent not in self._defects:
            self._defects[path.parent] = _defect_of(path.parent)
        self.images.append(ImageFile(path=path, name=name, defect=self._defects[path.parent]))

    def add_folder(self, root: Path) -> None:
        n_met, n_left_out = len(self.images) + self._repeats, len(self.left_out)
        for file in sorted(self._image_files(root)):
            self.add_file(file, file.relative_to(root))
        if len(self.images) + self._repeats == n_met:
            reasons = [str(left_out) for left_out in self.left_out[n_left_out:]]
            more = f" and {len(reasons) - SHOWN_REASONS} more" if len(reasons) > SHOWN_REASONS else ""
            but = f"; left out: ({'; '.join(reasons[:SHOWN_REASONS])}{more})" if reasons else ""
            raise ImageFileError(f"Folder {root} holds no images ({', '.join(SUFFIXES)}){but}.")

    def _image_files(self, root: Path) -> Iterator[Path]:
        waiting = [root]
        while waiting:
            folder = waiting.pop()
            try:
                met = self._folders.setdefault(folder.resolve(), folder)
                if met is not folder:
                    self._leave_out_repeat(folder, f"is the same folder as {met}, which is judged once")
                    continue
                with os.scandir(folder) as scanned:
                    entries = sorted(scanned, key=lambda entry: (entry.is_symlink(), entry.name))
            except OSError as error:
                self._leave_out(folder, f"cannot be read ({error.strerror})", may_be_part=True)
                continue
            folders = []
            for entry in entries:
                path = folder / entry.name
                if _is_folder(entry):
                    if self._is_searched(path):
                        folders.append(path)
                elif self._is_image(path, entry):
                    yield path
            waiting += reversed(folders)  # the first is searched first, folders before links to them

    def _is_searched(self, folder: Path) -> bool:
        name = folder.name.lower()
        if name in COPIES:
            self._leave_out(folder, "holds copies of images")
        elif name.startswith("."):
            self._leave_out(folder, "is hidden", may_be_part=_holds_images(folder))
        elif _holds_masks(folder) or (folder.is_symlink() and _masks_around(folder.resolve())):
            self._leave_out(folder, "holds ground truth masks, not parts")
        else:
            return True
        return False

    def _is_image(self, path: Path, entry: os.DirEntry[str]) -> bool:
        suffix, name = path.suffix.lower(), path.name.lower()
        if name.startswith("."):
            may_be_part = suffix in SUFFIXES and not name.startswith(MAC_COPY)
            self._leave_out(path, "is hidden", may_be_part=may_be_part)
        elif suffix in NO_PARTS or name in NO_PART_NAMES:
            self._leave_out(path, NO_IMAGE)
        elif fault := _fault_of(entry):
            self._leave_out(path, fault, may_be_part=True)
        elif suffix not in SUFFIXES:
            expected = f"has the ending {suffix!r}" if suffix else "has no ending"
            self._leave_out(path, f"{expected}; expected one of {', '.join(SUFFIXES)}", may_be_part=True)
        else:
            return True
        return False

    def _leave_out_repeat(self, path: Path, reason: str) -> None:
        self._repeats += 1
        self._leave_out(path, reason)

    def _leave_out(self, path: Path, reason: str, *, may_be_part: bool = False) -> None:
        self.left_out.append(LeftOut(path, reason, may_be_part))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # `_fault_of` names it


def _fault_of(entry: os.DirEntry[str]) -> str | None:
    """Why a directory entry is no file that can be read, if it is none."""
    try:
        mode = entry.stat().st_mode
    except FileNotFoundError:
        return "is a link to nothing" if entry.is_symlink() else "has vanished"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if not stat.S_ISREG(mode):
        return "is no regular file"
    return None if os.access(entry.path, os.R_OK) else "cannot be read (Permission denied)"


def _holds_images(folder: Path) -> bool:
    """Whether there are image files in a folder or below it, or it cannot be told."""
    faults: list[OSError] = []
    names = (name for _, _, files in os.walk(folder, onerror=faults.append) for name in files)
    return any(Path(name).suffix.lower() in SUFFIXES for name in names) or bool(faults)


def _holds_masks(folder: Path) -> bool:
    """Whether a folder is that of the masks in MVTec AD's layout."""
    letters = "".join(filter(str.isalpha, folder.name.lower()))
    return letters == MASKS and _has_folder(folder.parent, (TEST, TRAIN))


def _has_folder(parent: Path, names: Sequence[str]) -> bool:
    """Whether a folder holds one with such a name, in any case."""
    try:
        with os.scandir(parent) as entries:
            return any(entry.name.lower() in names and _is_folder(entry) for entry in entries)
    except OSError:
        return False


def _masks_around(place: Path) -> Path | None:
    """The folder of masks that a path leads to or into, if there is one."""
    return next((folder for folder in (place, *place.parents) if _holds_masks(folder)), None)


def _refuse_masks(path: Path) -> None:
    if folder := _masks_around(_absolute(path)) or _masks_around(path.resolve()):
        raise ImageFileError(
            f"{path} lies in {folder}, which holds ground truth masks and no parts; give images, for example "
            f"{folder.parent / 'test'}."
        )


def _no_such_path(path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError) and not path.is_symlink():
        return f"{path} does not exist; give image files or folders of them."
    reason = "it is a link to nothing" if isinstance(error, FileNotFoundError) else error.strerror
    return f"{path} cannot be read ({reason}); give image files or folders of them."


def _defect_of(folder: Path) -> str | None:
    """What the images in a folder really are, by its path or, failing that, by where its links lead.

    The folder in `test` tells; those in it do too where there is `test/good` or `train`, so that `test` is a test set.
    """
    for place in (_absolute(folder), folder.resolve()):
        for kind in (place, *place.parents):
            test = kind.parent
            if test.name.lower() == TEST and (kind == place or _is_test_set(test)):
                return "good" if kind.name.lower() in GOOD_NAMES else kind.name
    return None


def _is_test_set(test: Path) -> bool:
    return _has_folder(test, GOOD_NAMES) or _has_folder(test.parent, (TRAIN,))


def _absolute(path: Path) -> Path:
    """The path from the root, links left as they are."""
    return Path(os.path.normpath(path.absolute()))


def _uniquely_named(images: list[ImageFile]) -> list[ImageFile]:
    if len({image.name for image in images}) == len(images):
        return images
    places = [_absolute(image.path) for image in images]
    shared = os.path.commonpath([place.parent for place in places])
    return [
        replace(image, name=place.relative_to(shared)) for image, place in zip(images, places, strict=True)
    ]
