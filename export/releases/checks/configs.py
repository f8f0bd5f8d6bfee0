"""What Triton reads is what the live records render to, and every model that it would load belongs to a record."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as pb

from export.errors import PublishError
from export.releases.files import idle_configs
from export.releases.record import Record
from export.releases.render import STRIPS_OF_BEFORE, ensemble_configs
from export.releases.repository import CONFIG, Repository
from export.releases.store import FOLDER
from export.releases.switch import Served
from export.serving.steps import to_text


def config_faults(target: Repository, records: Sequence[Record]) -> list[str]:
    """Configurations that are not those of the records.

    Args:
        target: the repository.
        records: all of them.
    """
    try:
        served = Served.now(target)
        expected = served.step_configs()
    except PublishError as error:  # a configuration of another category, say: a rendering asks them all
        return _unreadable(target) or [error.message.rstrip(".")]
    for record in served.records.values():
        expected |= {config.name: config for config in ensemble_configs(record)}
    faults = [_difference(target, config) for config in expected.values()]
    idle = {config.name: config for config in idle_configs(target, expected)}
    faults.append(_difference(target, idle.pop(FOLDER)) if (target.root / FOLDER / CONFIG).exists() else None)
    used = {step.model for record in records for step in record.steps.values()}  # may be as a release left it
    expected |= {name: config for name, config in idle.items() if name not in used}
    faults += [_difference(target, config) for config in idle.values() if _is_changed(target, config, used)]
    spare = [target.read_config(model) for model in _models(target) if model not in expected]
    faults += [_spare_fault(target, config, records) for config in spare if config is not None]
    return [fault for fault in faults if fault]


def _is_changed(target: Repository, config: pb.ModelConfig, used: set[str]) -> bool:
    """Whether the configuration of a model that no record uses is there, and another one."""
    return config.name not in used and (target.root / config.name / CONFIG).exists()


def _models(target: Repository) -> list[str]:
    models = (path.parent.name for path in sorted(target.root.glob(f"*/{CONFIG}")))
    return [model for model in models if not model.startswith(".")]


def _unreadable(target: Repository) -> list[str]:
    """What is wrong with configurations that cannot be read."""
    faults = []
    for model in _models(target):
        try:
            target.read_config(model)
        except PublishError as error:
            faults.append(error.message.rstrip("."))
    return faults


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
    for name in STRIPS_OF_BEFORE:
        lasting.parameters.pop(name, None)
    return str(to_text(lasting))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
