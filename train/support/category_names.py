"""The one rule for the name of a category: folders and served models are named after it, and it is no model's name.

Training, export and publishing all ask here; what a repository holds already is compared in
`export.releases.ownership`.
"""

from __future__ import annotations

import re

from train.errors import DataError

MAX_LENGTH = 100  # characters; a file name has 255, and models add an ending, files being written a beginning
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# Models that categories share, alone or followed by `_`: teacher_<backbone>, image_decoder_<size>, foreground_sam.
SHARED_MODELS = ("distance_fusion", "foreground", "image_decoder", "teacher")
# What ends the names of a category's own models; `<category>` is one too.
OWN_MODELS = ("_encoded", "_student", "_student_fp16", "_student_int8")


def check_category_name(category: str) -> None:
    """Make sure that folders and served models can be named after a category.

    Raises:
        DataError: they cannot; the sentence names a similar name that can be used.
    """
    if fault := _fault(category):
        raise DataError(f"Category {_shown(category)} {fault}; rename it, to {similar_name(category)} say.")


def similar_name(category: str) -> str:
    """A name like this one that may be used."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", category).strip("._-")[:MAX_LENGTH] or "part"
    if _fault(name):
        name = name.replace("_", "-")
    return f"part-{name}" if _fault(name) else name


def _fault(category: str) -> str | None:
    """What is wrong with a name, to follow the name in a sentence; None where nothing is."""
    if not SAFE_NAME.fullmatch(category):
        return "is no safe folder name; expected letters, digits, '.', '_' or '-', starting with a letter or digit"
    if len(category) > MAX_LENGTH:
        return f"has {len(category)} characters; expected {MAX_LENGTH} at most"
    # As file systems that take no notice of capitals do.
    name = category.lower()
    for model in SHARED_MODELS:
        if name == model or name.startswith(f"{model}_"):
            return f"is the name of a model that all categories share ({model}), which it would replace"
    for ending in OWN_MODELS:
        if name.endswith(ending):
            other = category[: -len(ending)]
            return f"would be taken for a model of category {_shown(other)} ({ending} ends the names of such models)"
    return None


def _shown(category: str) -> str:
    """The name in quotes, a long one by its beginning."""
    return repr(category if len(category) <= MAX_LENGTH else f"{category[:40]}...")
