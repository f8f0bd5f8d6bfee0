"""The rule for the name of a category as an error of the command line; `model_repository.category_names` holds it.

Training, export and publishing all ask here; what a repository holds already is compared in
`export.releases.ownership`.
"""

from __future__ import annotations

from model_repository.category_names import MAX_LENGTH as MAX_LENGTH
from model_repository.category_names import category_fault, shown
from model_repository.category_names import similar_name as similar_name
from train.errors import DataError


def check_category_name(category: str) -> None:
    """Make sure that folders and served models can be named after a category.

    Raises:
        DataError: they cannot; the sentence names a similar name that can be used.
    """
    if fault := category_fault(category):
        raise DataError(f"Category {shown(category)} {fault}; rename it, to {similar_name(category)} say.")
