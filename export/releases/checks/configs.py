"""What Triton reads is what the live records render to, and every model that it would load belongs to a record."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as pb

from export.errors import PublishError
from export.releases.record import Record
from export.releases.render import ensemble_configs
from export.releases.repository import CONFIG, Repository
from export.releases.switch import Served
from export.serving.steps import to_text


def config_faults(target: Repository, records: Sequence[Record]) -> list[str]:
    """Configurations that are not those of the records.

    Args:
        target: the repository.
        records: all of them.
    """
    there, faults = _readable(target)
    if faults:
        return faults  # a rendering asks them all
    try:
        served = Served.now(target)
        expected = served.step_configs()
    except PublishError as error:
        return [error.message.rstrip(".")]
    for record in served.records.values():
        expected |= {config.name: config for config in ensemble_configs(record)}
    faults = [fault for config in expected.values() if (fault := _difference(target, config))]
    spare = {name: config for name, config in there.items() if name not in expected}
    return [
        *faults,
        *(fault for config in spare.values() if (fault := _spare_fault(target, config, records))),
    ]


def _readable(target: Repository) -> tuple[dict[str, pb.ModelConfig], list[str]]:
    """All configurations by model, and what is wrong with those that cannot be read."""
    there, faults = {}, []
    for path in sorted(target.root.glob(f"*/{CONFIG}")):
        if path.parent.name.startswith("."):
            continue
        try:
            config = target.read_config(path.parent.name)
        except PublishError as error:
            faults.append(error.message.rstrip("."))
            continue
        if config is not None:
            there[path.parent.name] = config
    return there, faults


def _difference(target: Repository, config: pb.ModelConfig) -> str | None:
    path = target.root / config.name / CONFIG
    if not path.is_file():
        return f"{path}, which the live records need, is gone; promote a release over it again"
    if _bytes(path) == to_text(config).encode():
        return None
    return f"{path} is not what the live records render to: it was changed; promote a release over it again"


def _spare_fault(target: Repository, config: pb.ModelConfig, records: Sequence[Record]) -> str | None:
    """Of a model that no live record needs: one of a record, or nobody's."""
    path = target.root / config.name / CONFIG
    steps = [step for record in records for step in record.steps.values() if step.model == config.name]
    if not steps:
        return f"{path} belongs to no record, and a server would load it; publish it again, or move its folder away"
    versions = set(config.version_policy.specific.versions)
    if not versions or not versions <= {step.version for step in steps}:
        return f"{path} names versions that no record does; publish a release over it again, or move its folder away"
    if _lasting(config) not in [_lasting(step.parsed_config()) for step in steps]:
        return (
            f"{path} is the configuration of no record: it was changed; restore it, or move its folder away"
        )
    return None


def _lasting(config: pb.ModelConfig) -> str:
    """What does not depend on which releases are live besides."""
    lasting = pb.ModelConfig()
    lasting.CopyFrom(config)
    for part in ("version_policy", "dynamic_batching", "instance_group"):
        lasting.ClearField(part)
    return str(to_text(lasting))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
