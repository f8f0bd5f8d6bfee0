"""The record of a release: one JSON file that says all that serves it, and where that came from."""

from __future__ import annotations

import base64
import getpass
import json
import os
import socket
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from pydantic import BaseModel, Field, ValidationError, field_serializer, field_validator
from tritonclient.grpc import model_config_pb2 as pb

from export.errors import PublishError
from export.manifest import Manifest
from export.records import FileRecord, SafeName
from export.serving.backbones import Platform
from export.serving.memory_pools import MemoryPools
from export.serving.throughput import FusionLoad
from model_repository.distance_fusion.map_fusion import Calibration

SCHEMA = 1


class StepRecord(BaseModel, frozen=True, extra="forbid"):
    """A step of a release: a version of a model.

    Attributes:
        model: the model's folder.
        version: the version's folder in it, which never changes.
        files: hash and size of each file of the version.
        config: the model's configuration as this release alone would have it, without the versions to load; text form.
    """

    model: SafeName
    version: int = Field(ge=1)
    files: dict[SafeName, FileRecord]
    config: str

    def parsed_config(self) -> pb.ModelConfig:
        """The configuration as a message, to be changed at will.

        Raises:
            PublishError: the record was changed, and the text is no configuration.
        """
        try:
            return text_format.Parse(self.config, pb.ModelConfig())
        except text_format.ParseError as error:
            raise PublishError(
                f"a record's configuration of {self.model} {self.version} is none ({' '.join(str(error).split())}); "
                "`python -m deploy check` names the record; restore it."
            ) from None


class ProbeImage(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """An image that a release is asked about before it becomes live.

    Attributes:
        png: the file, in base64; of the release's image size.
        score: what the release's graphs, run by ONNX Runtime at publishing, and its fusion come to.
    """

    png: str
    score: float

    @field_validator("png")
    @classmethod
    def _of_base64(cls, png: str) -> str:
        try:
            content = base64.b64decode(png, validate=True)
        except ValueError as error:
            raise ValueError(f"it is no base64 ({error})") from None
        if not content or base64.b64encode(content).decode() != png:
            raise ValueError("it is no base64 of a file in its proper form")
        return png

    @property
    def file(self) -> bytes:
        """The image file."""
        return base64.b64decode(self.png)


class Published(BaseModel, frozen=True, extra="forbid"):
    """Who published when, where and why; `at` is UTC, ISO 8601."""

    by: str
    host: str
    at: str
    why: str


class Record(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """What a release is.

    Attributes:
        schema_number: of this form of a record.
        serial: counts the records of the whole repository: of two releases that share a step, the later one says how
            many instances it has.
        number: counts the releases of the category.
        category: the product.
        release_id: weights, calibration and fusion code together, as verdicts name it.
        steps: `decoder`, `teacher`, `student`, `fusion` and, where there is one, `foreground` and `alignment`.
        platform: what runs the backbones.
        budget: what releases of before may hold, a latency budget; nothing heeds it any more.
        load: the images a second that were stated.
        pools: Triton's memory pools that a GPU needs for it.
        verified: whether the parity gate has judged with the files that are served.
        calibration: fusion and thresholds; its `weights_id` is the constant in the student's graph.
        auroc: image AUROC, 0..1, of the evaluation of these weights and this calibration; None where none is known.
        probes: what it is asked before it becomes live.
        retuned_from: the number of the release whose calibration was changed; None for one that was published.
        published: who, when, why.
        manifest: of the build: precision, image size, parity, fingerprints of data and checkpoint, library versions.
    """

    schema_number: int = SCHEMA
    serial: int = Field(ge=1)
    number: int = Field(ge=1)
    category: SafeName
    release_id: int
    steps: dict[SafeName, StepRecord]
    platform: Platform
    budget: dict[str, Any] | None = None
    load: FusionLoad | None
    pools: MemoryPools | None
    verified: bool
    calibration: Calibration
    auroc: float | None = Field(None, ge=0, le=1)
    probes: list[ProbeImage] = []
    retuned_from: int | None = None
    published: Published
    manifest: Manifest

    @field_validator("calibration", mode="before")
    @classmethod
    def _calibration(cls, given: Any) -> Any:
        return Calibration.from_json(json.dumps(given)) if isinstance(given, dict) else given

    @field_serializer("calibration")
    def _calibration_values(self, calibration: Calibration) -> dict[str, Any]:
        """Without what there is none of: an earlier version reads such a record."""
        values = asdict(calibration)
        for name in ("regions", "picture_only"):
            if not values[name]:
                del values[name]
        return values

    @property
    def weights_id(self) -> int:
        """Of the student's weights."""
        return self.calibration.weights_id

    def to_json(self) -> str:
        """The record as JSON text."""
        return self.model_dump_json(indent=1) + "\n"

    def serves_as(self, other: Record) -> bool:
        """Whether another record serves the same files in the same way, whenever and by whomever it was published."""
        aside = {"serial", "number", "published", "probes", "auroc", "retuned_from", "manifest"}
        return self.model_dump(exclude=aside) == other.model_dump(exclude=aside)


def parse_record(path: Path) -> Record:
    """Read a record.

    Raises:
        PublishError: there is none, it cannot be read, or another version of this project wrote it.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise PublishError(
            f"{path} does not exist; `python -m deploy releases` lists those there are."
        ) from None
    except OSError as error:
        raise PublishError(f"{path} cannot be read ({error.strerror or error}); make it readable.") from None
    return read_record(content, str(path))


def read_record(content: bytes, named: str) -> Record:
    """A record from a file's content.

    Args:
        content: the bytes.
        named: what a sentence calls the file.

    Raises:
        PublishError: it is none, or another version of this project wrote it.
    """
    try:
        text = content.decode("utf-8")
        values = json.loads(text)
        schema = values["schema_number"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise PublishError(
            f"{named} is no whole record ({type(error).__name__}: {error}); restore it, or remove it and publish again."
        ) from None
    if schema != SCHEMA:
        older = isinstance(schema, int) and schema < SCHEMA
        raise PublishError(
            f"{named} is a record of schema {schema!r}, and this version reads {SCHEMA}; the version of this project "
            f"that published it{_origin(values)} reads it"
            + (", or publish the release again with this one." if older else "; update this one.")
        )
    try:
        return Record.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        fault = f"{'.'.join(map(str, first['loc']))}: {first['msg']}".replace("\n", " ")
        raise PublishError(
            f"{named} cannot be used as a record ({error.error_count()} faults; the first: {fault}); restore it, or "
            "remove it and publish again."
        ) from None


def _origin(values: dict[str, Any]) -> str:
    """Where and when a record of another schema was published, as far as it says so."""
    published = values.get("published")
    if not isinstance(published, dict) or not {"host", "at"} <= published.keys():
        return ""
    return f" (on {published['host']}, {str(published['at'])[:10]})"


def published_now(why: str) -> Published:
    """By this user on this machine."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container whose user has no name
        user = str(os.getuid())
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Published(by=user, host=socket.gethostname(), at=now, why=why)
