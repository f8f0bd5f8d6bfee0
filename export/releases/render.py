"""Every configuration that Triton reads, as the live records say: what is served is a function of them alone.

Ensembles without a record, which an earlier version of this project published, keep the versions that they name, and so
do those whose record cannot be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tritonclient.grpc import model_config_pb2 as pb

from export.engines.target import TargetServer
from export.releases.record import Record, StepRecord
from export.releases.repository import Repository, parameters_of, pinned_versions
from export.releases.versions import ModelVersions
from export.serving.backbones import Platform
from export.serving.ensembles import category_ensembles, encoded_steps, judging_steps
from export.serving.native_pictures import QUEUE as NATIVE_QUEUE
from export.serving.native_pictures import limit_parameter
from export.serving.queues import QueuePolicy
from export.serving.steps import set_instances, set_queue
from export.serving.throughput import FusionLoad, fusion_instances, queue_size
from export.tensors import ENCODED

FUSION = "distance_fusion"
SAM_QUEUE = QueuePolicy(size=0)
# Parameters that versions of pictures of any size read before their graphs ran in parts.
STRIPS_OF_BEFORE = ("strip_margin", "strip_pixels")
GRAPHS = ("teacher", "student")  # steps that run a graph of a build; the foreground does where it is SAM's


@dataclass(frozen=True)
class Demand:
    """What a category asks of the steps that it shares with others.

    Attributes:
        category: the product.
        models: its steps.
        max_batch_size: images a batch, at most.
        load: the images a second that were stated at publishing.
        native: its pictures keep their own size.
    """

    category: str
    models: frozenset[str]
    max_batch_size: int
    load: FusionLoad | None = None
    native: bool = False

    @classmethod
    def of_record(cls, record: Record) -> Demand:
        """That of a release."""
        models = frozenset(step.model for step in record.steps.values())
        batch = record.platform.max_batch_size
        return cls(record.category, models, batch, record.load, record.manifest.config.is_native)

    @classmethod
    def of_ensemble(cls, ensemble: pb.ModelConfig) -> Demand:
        """That of an ensemble without a record."""
        parameters = parameters_of(ensemble)
        return cls(
            ensemble.name.removesuffix(ENCODED),
            frozenset(step.model_name for step in ensemble.ensemble_scheduling.step),
            ensemble.max_batch_size,
            # Both ensembles of a category say the same.
            None if ensemble.name.endswith(ENCODED) else FusionLoad.from_parameters(parameters),
        )


def queue_of(model: str, demands: Iterable[Demand]) -> QueuePolicy:
    """The queue of a step, which holds whole batches of each of the categories that share it."""
    sharing = [demand for demand in demands if model in demand.models]
    if sharing and all(demand.native for demand in sharing):
        return NATIVE_QUEUE
    largest = max((demand.max_batch_size for demand in sharing), default=1)
    return QueuePolicy(queue_size(largest))


def fusion_instances_of(demands: Iterable[Demand]) -> int:
    """Instances of the fusion that keep up with the images of all categories."""
    return fusion_instances([demand.load for demand in demands if demand.load is not None])


def graph_platform(platform: Platform, graph: str) -> Platform:
    """What runs a graph; SAM has no engine, so ONNX Runtime runs it in NVIDIA's container.

    SAM has one instance, since an image takes gigabytes, and so its queue has no bound (SAM_QUEUE): a bound needs a
    second instance.
    """
    if graph != "foreground":
        return platform
    alone = replace(platform, instances=1)
    return replace(alone, name="onnxruntime", provider="cuda") if platform.name == "tensorrt" else alone


def runs_a_graph(record: Record, step: str) -> bool:
    """Whether a step is a graph or an engine, and not code of this project."""
    return step in GRAPHS or (step == "foreground" and record.manifest.config.foreground == "sam")


@dataclass(frozen=True)
class Rendering:
    """The configurations of a repository.

    Attributes:
        target: the repository.
        records: those that are live; all of their steps are loaded.
        spare: records whose steps stay loaded where they can: those that were live before, to go back to at once.
        server: what loads TensorRT's engines, where that is known.
        joining: records that are to become live, whose steps are loaded too.
    """

    target: Repository
    records: Sequence[Record]
    spare: Sequence[Record] = ()
    server: TargetServer | None = None
    joining: Sequence[Record] = ()

    def step_configs(self) -> dict[str, pb.ModelConfig]:
        """The configuration of each step of these releases, by model."""
        models = dict.fromkeys(step.model for record in self._all for step in record.steps.values())
        foreign = self._foreign()
        demands = [*self._demands(), *map(Demand.of_ensemble, foreign)]
        return {model: self._step_config(model, demands, foreign) for model in models}

    def _demands(self) -> list[Demand]:
        """Those of all records; the images of a category are counted once, by the one that is to become live."""
        last = {record.category: record.number for record in self._all}
        return [
            demand if last[record.category] == record.number else replace(demand, load=None)
            for record in self._all
            for demand in [Demand.of_record(record)]
        ]

    @property
    def _all(self) -> list[Record]:
        return [*self.records, *self.joining]

    def _foreign(self) -> list[pb.ModelConfig]:
        """Ensembles of which no record is live, or none that can be read: they keep what they need."""
        own = {name for record in self.records for name in (record.category, record.category + ENCODED)}
        return [ensemble for ensemble in self.target.ensembles() if ensemble.name not in own]

    def _step_config(
        self, model: str, demands: Sequence[Demand], foreign: Sequence[pb.ModelConfig]
    ) -> pb.ModelConfig:
        users = [user for record in self._all for user in _users(record, model)]
        # Of the categories that share it, the one with the largest batches and then the latest gives its instances.
        name, step, record = max(users, key=lambda user: (user[2].platform.max_batch_size, user[2].serial))
        config = step.parsed_config()
        for _, other, _ in users:  # a step may have learnt to take or give more than an earlier release knew
            add_missing_tensors(config, other.parsed_config())
        for _, other, _ in (user for record in (*self._all, *self.spare) for user in _users(record, model)):
            keep_strips(config, other.parsed_config())
        queue = queue_of(model, demands)
        if name == "foreground" and runs_a_graph(record, name):
            set_instances(config, 1)
            queue = SAM_QUEUE
        set_queue(config, queue)
        if model == FUSION:
            set_instances(config, fusion_instances_of(demands))
        spare = [user[1].version for other in self.spare for user in _users(other, model)]
        spare += [version for ensemble in foreign for version in pinned_versions(ensemble, model)]
        versions = {user[1].version for user in users}
        versions |= {version for version in spare if self._servable(name, step, record, version)}
        config.version_policy.specific.versions.extend(sorted(versions))
        over = [ensemble.max_batch_size for ensemble in foreign if pinned_versions(ensemble, model)]
        config.max_batch_size = max([config.max_batch_size, *over])  # or Triton would refuse these
        return config

    def _servable(self, name: str, step: StepRecord, record: Record, version: int) -> bool:
        """Whether a version can be loaded beside that of a live release."""
        if not runs_a_graph(record, name):
            return self.target.has_file(step.model, version, "model.py")
        platform = graph_platform(record.platform, name)
        versions = ModelVersions(self.target, step.model, name, record.manifest, platform, self.server)
        return versions.unservable(version) is None


def add_missing_tensors(config: pb.ModelConfig, other: pb.ModelConfig) -> None:
    """Let a step take and give what another configuration of it names, after its own; all that is added is optional."""
    for own, theirs in ((config.input, other.input), (config.output, other.output)):
        known = {tensor.name for tensor in own}
        own.extend(tensor for tensor in theirs if tensor.name not in known)


def keep_strips(config: pb.ModelConfig, other: pb.ModelConfig) -> None:
    """Tell versions of before, which look for their strips among a model's parameters, the largest margin of any."""
    for name, parameter in other.parameters.items():
        if name in STRIPS_OF_BEFORE:
            own = config.parameters[name].string_value
            largest = max(int(own or 0), int(parameter.string_value))
            config.parameters[name].string_value = str(largest)


def _users(record: Record, model: str) -> list[tuple[str, StepRecord, Record]]:
    return [(name, step, record) for name, step in record.steps.items() if step.model == model]


def ensemble_configs(record: Record) -> list[pb.ModelConfig]:
    """The two ensembles of a release's category."""
    pinned = {name: (step.model, step.version) for name, step in record.steps.items()}
    decoder = pinned.pop("decoder")
    student, manifest = record.steps["student"].files, record.manifest
    only = record.calibration.picture_only
    steps = judging_steps(**pinned, picture_only=only)
    filled = manifest.config.is_native or manifest.provenance.keep_aspect
    return category_ensembles(
        manifest.model_copy(update={"release_id": record.release_id}),
        steps,
        encoded=encoded_steps(decoder, steps, says_where=only and filled),
        max_batch_size=record.platform.max_batch_size,
        student_sha256=student["model.plan" if "model.plan" in student else "model.onnx"].sha256,
        verified=record.verified,
        parameters={
            **(record.load.to_parameters() if record.load else {}),
            **(record.pools.to_parameters() if record.pools else {}),
            **limit_parameter(record.steps["decoder"].parsed_config()),
        },
    )
