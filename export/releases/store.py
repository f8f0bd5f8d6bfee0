"""Where a repository keeps its records, says which release is live, and gives the fusion its calibrations.

    .releases/records/<category>/<number>.json    what a release is; never changed
    .releases/live/<category>.json                which one is live, and which ones were before; switched by one rename
    .releases/calibrations/<weights id>.json      what the fusion judges with, as the live record says

Triton, which loads what it is told to, and `deploy`, which passes over hidden folders, take none of it for a model.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from export.errors import PublishError
from export.releases.record import Record, parse_record
from model_repository.category_names import is_safe_name, unsafe_name

FOLDER = ".releases"


@dataclass(frozen=True)
class Live:
    """Which release of a category is live, by numbers; None where there was no other one.

    Attributes:
        number: of the live release.
        before: of the one that was live before.
        loaded: of the one before with other files, which stays loaded to go back to; a new threshold leaves it.
    """

    number: int
    before: int | None = None
    loaded: int | None = None

    def to_json(self) -> str:
        """As a file's text."""
        return json.dumps(asdict(self)) + "\n"

    def switched_to(self, number: int, *, same_files: bool) -> Live:
        """With another release live, which may be one of the same files with another calibration."""
        if number == self.number:
            return self
        return Live(number, self.number, self.loaded if same_files else self.number)


@dataclass(frozen=True)
class Store:
    """The records of a repository.

    Raises:
        PublishError: by every method that reads a file that is not what it should be.
    """

    root: Path

    def record_path(self, category: str, number: int) -> Path:
        """The file of a record."""
        return self._records_of(category) / f"{number}.json"

    def live_path(self, category: str) -> Path:
        """The file that says which release is live."""
        return self.root / FOLDER / "live" / f"{_safe(category)}.json"

    def calibration_path(self, weights_id: int) -> Path:
        """The file from which the fusion takes the calibration of a student's weights."""
        return self.root / FOLDER / "calibrations" / f"{weights_id}.json"

    def categories(self) -> list[str]:
        """Those that have records, in the order of their names."""
        folder = self.root / FOLDER / "records"
        return sorted(path.name for path in folder.glob("*") if path.is_dir() and is_safe_name(path.name))

    def numbers(self, category: str) -> list[int]:
        """The numbers of a category's releases, ascending."""
        folder = self._records_of(category)
        return sorted(int(path.stem) for path in folder.glob("*.json") if path.stem.isdecimal())

    def read(self, category: str, number: int) -> Record:
        """A record, which must be of this category and number."""
        path = self.record_path(category, number)
        record = parse_record(path)
        if (record.category, record.number) != (category, number):
            raise PublishError(
                f"{path} is the record of release {record.number} of {record.category!r}; move it back to its place."
            )
        return record

    def records(self, category: str) -> list[Record]:
        """All records of a category, by number."""
        return [self.read(category, number) for number in self.numbers(category)]

    def live(self, category: str) -> Live | None:
        """Which release of a category is live; None where none is."""
        path = self.live_path(category)
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            found = Live(**values)
            if not all(isinstance(value, int) for value in vars(found).values() if value is not None):
                raise ValueError(f"it holds {values}")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise PublishError(
                f"{path} does not say which release is live ({type(error).__name__}: {error}); remove it, and promote "
                f"one of {category!r} with `python -m deploy promote`."
            ) from None
        return found

    def all_live(self) -> dict[str, Live]:
        """Which release of each category is live."""
        found = ((category, self.live(category)) for category in self.categories())
        return {category: live for category, live in found if live is not None}

    def _records_of(self, category: str) -> Path:
        return self.root / FOLDER / "records" / _safe(category)

    def next_serial(self) -> int:
        """One more than that of any record; a record that cannot be read does not count."""
        serials = [0]
        for path in (self.root / FOLDER / "records").glob("*/*.json"):
            try:
                serials.append(int(json.loads(path.read_text(encoding="utf-8"))["serial"]))
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return max(serials) + 1


def _safe(category: str) -> str:
    if not is_safe_name(category):
        raise PublishError(f"Category {unsafe_name(category)}; name one of those that were published.")
    return category
