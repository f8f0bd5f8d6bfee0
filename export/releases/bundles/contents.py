"""Which members the bundle of a release has, and whether a bundle's members are what its record says."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.errors import PublishError
from export.manifest import ALIGNMENT_FILE, Manifest
from export.records import FileRecord
from export.releases.audit.signatures import RECORD as SIGNED_RECORD
from export.releases.audit.signatures import is_valid, load_public_key, parse_signatures, short
from export.releases.bundles.archive import Archive, opened
from export.releases.files import WARM_UP
from export.releases.record import Record, read_record
from export.releases.render import FUSION
from export.releases.repository import Repository
from export.releases.store import Store
from export.serving import steps
from export.serving.alignment import alignment_name
from model_repository.distance_fusion.fusion_calibration import CODE_FILES, OF_EVERY_FUSION
from model_repository.distance_fusion.map_fusion import release_id_of
from train.support.category_names import check_category_name

FORMAT = "astmfr-bundle"
SCHEMA = 1
RECORD = "record.json"
SIGNATURE = ".sig"  # ends the name of the file beside a record that holds its signature


@dataclass(frozen=True)
class Bundle:
    """An open bundle that was checked wholly: nothing in it is other than its record says.

    Attributes:
        archive: the file.
        record: the release, as it was where it was packed.
        signed: whether the record's signature lies in it.
    """

    archive: Archive
    record: Record

    @property
    def signed(self) -> bool:
        """Whether the record's signature lies in it."""
        return RECORD + SIGNATURE in self.archive.members


def about(record: Record) -> dict[str, Any]:
    """What bundle.json says of a release."""
    return {
        "format": FORMAT,
        "schema_number": SCHEMA,
        "category": record.category,
        "number": record.number,
        "release_id": record.release_id,
    }


def members_of(root: Path, record: Record) -> dict[str, Path | bytes]:
    """The files that make up a release of a repository, by their names in a bundle.

    Raises:
        PublishError: the decoder has no picture to warm up with.
    """
    target, path = Repository(root), Store(root).record_path(record.category, record.number)
    members: dict[str, Path | bytes] = {RECORD: path}
    signature = path.with_name(path.name + SIGNATURE)
    if signature.is_file():
        members[RECORD + SIGNATURE] = signature
    for name, step in record.steps.items():
        folder = target.folder(step.model, step.version)
        members |= {f"{name}/{file}": folder / file for file in step.files}
    warm_up = root / record.steps["decoder"].model / WARM_UP
    if not warm_up.is_file():
        raise PublishError(f"{warm_up} does not exist; publish {record.category!r} again.")
    return {**members, WARM_UP: warm_up}


@contextmanager
def checked(path: Path, public_keys: Sequence[Path] = ()) -> Iterator[Bundle]:
    """A bundle all of whose members were compared with their hashes, and with its record.

    Args:
        path: the file.
        public_keys: files of public keys, by one of which the record must be signed; none of them asks for no
            signature, and holds those that there are to the keys that they name.

    Raises:
        PublishError: it is none, was cut short or changed, another version of this project wrote it, or it holds what
            no release holds.
        DataError: its category is called like a model.
    """
    with opened(path) as archive:
        _require_schema(path, archive.index)
        archive.check_members()
        if RECORD not in archive.members:
            raise PublishError(f"{path} holds no {RECORD}; pack it again.")
        content = archive.read(RECORD)
        _require_signed(archive, content, public_keys)
        record = read_record(content, f"{path}: its {RECORD}")
        check_category_name(record.category)
        _require_of_record(path, archive, record)
        yield Bundle(archive, record)


def models_of(manifest: Manifest, student: str = "") -> dict[str, str]:
    """The model of each step of a build, as publishing names it; `student` where that is one of its names.

    The name is followed by the image size where the repository had one of another size first.
    """
    config, precision = manifest.config, manifest.precision
    name = steps.student_name(manifest.category, precision=precision)
    models = {
        "decoder": steps.decoder_name(
            config.image_size,
            manifest.provenance.bit_depth,
            keep_aspect=manifest.provenance.keep_aspect,
        ),
        "teacher": steps.teacher_name(config.teacher, config.image_size, precision=precision),
        "student": student if re.fullmatch(rf"{re.escape(name)}(_\d+(x\d+)?(_\d+)?)?", student) else name,
        "fusion": FUSION,
    }
    if config.foreground != "none":
        models["foreground"] = steps.foreground_name(config.foreground, config.image_size)
    if manifest.provenance.aligned:
        models["alignment"] = alignment_name(manifest.category, config.image_size)
    return models


def _require_schema(path: Path, index: Mapping[str, Any]) -> None:
    if index.get("format") != FORMAT:
        raise PublishError(f"{path} is no bundle; expected a file that `python -m deploy bundle` wrote.")
    schema = index.get("schema_number")
    if schema != SCHEMA:
        newer = isinstance(schema, int) and schema > SCHEMA
        raise PublishError(
            f"{path} is a bundle of schema {schema!r}, and this version reads {SCHEMA}; "
            + ("use the version of this project that wrote it." if newer else "pack the release again.")
        )


def _require_signed(archive: Archive, record: bytes, public_keys: Sequence[Path]) -> None:
    known, name, path = {load_public_key(file) for file in public_keys}, RECORD + SIGNATURE, archive.path
    signatures = {}
    if name in archive.members:
        signatures = parse_signatures(archive.read(name), f"{path}: its {name}")
    for key, signature in signatures.items():
        if not is_valid(key, signature, SIGNED_RECORD, record):
            raise PublishError(
                f"{path}: the signature by key {short(key)} does not fit its record; pack it again."
            )
    if known and not known & signatures.keys():
        by = (
            f"is signed by an unknown key, {' and '.join(map(short, signatures))}"
            if signatures
            else "is not signed"
        )
        keys = " or ".join(map(str, public_keys))
        raise PublishError(f"{path}: its record {by}; expected a signature by {keys}.")


def _require_of_record(path: Path, archive: Archive, record: Record) -> None:
    """The members are those of the record, which holds together itself."""
    if fault := next(_faults(archive, record), None):
        raise PublishError(f"{path} is no whole release: {fault}; pack the release again.")


def _faults(archive: Archive, record: Record) -> Iterator[str]:
    """What is wrong, a part of a sentence each."""
    if archive.index != {**json.loads(json.dumps(about(record))), "members": archive.index["members"]}:
        yield "bundle.json speaks of another release than its record"
    manifest = record.manifest
    models = {name: step.model for name, step in record.steps.items()}
    if manifest.category != record.category:
        yield f"its record is of {record.category!r} and its manifest of {manifest.category!r}"
    elif models != models_of(manifest, models.get("student", "")):
        yield f"its steps are {models}; expected {models_of(manifest)}"
    for name, step in record.steps.items():
        if not step.files.keys() >= {"model.py"}:
            yield f"its {name} has no model.py"
        yield from _config_faults(name, step.model, record)
    expected = {
        f"{name}/{file}": hashes for name, step in record.steps.items() for file, hashes in step.files.items()
    }
    beside = {RECORD, RECORD + SIGNATURE, WARM_UP}
    for name in sorted((archive.members.keys() - beside) ^ expected.keys()):
        yield f"{name!r} " + ("is missing" if name in expected else "belongs to no step of it")
    if WARM_UP not in archive.members:
        yield f"{WARM_UP!r} is missing"
    for name, hashes in expected.items():
        if archive.members.get(name, hashes) != hashes:
            yield f"{name!r} is not the file of its record"
    yield from _id_faults(record)
    aligning = record.steps.get("alignment")
    if aligning and aligning.files.get(ALIGNMENT_FILE) != manifest.files.get(ALIGNMENT_FILE):
        yield "its alignment has another reference picture than its manifest names"


def _config_faults(name: str, model: str, record: Record) -> Iterator[str]:
    try:
        config = record.steps[name].parsed_config()
    except PublishError:
        yield f"the configuration of its {name} cannot be read"
        return
    if config.name != model:
        yield f"the configuration of its {name} is that of {config.name!r}; expected {model!r}"


def _id_faults(record: Record) -> Iterator[str]:
    code: Mapping[str, FileRecord] = record.steps["fusion"].files if "fusion" in record.steps else {}
    if missing := [name for name in OF_EVERY_FUSION if name not in code]:
        yield f"its fusion has no {missing[0]}"
        return
    digest = hashlib.sha256(
        b"".join(bytes.fromhex(code[name].sha256) for name in CODE_FILES if name in code)
    )  # `fusion_code_id`
    expected = release_id_of(record.calibration, digest.hexdigest())
    if (record.release_id, record.calibration.release_id) != (expected, expected):
        yield f"its record names release id {record.release_id}, and its files and calibration come to {expected}"
    if record.calibration.weights_id != record.manifest.weights_id:
        yield "its calibration and its student are of other weights"
