"""What a node has: versions, code, folders. It is sent to nodes as it is, so that it runs where nothing fits yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

# Of what a result follows from. Ray itself compares no other than its own and Python's.
LIBRARIES = ("ray", "torch", "timm", "numpy", "pillow", "onnx", "onnxruntime", "onnxscript")


def look(
    code_ids: Callable[..., Mapping[str, str]], paths: Sequence[str], tokens: Sequence[str]
) -> dict[str, Any]:
    """Look at the machine that this runs on.

    Args:
        code_ids: `train.fleet.code.code_ids`.
        paths: files and folders that should be there.
        tokens: files of the driver's that are there where its folders are shared.

    Returns:
        `versions` by name (None: not installed), `code` by stage (empty: the project is not there), `missing` paths,
        and whether the folders are `shared`.
    """
    import importlib.metadata
    import importlib.util
    import platform
    from pathlib import Path

    versions: dict[str, str | None] = {"Python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    project = importlib.util.find_spec("train")
    root = None if project is None or project.origin is None else Path(project.origin).parents[1]
    return {
        "versions": versions,
        "code": {} if root is None else dict(code_ids(root)),
        "missing": [path for path in paths if not Path(path).exists()],
        "shared": all(Path(token).exists() for token in tokens),
    }
