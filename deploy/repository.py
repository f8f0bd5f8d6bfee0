"""Which models a repository holds."""

from __future__ import annotations

import re
from pathlib import Path

from deploy.errors import RepositoryError

# Committed beside what is published; alone they judge no image.
SHARED_MODELS = frozenset({"distance_fusion", "foreground", "image_decoder"})


def find_models(repository: Path) -> list[str]:
    """Names of the model folders (those with a config.pbtxt) in natural order: teacher_2 before teacher_10.

    Raises:
        RepositoryError: the repository does not exist or holds no model.
    """
    if not repository.is_dir():
        raise RepositoryError(f"model repository {repository} does not exist; {_remedy()}")
    folders = (config.parent.name for config in repository.glob("*/config.pbtxt"))
    models = sorted((name for name in folders if not name.startswith(".")), key=_natural_key)
    if not models:
        raise RepositoryError(
            f"model repository {repository} holds no folder with a config.pbtxt; {_remedy()}"
        )
    return models


def require_published(repository: Path) -> None:
    """Make sure that a category is published, not only the models that all categories share.

    Raises:
        RepositoryError: nothing is published.
    """
    models = find_models(repository)
    if SHARED_MODELS.issuperset(models):
        raise RepositoryError(
            f"nothing is published in {repository}, which holds {' and '.join(models)} alone; {_remedy()}"
        )


def _remedy() -> str:
    return "publish a category with `make export CATEGORY=<name>`."


def _natural_key(name: str) -> list[tuple[str, int]]:
    return [(text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d*)", name)]
