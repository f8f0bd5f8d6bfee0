"""Which code made a category's run, measures and build: one hash a stage, written down beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from train.support.files import read_json, write_json

RECORD = "fleet.json"  # in a run's folder
STAGES = ("fit", "evaluate", "export")


def code_ids(root: Path) -> dict[str, str]:
    """The first 12 digits of a SHA-256 over the files that decide what a stage makes, for each of `STAGES`.

    All stages follow from the code of the first. Commands, studies and this chapter decide nothing.

    Args:
        root: holds the packages train, export and model_repository.
    """
    # In here, as `train.fleet.probe` runs this function on nodes that may have another version of this module.
    chapters = ("calibration", "checkpoint", "data", "fitting", "method", "support")
    served = ("alignment", "distance_fusion", "foreground", "image_decoder")
    of_stages = {
        "fit": [
            "train/config.py",
            *(f"train/{name}/**/*.py" for name in chapters),
            *(f"model_repository/{name}/*.py" for name in served),
        ],
        "evaluate": ["train/evaluation/**/*.py", "train/evaluation/*.j2"],
        "export": ["export/*.py", *(f"export/{name}/**/*.py" for name in ("builds", "engines", "graphs", "parity"))],
    }  # fmt: skip
    ids = {}
    for stage, own in of_stages.items():
        digest = hashlib.sha256()
        for path in sorted({path for pattern in (*of_stages["fit"], *own) for path in root.glob(pattern)}):
            digest.update(path.relative_to(root).as_posix().encode() + b"\n")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        ids[stage] = digest.hexdigest()[:12]
    return ids


def read_record(run_dir: Path) -> dict[str, str]:
    """The code that made each stage of a category; a stage that is not there was made by single commands."""
    record = read_json(run_dir / RECORD)
    code = record.get("code") if isinstance(record, dict) else None
    return {str(stage): str(made_by) for stage, made_by in code.items()} if isinstance(code, dict) else {}


def write_record(run_dir: Path, code: Mapping[str, str]) -> None:
    """Write down the code that made each stage."""
    write_json(run_dir / RECORD, {"code": dict(code)})
