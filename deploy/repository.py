"""Which models a repository holds."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from deploy.errors import RepositoryError

ENCODED = "_encoded"  # ends the name of the ensemble that takes image files
REMEDY = "publish a category with `make export CATEGORY=<name>`."
THREADS = r'key: "intra_op_thread_count"\s+value \{\s+string_value: "(\d+)"'
POOL = r'key: "((?:cuda|pinned)_pool_bytes)"\s+value \{\s+string_value: "(\d+)"'
STEP = r'^ *model_name: "(.+)"$'
PUBLISHED = "# Written by `python -m export publish`"  # begins every configuration that publishing writes
PROBED = f".releases/calibrations/{2**63 - 1}.json"  # of a release that is probed, while it is
RELEASES = ".releases"
READ_OF_RELEASES = ("calibrations", "records")  # by the fusion
# Committed beside what is published; alone they judge no image.
SHARED_MODELS = frozenset({"alignment", "distance_fusion", "foreground", "image_decoder"})


def find_models(repository: Path) -> list[str]:
    """Names of the model folders (those with a config.pbtxt) in natural order: teacher_2 before teacher_10.

    Raises:
        RepositoryError: the repository does not exist or holds no model.
    """
    _require_readable(repository, _models(repository))
    if not repository.is_dir():
        raise RepositoryError(f"model repository {repository} does not exist; {REMEDY}")
    folders = (config.parent.name for config in repository.glob("*/config.pbtxt"))
    models = sorted((name for name in folders if not name.startswith(".")), key=_natural_key)
    if not models:
        raise RepositoryError(f"model repository {repository} holds no folder with a config.pbtxt; {REMEDY}")
    return models


def _require_readable(repository: Path, paths: Iterable[Path]) -> None:
    """A folder that this user may not enter would be passed over, as if nothing were published in it.

    Raises:
        RepositoryError: the repository or one of the paths in it cannot be read.
    """
    closed = repository
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        try:
            for closed in itertools.chain([repository], paths):
                if closed.exists() and not readable(closed):
                    raise PermissionError
        except PermissionError:
            raise RepositoryError(
                f"{closed} cannot be read by user {os.geteuid()} of groups {', '.join(map(str, os.getgroups()))}; let "
                f"that user read the model repository, with `chmod -R a+rX {repository}` say."
            ) from None


def _models(repository: Path) -> Iterator[Path]:
    for child in repository.iterdir():  # when it is asked for: the repository itself may be closed
        if is_served(child, repository) and child.is_dir():
            yield child


def readable(path: Path) -> bool:
    """Whether this user can read a file, or list and enter a folder."""
    if not os.access(path, os.R_OK, effective_ids=True):
        return False
    return not path.is_dir() or os.access(path, os.X_OK, effective_ids=True)


def walk(folder: Path) -> Iterator[Path]:
    """Every file and folder below a folder, but for Python's caches."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [child for child in folders if child != "__pycache__"]
        yield from (Path(parent, child) for child in (*folders, *files))


def is_served(path: Path, repository: Path) -> bool:
    """Whether a server may read it. Names that begin with a dot are of those who publish, but for the releases' own."""
    first, *rest = path.relative_to(repository).parts
    if first == RELEASES:
        return not rest or rest[0] in READ_OF_RELEASES
    return not any(part.startswith(".") for part in (first, *rest))


def require_plain_path(repository: Path) -> None:
    """The Python backend splits its stub's command at spaces: the stub dies, and the server waits until its timeout.

    Raises:
        RepositoryError: there is a space in the repository's path.
    """
    if re.search(r"\s", str(repository.absolute())):
        raise RepositoryError(
            f"{str(repository.absolute())!r} has a space in it, with which Triton cannot start a Python step; move the "
            "repository, or name it by a link without one."
        )


def find_categories(repository: Path) -> dict[str, list[str]]:
    """The categories of a repository in natural order, and the models of each: two ensembles, then their steps.

    Raises:
        RepositoryError: see `find_models`; or a configuration cannot be read.
    """
    models = find_models(repository)
    categories = {}
    for name in models:
        encoded = name + ENCODED
        if encoded in models:
            config = read_config(repository / encoded / "config.pbtxt")
            categories[name] = [name, encoded, *re.findall(STEP, config, re.MULTILINE)]
    return categories


def ensemble_steps(repository: Path, model: str) -> list[str]:
    """The steps of an ensemble; none for another model, or where its configuration cannot be read."""
    try:
        config = read_config(repository / model / "config.pbtxt")
    except RepositoryError:
        return []
    return re.findall(STEP, config, re.MULTILINE)


def read_config(path: Path) -> str:
    """The text of a config.pbtxt.

    Raises:
        RepositoryError: it cannot be read as text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RepositoryError(
            f"{path} cannot be read ({error}); publish the category again, or move the folder out of the repository."
        ) from None


def first_models(repository: Path, max_categories: int, only: Sequence[str] = ()) -> list[str]:
    """The models of the first categories, in natural order; where the number is 0, all of `served_models`.

    Args:
        repository: folder of model folders.
        max_categories: how many.
        only: of these categories; empty for all.

    Raises:
        RepositoryError: see `find_models`; or one of these categories is not published.
    """
    if not max_categories and not only:
        return served_models(repository)
    wanted = list(chosen_categories(repository, only).values())[: max_categories or None]
    return sorted(set().union(*wanted), key=_natural_key)


def chosen_categories(repository: Path, only: Sequence[str]) -> dict[str, list[str]]:
    """Of `find_categories` those that are to be served; empty is all of them.

    Raises:
        RepositoryError: see `find_models`; or one of them is not published.
    """
    categories = find_categories(repository)
    if absent := [name for name in only if name not in categories]:
        raise RepositoryError(
            f"{' and '.join(absent)} of --category is not published in {repository}, which holds "
            f"{', '.join(categories) or 'no category'}; correct the name, or {REMEDY}"
        )
    return {name: models for name, models in categories.items() if not only or name in only}


def memory_pools(repository: Path) -> dict[str, int]:
    """Bytes of `cuda_pool_bytes` and `pinned_pool_bytes` that the most demanding category asks for; empty on CPUs.

    `export publish` computes them from the sizes of the tensors.

    Raises:
        RepositoryError: a configuration cannot be read.
    """
    asked: dict[str, int] = {}
    for config in repository.glob("*/config.pbtxt"):
        for pool, n_bytes in re.findall(POOL, read_config(config)):
            asked[pool] = max(asked.get(pool, 0), int(n_bytes))
    return asked


def largest_batch(repository: Path) -> int:
    """Images of the largest batch that an ensemble takes; 0 where there is no ensemble.

    Raises:
        RepositoryError: a configuration cannot be read.
    """
    configs = map(read_config, repository.glob("*/config.pbtxt"))
    ensembles = (config for config in configs if re.search(r'^platform: "ensemble"$', config, re.MULTILINE))
    batches = (
        int(size)
        for config in ensembles
        for size in re.findall(r"^max_batch_size: (\d+)$", config, re.MULTILINE)
    )
    return max(batches, default=0)


def pool_threads(repository: Path) -> int:
    """Threads of the pool that all models on ONNX Runtime's own backend share: the most that one states, 0 for none.

    Raises:
        RepositoryError: a configuration cannot be read.
    """
    configs = map(read_config, repository.glob("*/config.pbtxt"))
    stated = (
        int(threads)
        for config in configs
        if re.search(r'^backend: "onnxruntime"$', config, re.MULTILINE)
        for threads in re.findall(THREADS, config)
    )
    return max(stated, default=0)


def settle(repository: Path, *, wait_s: float = 60.0) -> list[str]:
    """Put right what a killed command left in a repository, and have what is live loaded alone, before a server starts.

    Args:
        repository: what is to be served.
        wait_s: how long a command that is at work there is waited for; then nothing is done.

    Returns:
        What was done that was not to be expected, a line each; none as a rule.
    """
    left = [*repository.glob(".publish-*"), *repository.glob(".publisher"), *repository.glob(PROBED)]
    if not left and not any(map(_has_spare, repository.glob(".releases/live/*.json"))):
        return []
    from export.releases.verbs.repair import repair  # it takes a second

    return repair(repository, wait_s=wait_s)


def _has_spare(live: Path) -> bool:
    """Whether a server would load another release of a category beside the live one."""
    try:
        return re.search(rb'"loaded": *[0-9]', live.read_bytes()) is not None
    except OSError:
        return False


def served_models(repository: Path) -> list[str]:
    """The models that a server is to load: all but the steps of releases that are not live.

    Raises:
        RepositoryError: see `find_models`; or a configuration cannot be read.
    """
    models = find_models(repository)
    texts = {name: read_config(repository / name / "config.pbtxt") for name in models}
    used = {step for text in texts.values() for step in re.findall(STEP, text, re.MULTILINE)}
    return [name for name in models if name in used | SHARED_MODELS or not _is_step(texts[name])]


def _is_step(config: str) -> bool:
    """Whether a configuration is of a model that publishing wrote, and of no ensemble."""
    return config.startswith(PUBLISHED) and not re.search(r'^platform: "ensemble"$', config, re.MULTILINE)


def require_published(repository: Path) -> None:
    """Make sure that a category is published, not only the models that all categories share, and has all of its steps.

    Every file that a server may read is looked at: of one that is closed to it, Triton would say that a model is not
    ready, and the fusion that a release has no calibration.

    Raises:
        RepositoryError: this user cannot read the repository or a part of it; nothing is published; or a category was
            by a version of this project whose shared steps lay elsewhere.
    """
    _require_readable(repository, (path for path in walk(repository) if is_served(path, repository)))
    models = find_models(repository)
    if SHARED_MODELS.issuperset(models):
        raise RepositoryError(
            f"nothing is published in {repository}, which holds {' and '.join(models)} alone; {REMEDY}"
        )
    for category, used in find_categories(repository).items():
        if missing := sorted(set(used) - set(models)):
            raise RepositoryError(
                f"{category} in {repository} has no step {missing[0]}, as an earlier version of this project left it; "
                f"publish it again with `make export CATEGORY={category}`, or move its folders out of the repository."
            )


def _natural_key(name: str) -> list[tuple[str, int]]:
    return [(text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d*)", name)]
