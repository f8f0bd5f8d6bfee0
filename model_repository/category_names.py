"""The one rule for names that become folders, files and served models; every stage asks it, and so does the client.

Paths are made of names that come from elsewhere: a command line, a record, a bundle, a request. A safe name is one part
of a path, whatever the system: no separator, nothing above, nothing hidden, no control character. A category's name is
besides no model's name, for its models are named after it. It imports nothing but Python's own modules.
"""

from __future__ import annotations

import re

MAX_LENGTH = 100  # characters; a file name has 255, and models add an ending, files being written a beginning
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
EXPECTED = "expected letters, digits, '.', '_' or '-', starting with a letter or digit"
# Models that categories share, alone or followed by `_`: teacher_<backbone>, image_decoder_<size>, foreground_sam.
SHARED_MODELS = ("alignment", "distance_fusion", "foreground", "image_decoder", "teacher")
# What ends the names of a category's own models; `<category>` is one too.
OWN_MODELS = ("_alignment", "_encoded", "_student", "_student_fp16", "_student_int8")


def is_safe_name(name: str) -> bool:
    """Whether a name can be one part of a path."""
    return SAFE_NAME.fullmatch(name) is not None


def unsafe_name(name: str) -> str:
    """That a name cannot be one part of a path, as a sentence without its full stop."""
    return f"{shown(name)} is no safe name of a file or folder; {EXPECTED}"


def category_fault(category: str) -> str | None:
    """What is wrong with a category's name, to follow the name in a sentence; None where nothing is."""
    if not is_safe_name(category):
        return f"is no safe folder name; {EXPECTED}"
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
            return f"would be taken for a model of category {shown(other)} ({ending} ends the names of such models)"
    return None


def similar_name(category: str) -> str:
    """A name like this one that a category may have."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", category).strip("._-")[:MAX_LENGTH] or "part"
    if category_fault(name):
        name = name.replace("_", "-")
    return f"part-{name}" if category_fault(name) else name


def shown(name: str) -> str:
    """The name in quotes, a long one by its beginning."""
    return repr(name if len(name) <= MAX_LENGTH else f"{name[:40]}...")
