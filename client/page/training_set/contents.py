"""What a set of marked pictures holds, and what an export adds to it, moves in it, and leaves out."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from client.core.errors import ClientError
from client.files import storage_errors
from client.page.training_set.base_images import TEST_GOOD, TRAIN_GOOD, is_good, list_files, mask_places
from client.page.training_set.reading import digest_of
from client.page.training_set.staging import Staging

INDEX = "marks.json"
FORMAT = "astmfr-marks"
HELD_OUT = 4  # one false reject of so many is tested with, and never trained on
ESCAPES = PurePosixPath("test/escape")
Wrong = Literal["escape", "false reject"]


@dataclass(frozen=True)
class Entry:
    """One marked picture of a set; its values are a line of marks.json.

    Attributes:
        file: its place in the set.
        sha256, n_bytes: of the file.
        wrong, note: the mark.
        picture: the file that was judged.
        score, threshold, release_id: of the verdict that is wrong.
    """

    file: str
    sha256: str
    n_bytes: int
    wrong: Wrong
    note: str
    picture: str
    score: float
    threshold: float
    release_id: int

    @property
    def place(self) -> PurePosixPath:
        """Where it lies."""
        return PurePosixPath(self.file)

    @property
    def good(self) -> bool:
        """Whether the part is good, as the person says."""
        return self.wrong == "false reject"


def is_held_out(digest: str) -> bool:
    """Whether a false reject of this SHA-256, in hexadecimal, is kept for the test and never trained on."""
    return int(digest[:8], 16) % HELD_OUT == 0


def place_of(wrong: Wrong, digest: str, name: str) -> PurePosixPath:
    """Where a marked picture belongs that is not in the set yet."""
    if wrong == "escape":
        return ESCAPES / name
    return (TEST_GOOD if is_held_out(digest) else TRAIN_GOOD) / name


class Contents:
    """A set as it is on the disk, and as it is to be.

    Attributes:
        entries: the marked pictures, by their hash.
        added: the places of those that are new.
        remarks: what was overruled, a sentence each.
    """

    def __init__(self, folder: Path, category: str, entries: Mapping[str, Entry]) -> None:
        self._folder, self._category = folder, category
        self.entries = dict(entries)
        self.added: list[PurePosixPath] = []
        self.remarks: list[str] = []
        self._there = {place: folder / place for place in list_files(folder)} if folder.is_dir() else {}
        self._base: dict[PurePosixPath, Path] = {}
        self._pictures: dict[PurePosixPath, tuple[Path, str]] = {}  # each with its hash
        self._masks: dict[PurePosixPath, bytes] = {}
        self._overruled: list[PurePosixPath] = []
        self._by_size: dict[int, list[PurePosixPath]] = defaultdict(list)
        self._digests: dict[PurePosixPath, str] = {}

    @classmethod
    def read(cls, folder: Path, category: str) -> Contents:
        """The set of an earlier export; an empty one where the folder is new or empty.

        Raises:
            ClientError: the folder holds something else, or the marks of another category, or cannot be read.
        """
        index = folder / INDEX
        try:
            if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
                return cls(folder, category, {})
            if not index.is_file():
                raise ClientError(
                    f"{folder} holds no {INDEX}, so no marks were exported there; name a new or empty folder."
                )
            values = json.loads(index.read_bytes())
            entries = [Entry(**entry) for entry in values["marks"]]
            known = (values["format"], values["category"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ClientError(
                f"{index} cannot be read ({type(error).__name__}: {error}); restore it, or name a new folder."
            ) from None
        if known != (FORMAT, category):
            raise ClientError(
                f"{folder} holds marks of {known[1]!r}, not of {category!r}; name another folder."
            )
        there = [entry for entry in entries if (folder / entry.place).is_file()]  # not removed by hand
        return cls(folder, category, {entry.sha256: entry for entry in there})

    def add_base(self, files: Mapping[PurePosixPath, Path]) -> None:
        """Lay images of a base set beside, where nothing lies yet; call it before `add`.

        Raises:
            ClientError: one cannot be read.
        """
        self._base = {place: path for place, path in files.items() if place not in self._there}
        with _reading():
            for place, path in (*self._there.items(), *self._base.items()):
                if place.parts[0] in ("train", "test"):
                    self._by_size[path.stat().st_size].append(place)
            for entry in self.entries.values():
                self._overrule(entry)

    def add(self, entry: Entry, path: Path, mask: bytes | None) -> str | None:
        """Add a marked picture, the file at `path`, unless it is there; its mark counts from now on.

        Returns:
            Why its mask was left out, a sentence; None where nothing was.

        Raises:
            ClientError: an image of the set cannot be read.
        """
        with _reading():
            return self._add(entry, path, mask)

    def _add(self, entry: Entry, path: Path, mask: bytes | None) -> str | None:
        right = self._overrule(entry)
        if right is None:
            right = entry.place
            self._pictures[right] = (path, entry.sha256)
            self.added.append(right)
        self.entries[entry.sha256] = Entry(**{**asdict(entry), "file": str(right)})
        return None if mask is None else self._add_mask(right, entry, mask)

    def stage(self, staging: Staging) -> None:
        """Stage what is to be added, a mask before its picture."""
        for place, path in self._base.items():
            staging.take(place, path)
        for place, content in self._masks.items():
            staging.write(place, content)
        for place, (path, digest) in self._pictures.items():
            staging.copy(place, path, digest)

    def remove_overruled(self) -> None:
        """Remove what a mark overrules from the folder, once what takes its place is there.

        Raises:
            StorageError: it cannot be removed.
        """
        for place in self._overruled:
            with storage_errors(self._folder / place):
                (self._folder / place).unlink(missing_ok=True)

    @property
    def n_base(self) -> int:
        """How many images and masks of the base set are laid beside."""
        return len(self._base)

    def count(self, folder: PurePosixPath) -> int:
        """How many marked pictures lie in a folder of the set."""
        return sum(entry.place.is_relative_to(folder) for entry in self.entries.values())

    def count_files(self, folder: PurePosixPath) -> int:
        """How many files lie in a folder of the set, those of the base set included."""
        places = {*self._there, *self._base, *self._pictures, *self._masks} - set(self._overruled)
        return sum(place.is_relative_to(folder) for place in places)

    def count_escapes(self) -> int:
        """How many marked pictures show a defect."""
        return sum(not entry.good for entry in self.entries.values())

    def count_masks(self) -> int:
        """How many marked pictures have a mask."""
        return sum(self._mask_of(entry.place) is not None for entry in self.entries.values())

    def to_json(self, base: Path | None) -> str:
        """As the text of marks.json."""
        marks = [asdict(entry) for entry in sorted(self.entries.values(), key=lambda entry: entry.file)]
        values = {"format": FORMAT, "category": self._category, "base": base and str(base), "marks": marks}
        return json.dumps(values, indent=1) + "\n"

    def _overrule(self, entry: Entry) -> PurePosixPath | None:
        """Take a picture away from where its mark says it does not belong; where it lies rightly, if it does."""
        same = [place for place in self._by_size[entry.n_bytes] if self._digest(place) == entry.sha256]
        for place in same:
            if is_good(place) == entry.good:
                continue
            self._take_away(place)
            self.remarks.append(
                f"{entry.picture} was in the set as {place} and is marked as {entry.wrong}; it is no longer there."
            )
        return next((place for place in same if is_good(place) == entry.good), None)

    def _take_away(self, place: PurePosixPath) -> None:
        self._by_size = defaultdict(
            list, {size: [p for p in places if p != place] for size, places in self._by_size.items()}
        )
        for gone in (place, *mask_places(place)):
            self._base.pop(gone, None)
            if gone in self._there:
                self._overruled.append(gone)

    def _digest(self, place: PurePosixPath) -> str:
        if place not in self._digests:
            self._digests[place] = digest_of(self._base.get(place) or self._there[place])
        return self._digests[place]

    def _add_mask(self, place: PurePosixPath, entry: Entry, mask: bytes) -> str | None:
        known = self._mask_of(place)
        if known is None or known in self._masks:
            self._masks[known or mask_places(place)[0]] = mask
        elif place.parent != ESCAPES or not place.name.startswith("mark-"):
            return f"The mask drawn over {entry.picture} was left out: {known} is its mask in the base set."
        elif (self._base.get(known) or self._there[known]).read_bytes() != mask:
            self._masks[known] = mask
        return None

    def _mask_of(self, place: PurePosixPath) -> PurePosixPath | None:
        if is_good(place):
            return None
        known = {*self._there, *self._base, *self._masks} - set(self._overruled)
        return next((mask for mask in mask_places(place) if mask in known), None)


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ClientError(
            f"{error.filename} cannot be read ({error.strerror}); make it readable for this user, or export again."
        ) from None
