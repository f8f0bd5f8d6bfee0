"""What in a folder is an image of a part, what is none, and what may be one and cannot be judged."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from client.pictures.layout import holds_masks, masks_around
from model_repository.image_decoder.image_decoding import SUFFIXES

# What lies beside images and is none: notes, labels, tables, programs, answers of the run before.
NO_PARTS = (
    ".bat", ".cfg", ".csv", ".db", ".doc", ".docx", ".htm", ".html", ".ini", ".ipynb", ".json", ".jsonl", ".lnk",
    ".log", ".md", ".md5", ".parquet", ".pdf", ".previous", ".py", ".sh", ".sha256", ".toml", ".tsv", ".txt", ".url",
    ".xls", ".xlsx", ".xml", ".yaml", ".yml",
)  # fmt: skip
NO_PART_NAMES = ("copying", "license", "makefile", "readme")
MAC_COPY = "._"  # begins the name of what a Mac writes beside every file on a foreign disk
# Hold copies and previews of images, made by Jupyter, a Mac's archiver, a file manager and a NAS.
COPIES = (".ipynb_checkpoints", "__macosx", ".thumbnails", ".trash", ".trashes", ".trash-1000", "@eadir")
NO_IMAGE = "is no image"


@dataclass(frozen=True)
class Reason:
    """Why something is left out.

    Attributes:
        text: a phrase that follows its name.
        may_be_part: whether it may be, or hold, an image of a part.
    """

    text: str
    may_be_part: bool = False


def why_not_searched(folder: Path) -> Reason | None:
    """Why the images in a folder are not judged; None where they are."""
    name = folder.name.lower()
    if name in COPIES:
        return Reason("holds copies of images")
    if name.startswith("."):
        return Reason("is hidden", may_be_part=_holds_images(folder))
    if holds_masks(folder) or (folder.is_symlink() and masks_around(folder.resolve())):
        return Reason("holds ground truth masks, not parts")
    return None


def why_no_image(path: Path) -> Reason | None:
    """Why a file in a folder is not judged; None where it is."""
    suffix = path.suffix.lower()
    if path.name.startswith("."):
        return Reason("is hidden", may_be_part=suffix in SUFFIXES and not path.name.startswith(MAC_COPY))
    if is_no_part(path):
        return Reason(NO_IMAGE)
    if fault := _fault_of(path):
        return Reason(fault, may_be_part=True)
    if suffix not in SUFFIXES:
        ending = f"has the ending {suffix!r}" if suffix else "has no ending"
        return Reason(f"{ending}; expected one of {', '.join(SUFFIXES)}", may_be_part=True)
    return None


def is_no_part(path: Path) -> bool:
    """Whether a file is one of those that lie beside images, by its name."""
    return path.suffix.lower() in NO_PARTS or path.name.lower() in NO_PART_NAMES


def _fault_of(path: Path) -> str | None:
    """Why what lies in a folder is no file that can be read, if it is none."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "is a link to nothing" if path.is_symlink() else "has vanished"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if not stat.S_ISREG(mode):
        return "is no regular file"
    return None if os.access(path, os.R_OK) else "cannot be read (Permission denied)"


def _holds_images(folder: Path) -> bool:
    """Whether there are image files in a folder or below it, or it cannot be told."""
    faults: list[OSError] = []
    names = (name for _, _, files in os.walk(folder, onerror=faults.append) for name in files)
    return any(Path(name).suffix.lower() in SUFFIXES for name in names) or bool(faults)
