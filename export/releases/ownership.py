"""Whose folders a release would write: the category's own, models that are shared, or nobody's yet.

Names that the rule refuses today may stand in a repository from before, or come from another project.
"""

from __future__ import annotations

from collections.abc import Collection

from export.errors import PublishError
from export.manifest import PRECISIONS
from export.releases.repository import CONFIG, Repository
from export.serving.steps import student_name
from export.tensors import ENCODED

REMEDY = "publish into another repository with --repository, or train one of the two under another name"


def require_free(target: Repository, category: str, steps: Collection[str]) -> None:
    """Nothing in the repository that is not this category's has the name of one of its models.

    Args:
        target: the repository.
        category: the category that is to be published.
        steps: names of the models that its ensembles have as steps.

    Raises:
        PublishError: something has, which the sentence names; or a configuration or manifest cannot be read.
    """
    students = {student_name(category, precision=precision) for precision in PRECISIONS}
    students |= {name for name in steps if name.startswith(f"{category}_student")}
    for name in (category, category + ENCODED):
        config = target.read_config(name)
        if config is None:
            continue
        served = {step.model_name for step in config.ensemble_scheduling.step}
        # One of another image size has that in its name too.
        if not any(name in students or name.startswith(f"{category}_student_") for name in served):
            what = "another category's ensemble" if config.platform == "ensemble" else "a model"
            raise PublishError(
                f"{target.root / name / CONFIG} is that of {what}, and publishing {category!r} would replace it; "
                f"{REMEDY}."
            )
    for name in sorted({*steps, *students}):
        config = target.read_config(name)
        if config is not None and config.platform == "ensemble":
            raise PublishError(
                f"{target.root / name} holds the ensemble of a category {name!r}, and publishing {category!r} would "
                f"replace it by a model of that name; {REMEDY}."
            )
    for student in sorted(students):
        for version in target.versions(student):
            owner = target.read_manifest(student, version).category
            if owner != category:
                raise PublishError(
                    f"{target.folder(student, version)} is a student of category {owner!r}, and {category!r} would be "
                    f"published over it; {REMEDY}."
                )
