"""What each category's task is given: the commands that it runs, their folders and the code that should run them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.data.sources import DATASETS


@dataclass(frozen=True)
class Share:
    """What a task gets of a node.

    Attributes:
        cpus: cores, which are also the threads that it computes with.
        gpus: GPUs, a part of one among them.
        memory_gb: memory that is kept free for it, GB of 10^9 bytes.
        retries: how often it is begun again when its node or its process dies.
    """

    cpus: int
    gpus: float
    memory_gb: float
    retries: int


@dataclass(frozen=True)
class FleetPlan:
    """What was asked for: which categories, of which images, made how.

    Attributes:
        categories: their names.
        data: `mvtec_ad`, `elpv`, `synthetic`, or a folder.
        data_dir: where data sets lie.
        runs_dir: where runs are kept.
        build_dir: where builds are kept.
        preset: that of `train fit`; None where none was asked for.
        fields: fields of `FitConfig` that were asked for.
        weights_dir: the user's pretrained weights.
        strict: whether a broken image stops a category.
        device: `auto` is the GPU where tasks get one, else the CPU.
        precision: of the graphs.
        force: train also where a finished run has other options, images or code.
    """

    categories: tuple[str, ...]
    data: str
    data_dir: Path
    runs_dir: Path
    build_dir: Path
    preset: str | None
    fields: Mapping[str, Any]
    weights_dir: Path | None
    strict: bool
    device: str
    precision: str
    force: bool

    def needed_paths(self) -> tuple[str, ...]:
        """What a node has to have: the images, unless it can make them, and the weights."""
        images = {"mvtec_ad": self.data_dir / "mvtec_ad", "elpv": None, "synthetic": None}.get(
            self.data, Path(self.data)
        )
        return tuple(str(path.absolute()) for path in (images, self.weights_dir) if path is not None)

    def job(self, category: str, *, expected: Mapping[str, Any], token: str, share: Share) -> Job:
        """The task of one of the categories."""
        device = self.device if self.device != "auto" else "cuda" if share.gpus else "cpu"
        data = self.data if self.data in DATASETS else str(Path(self.data).absolute())
        images = (f"--data={data}", f"--data-dir={self.data_dir.absolute()}", f"--device={device}")
        weights = () if self.weights_dir is None else (f"--weights-dir={self.weights_dir.absolute()}",)
        strict = ("--strict",) if self.strict else ()
        return Job(
            category=category,
            runs_dir=self.runs_dir.absolute(),
            build_dir=self.build_dir.absolute(),
            commands={
                "fit": ("train", "fit", *images, *strict, *weights, *self._fit_options()),
                "evaluate": ("train", "evaluate", *images, *strict, *weights),
                "export": ("export", "onnx", f"--precision={self.precision}", *weights),
            },
            expected=expected,
            paths=self.needed_paths(),
            token=token,
            threads=share.cpus,
            force=self.force,
        )

    def _fit_options(self) -> Sequence[str]:
        options = [] if self.preset is None else [f"--preset={self.preset}"]
        for name, value in self.fields.items():
            option = name.replace("_", "-")
            if name == "weights":
                options += ["--random-weights"] if value == "random" else []
            elif isinstance(value, bool):
                options.append(f"--{option}" if value else f"--no-{option}")
            else:
                text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
                options.append(f"--{option}={text}")
        return options


@dataclass(frozen=True)
class Job:
    """A category's task.

    Attributes:
        category: its name.
        runs_dir: where its run belongs.
        build_dir: where its build belongs.
        commands: stage, command and options of each of `train.fleet.code.STAGES`, category and folders aside.
        expected: versions and code of the driver, see `train.fleet.probe.look`.
        paths: what the node has to have.
        token: name of a hidden file in both folders, by which a node sees that it shares them with the driver.
        threads: that it may compute with.
        force: train also where a finished run has other options, images or code.
    """

    category: str
    runs_dir: Path
    build_dir: Path
    commands: Mapping[str, tuple[str, ...]]
    expected: Mapping[str, Any]
    paths: tuple[str, ...]
    token: str
    threads: int
    force: bool

    @property
    def tokens(self) -> tuple[Path, Path]:
        """The files that a node which shares the folders sees."""
        return self.runs_dir / self.token, self.build_dir / self.token

    @property
    def code(self) -> Mapping[str, str]:
        """The code that each stage should be made by."""
        return dict(self.expected["code"])

    def command(self, stage: str, *, runs_dir: Path, build_dir: Path, forced: str | None) -> list[str]:
        """The arguments of Python for a stage, in these folders."""
        group, verb, *options = self.commands[stage]
        folders = [f"--runs-dir={runs_dir}", *([f"--build-dir={build_dir}"] if stage == "export" else [])]
        return [
            *("-m", group, verb, f"--category={self.category}", *folders, *options),
            *([] if forced is None else [forced]),
        ]
