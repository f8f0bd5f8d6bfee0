"""Find the image files among files and folders, and name everything that is left out."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from client.core.errors import ImageFileError
from client.pictures.layout import GOOD_NAMES as GOOD_NAMES
from client.pictures.layout import MASKS as MASKS
from client.pictures.layout import TEST as TEST
from client.pictures.layout import TRAIN as TRAIN
from client.pictures.layout import absolute, defect_of, is_folder, masks_around
from client.pictures.patterns import ANY_DEPTH, fits, has_special, is_pattern, root_and_rest
from client.pictures.rules import COPIES as COPIES
from client.pictures.rules import NO_IMAGE as NO_IMAGE
from client.pictures.rules import NO_PARTS as NO_PARTS
from client.pictures.rules import Reason, is_no_part, why_no_image, why_not_searched
from model_repository.image_decoder.image_decoding import SUFFIXES

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
    """All images among files, folders and patterns of their names, sorted within a folder.

    Folders are searched in depth and links followed. A folder or file that is met again is judged once. A pattern
    (`lot/*.png`, `lot/**/left*.tif`) is one where nothing of that very name exists; what it fits is taken as it would
    be from a folder. So is a file that is given by name, except that any ending will do that is not one of text.

    Raises:
        ImageFileError: a path that does not exist, a pattern that fits no image, a folder without images, one of ground
            truth masks, or no image among all that was given.
    """
    search = _Search()
    for path in paths:
        if is_pattern(path):
            search.add_pattern(path)
            continue
        try:
            mode = path.stat().st_mode
        except OSError as error:
            raise ImageFileError(_no_such_path(path, error)) from None
        _refuse_masks(path)
        if stat.S_ISDIR(mode):
            search.add_folder(path)
        else:
            search.add_given_file(path)
    if not search.images:
        raise ImageFileError(
            f"Nothing that was given is an image{search.but()}; give images, or folders of them."
        )
    return FoundImages(_uniquely_named(search.images), search.left_out)


class _Search:
    """Collects images and what is left out, and remembers what it has met."""

    def __init__(self) -> None:
        self.images: list[ImageFile] = []
        self.left_out: list[LeftOut] = []
        self._known: set[LeftOut] = set()
        self._repeats = 0
        self._defects: dict[Path, str | None] = {}  # of a folder's images
        self._files: set[Path] = set()
        self._folders: dict[Path, Path] = {}  # by where their links lead

    def add_given_file(self, path: Path) -> None:
        """Add a file that was given by name; a shell that expands `lot/*` gives notes too."""
        if is_no_part(path):
            self._leave_out(path, NO_IMAGE)
        else:
            self._add_file(path, Path(path.name))

    def add_folder(self, root: Path) -> None:
        """Add the images in a folder and below it."""
        n_met, n_left_out = self._n_met, len(self.left_out)
        self._add_folder(root, root)
        if self._n_met == n_met:
            raise ImageFileError(
                f"Folder {root} holds no images ({', '.join(SUFFIXES)}){self.but(n_left_out)}."
            )

    def add_pattern(self, pattern: Path) -> None:
        """Add the images that a pattern fits, and those in the folders that it fits."""
        root, parts = root_and_rest(pattern)
        _refuse_masks(root)
        n_met, n_left_out = self._n_met, len(self.left_out)
        searched: set[Path] = set()
        for place in self._fitting(root, parts, set()):
            if not searched.isdisjoint(place.parents):
                continue  # `**/*` fits a folder, and all that is in it
            if is_folder(place):
                searched.add(place)
                self._add_folder(place, root)
            elif self._is_image(place):
                self._add_file(place, place.relative_to(root))
        if self._n_met == n_met:
            raise ImageFileError(
                f"Pattern {pattern} fits no image ({', '.join(SUFFIXES)}){self.but(n_left_out)}; give images, folders "
                "of them, or another pattern."
            )

    def but(self, n_before: int = 0) -> str:
        """The end of a sentence: what was left out since there were `n_before`."""
        reasons = [str(left_out) for left_out in self.left_out[n_before:]]
        more = f" and {len(reasons) - SHOWN_REASONS} more" if len(reasons) > SHOWN_REASONS else ""
        return f"; left out: ({'; '.join(reasons[:SHOWN_REASONS])}{more})" if reasons else ""

    @property
    def _n_met(self) -> int:
        return len(self.images) + self._repeats

    def _add_file(self, path: Path, name: Path) -> None:
        place = absolute(path)
        if place in self._files:
            self._leave_out_repeat(path, "was given twice and is judged once")
            return
        self._files.add(place)
        if path.parent not in self._defects:
            self._defects[path.parent] = defect_of(path.parent)
        self.images.append(ImageFile(path=path, name=name, defect=self._defects[path.parent]))

    def _add_folder(self, folder: Path, root: Path) -> None:
        """Add the images in a folder and below it, named relative to `root`."""
        for file in sorted(self._image_files(folder)):
            self._add_file(file, file.relative_to(root))

    def _image_files(self, root: Path) -> Iterator[Path]:
        waiting = [root]
        while waiting:
            folder = waiting.pop()
            try:
                met = self._folders.setdefault(folder.resolve(), folder)
            except OSError as error:
                self._leave_out(folder, f"cannot be read ({error.strerror})", may_be_part=True)
                continue
            if met is not folder:
                self._leave_out_repeat(folder, f"is the same folder as {met}, which is judged once")
                continue
            folders = []
            for entry in self._entries(folder):
                path = folder / entry.name
                if is_folder(entry):
                    if self._is_searched(path):
                        folders.append(path)
                elif self._is_image(path):
                    yield path
            waiting += reversed(folders)  # the first is searched first, folders before links to them

    def _fitting(
        self, folder: Path, parts: Sequence[str], circle: set[tuple[Path, Sequence[str]]]
    ) -> Iterator[Path]:
        """What the parts of a pattern fit in a folder; `circle` is what was searched before, links followed."""
        part, rest = parts[0], parts[1:]
        if (step := (folder.resolve(), parts)) in circle:
            return
        circle.add(step)
        deep = part == ANY_DEPTH
        if deep and not rest:
            yield folder
            return
        if deep:
            yield from self._fitting(folder, rest, circle)
        for path in self._fitting_names(folder, part):
            inside = is_folder(path)
            if inside and not self._is_searched(path):
                continue
            if not rest:
                yield path
            elif inside:
                yield from self._fitting(path, parts if deep else rest, circle)

    def _fitting_names(self, folder: Path, part: str) -> list[Path]:
        """What in a folder one part of a pattern fits."""
        if os.path.lexists(folder / part):
            return [folder / part]
        if not has_special(part):
            return []
        names = [entry.name for entry in self._entries(folder)]
        return [folder / name for name in names if part == ANY_DEPTH or fits(name, part)]

    def _entries(self, folder: Path) -> list[os.DirEntry[str]]:
        """What lies in a folder, by name, links last; a folder that cannot be read is named."""
        try:
            with os.scandir(folder) as scanned:
                return sorted(scanned, key=lambda entry: (entry.is_symlink(), entry.name))
        except OSError as error:
            self._leave_out(folder, f"cannot be read ({error.strerror})", may_be_part=True)
            return []

    def _is_searched(self, folder: Path) -> bool:
        return self._takes(folder, why_not_searched(folder))

    def _is_image(self, path: Path) -> bool:
        return self._takes(path, why_no_image(path))

    def _takes(self, path: Path, reason: Reason | None) -> bool:
        """Whether there is no reason to leave something out; it is left out where there is one."""
        if reason is not None:
            self._leave_out(path, reason.text, may_be_part=reason.may_be_part)
        return reason is None

    def _leave_out_repeat(self, path: Path, reason: str) -> None:
        self._repeats += 1
        self._leave_out(path, reason)

    def _leave_out(self, path: Path, reason: str, *, may_be_part: bool = False) -> None:
        left_out = LeftOut(path, reason, may_be_part)
        if left_out not in self._known:  # a pattern may come to a folder twice
            self._known.add(left_out)
            self.left_out.append(left_out)


def _refuse_masks(path: Path) -> None:
    if folder := masks_around(absolute(path)) or masks_around(path.resolve()):
        raise ImageFileError(
            f"{path} lies in {folder}, which holds ground truth masks and no parts; give images, for example "
            f"{folder.parent / 'test'}."
        )


def _no_such_path(path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError) and not path.is_symlink():
        return f"{path} does not exist; give image files or folders of them."
    reason = "it is a link to nothing" if isinstance(error, FileNotFoundError) else error.strerror
    return f"{path} cannot be read ({reason}); give image files or folders of them."


def _uniquely_named(images: list[ImageFile]) -> list[ImageFile]:
    if len({image.name for image in images}) == len(images):
        return images
    places = [absolute(image.path) for image in images]
    shared = os.path.commonpath([place.parent for place in places])
    return [
        replace(image, name=place.relative_to(shared)) for image, place in zip(images, places, strict=True)
    ]
