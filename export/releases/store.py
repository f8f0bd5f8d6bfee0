"""Where a repository keeps its records, says which release is live, and gives the fusion its calibrations.

    .releases/records/<category>/<number>.json    what a release is; never changed
    .releases/live/<category>.json                which one is live, and which ones were before; switched by one rename
    .releases/calibrations/<weights id>.json      what the fusion judges with, as the live record says

Triton, which loads what it is told to, and `deploy`, which passes over hidden folders, take none of it for a model.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from export.errors import PublishError
from export.releases.record import Record, parse_record
from model_repository.category_names import is_safe_name, unsafe_name

FOLDER = ".releases"
# No release has this id of weights; the calibration of the release that is probed lies under it for that time.
PROBE_WEIGHTS_ID = 2**63 - 1


@dataclass(frozen=True)
class Live:
    """Which release of a category is live, by numbers; None where there was no other one.

    Attributes:
        number: of the live release.
        before: of the one that was live before.
        loaded: of the one before with other files, which stays loaded to go back to; a new threshold leaves it.
        log_lines, log_sha256: how many lines the audit log had before the one about this switch, and the hash of the
            last of them: a log that has them no longer was cut, or begun anew. None where an earlier version wrote it.
    """

    number: int
    before: int | None = None
    loaded: int | None = None
    log_lines: int | None = field(default=None, compare=False)
    log_sha256: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        """Raise ValueError where a number is none of a release."""
        optional = [number for number in (self.before, self.loaded) if number is not None]
        for number in (self.number, *optional):
            if type(number) is not int or number < 1:  # True is an int too
                raise ValueError(f"it holds {json.dumps(number)}, expected the number of a release")
        lines, digest = self.log_lines, self.log_sha256
        if (lines is not None and type(lines) is not int) or (digest is not None and type(digest) is not str):
            raise ValueError(
                f"it holds {json.dumps([lines, digest])} of the audit log, expected a number and a hash"
            )

    def to_json(self) -> str:
        """As a file's text; an earlier version's has nothing of the log, and stays as it is."""
        values = {
            name: value
            for name, value in asdict(self).items()
            if value is not None or not name.startswith("log_")
        }
        return json.dumps(values) + "\n"

    def without_spare(self) -> Live:
        """With no other release loaded beside, as after a server's start."""
        return replace(self, loaded=None)

    def agrees_with(self, logged: Live | None) -> bool:
        """Whether the audit log says the same; a server's start, which lets the spare release go, writes no line."""
        return logged is not None and self in (logged, logged.without_spare())

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
            return Live(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise PublishError(
                f"{path} does not say which release is live ({type(error).__name__}: {error}); promote one of "
                f"{category!r} with `python -m deploy promote`."
            ) from None

    def known_live(self) -> set[str]:
        """The categories of which something is live, or was said to be: a file may be gone or damaged."""
        folder = self.root / FOLDER / "live"
        configured = {name for name in self.categories() if (self.root / name / "config.pbtxt").is_file()}
        return configured | {path.stem for path in folder.glob("*.json")}

    def all_live(self) -> dict[str, Live]:
        """Which release of each category is live, as far as that can be read."""
        found = {}
        for category in sorted(self.known_live()):
            with suppress(PublishError):
                found[category] = self.live(category)
        return {category: live for category, live in found.items() if live is not None}

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
