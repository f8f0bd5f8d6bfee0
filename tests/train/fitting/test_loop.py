"""The loop's choices: precision, compilation, which stages are masked, what is watched on the way."""

from __future__ import annotations

import contextlib
import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import TINY_OPTIONS, FitTiny
from train.checkpoint.header import read_header
from train.checkpoint.tensors import load_checkpoint
from train.config import FitConfig, fit_config
from train.data.category import CategoryData
from train.errors import ConfigError
from train.fitting import fit as fit_module
from train.fitting.cpu.frozen_batchnorm import folded_batchnorm
from train.fitting.cpu.winograd import winograd_convolutions
from train.fitting.features import GoodImages, TeacherFeatures, batch_indices, load_batches
from train.fitting.loop import masked_regeneration_loss
from train.fitting.losses import read_losses
from train.fitting.preparation import learning_rate_factor, set_training_mode
from train.method.distances import distance_maps, mask_features
from train.method.student import Student, build_teacher_and_student
from train.support.devices import Runtime

CPU = torch.device("cpu")


def logged(run_dir: Path) -> EventAccumulator:
    events = EventAccumulator(str(run_dir / "tensorboard"))
    events.Reload()
    return events


def some_good(n_images: int = 10) -> GoodImages:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (n_images, 64, 64, 3), np.uint8)
    features = tuple(
        generator.normal(size=(n_images, side, side, channels)).astype(np.float32)
        for side, channels in ((16, 3), (8, 5), (4, 7))
    )
    return GoodImages(images, TeacherFeatures(features), [f"{index}.png" for index in range(n_images)])


def test_batches_depend_on_step_and_seed_alone() -> None:
    good = some_good()
    config = fit_config("edge", TINY_OPTIONS | {"batch_size": 4, "seed": 3})
    whole = list(load_batches(good, config=config, steps=range(7), device=CPU))
    later = list(load_batches(good, config=config, steps=range(4, 7), device=CPU))
    assert [batch.indices.tolist() for batch in later] == [batch.indices.tolist() for batch in whole[4:]]
    first = whole[0]
    assert torch.equal(first.image, torch.from_numpy(good.images[first.indices]))
    for feature, stage in zip(first.teacher_features, good.teacher_features.stages, strict=True):
        assert torch.equal(feature, torch.from_numpy(stage[first.indices]).permute(0, 3, 1, 2))
        assert feature.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("options", [{}, {"freeze_batchnorm": False, "drop_last": False}])
def test_a_cpu_trains_bit_for_bit_as_the_method_written_out(
    options: dict[str, Any], tiny_data: CategoryData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its draws, order and arithmetic are fixed: a seed gives the same losses, whatever is done for GPUs."""
    given: dict[str, Any] = {}
    original = fit_module.train_student

    def train_student(student: Student, good: GoodImages, **arguments: Any) -> Any:
        given.update(student=copy.deepcopy(student), good=good, config=arguments["config"])
        return original(student, good, **arguments)

    monkeypatch.setattr(fit_module, "train_student", train_student)
    config = fit_config("edge", TINY_OPTIONS | {"steps": 9, "validation_interval": 4} | options)
    checkpoint = tmp_path / "checkpoint.safetensors"
    fit_module.fit(tiny_data, config=config, checkpoint_path=checkpoint, runtime=Runtime("cpu"))
    losses = read_losses(tmp_path / "losses.csv")
    assert losses is not None
    written_out = losses_written_out(given["student"], given["good"], config)
    assert losses.train_loss.astype(np.float32).tolist() == written_out


def losses_written_out(student: Student, good: GoodImages, config: FitConfig) -> list[float]:
    n_steps = config.total_steps(len(good))
    optimizer = torch.optim.Adam(
        student.parameters(), lr=config.learning_rate, betas=config.betas, fused=True
    )
    order = batch_indices(
        len(good), batch_size=config.batch_size, seed=config.seed, drop_last=config.drop_last
    )
    generator, losses = torch.Generator().manual_seed(config.seed), []
    set_training_mode(student, freeze_batchnorm=config.freeze_batchnorm)
    folding = folded_batchnorm(student.backbone, image_size=config.image_size)
    with (
        folding if config.freeze_batchnorm else contextlib.nullcontext(),
        winograd_convolutions(student.generation_blocks),
    ):
        for step in range(n_steps):
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * learning_rate_factor(
                    step, n_steps=n_steps, schedule=config.schedule
                )
            indices = next(order)
            masked = [
                feature
                * (torch.rand(feature.shape[-2:], generator=generator) >= config.mask_ratio).to(feature)
                for feature in student.backbone(torch.from_numpy(good.images[indices]))
            ]
            theirs = [
                torch.from_numpy(stage[indices]).permute(0, 3, 1, 2) for stage in good.teacher_features.stages
            ]
            loss = student.loss(student.regenerate(masked), theirs, scale=config.distance_scale)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
    return losses


def test_half_precision_changes_the_loss_a_little_and_gives_it_in_full() -> None:
    config = fit_config("edge", TINY_OPTIONS)
    teacher, student, _ = build_teacher_and_student(config, weights_dir=None)
    student.train()
    image = torch.randint(
        0, 256, (4, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    good = some_good()
    batch = next(iter(load_batches(good, config=config, steps=range(1), device=CPU)))
    batch = type(batch)(indices=batch.indices, image=image, teacher_features=teacher(image))
    losses = {}
    for precision in ("off", "bfloat16"):
        choice = config.model_copy(update={"mixed_precision": precision})
        loss = masked_regeneration_loss(student, batch, torch.Generator().manual_seed(1), config=choice)
        assert loss.dtype == torch.float32
        losses[precision] = loss.item()
    assert losses["bfloat16"] != losses["off"]
    assert losses["bfloat16"] == pytest.approx(losses["off"], rel=0.02)


@pytest.mark.parametrize("options", [{"mixed_precision": "bfloat16"}, {"mixed_precision": "float16"}])
def test_half_precision_trains(
    options: dict[str, Any], tiny_data: CategoryData, fit_tiny: FitTiny, tmp_path: Path
) -> None:
    full = read_header(fit_tiny(tiny_data, tmp_path / "full", steps=30)).provenance.final_loss
    half = read_header(fit_tiny(tiny_data, tmp_path / "half", steps=30, **options)).provenance.final_loss
    assert half != full
    assert half == pytest.approx(full, rel=0.1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's compiler, about itself
def test_a_compiled_student_trains_as_the_plain_one(
    tiny_data: CategoryData, fit_tiny: FitTiny, tmp_path: Path
) -> None:
    plain = read_header(fit_tiny(tiny_data, tmp_path / "plain", steps=10)).provenance.final_loss
    compiled = fit_tiny(tiny_data, tmp_path / "compiled", steps=10, compile=True)
    assert read_header(compiled).provenance.final_loss == pytest.approx(plain, rel=1e-3)
    load_checkpoint(compiled)  # under the plain names


def test_validation_is_logged_and_changes_nothing(
    tiny_data: CategoryData, fit_tiny: FitTiny, tmp_path: Path
) -> None:
    watched = load_checkpoint(fit_tiny(tiny_data, tmp_path / "watched", steps=20, validation_interval=2))
    alone = load_checkpoint(fit_tiny(tiny_data, tmp_path / "alone", steps=20, validation_interval=0))
    assert watched.release_id == alone.release_id
    events = logged(tmp_path / "watched")
    validations = events.Scalars("loss/validation")
    assert [event.step for event in validations] == list(range(1, 20, 2))
    assert validations[-1].value < validations[0].value
    pictures = events.Images("held-out good images, anomaly maps")
    assert [picture.step for picture in pictures] == [9, 19]
    # The two held-out images, each beside its map.
    assert (pictures[0].width, pictures[0].height) == (2 * 64, 2 * 64)
    assert "loss/validation" not in logged(tmp_path / "alone").Tags()["scalars"]


def test_a_plateau_stops_on_request(tiny_data: CategoryData, fit_tiny: FitTiny, tmp_path: Path) -> None:
    # At this rate nothing is learned: no validation is much below the one before.
    options: dict[str, Any] = {
        "steps": 200,
        "validation_interval": 1,
        "learning_rate": 1e-12,
        "betas": (0.0, 0.0),
    }
    checkpoint = fit_tiny(tiny_data, tmp_path / "stopped", plateau_patience=3, **options)
    assert read_header(checkpoint).provenance.steps < 200
    events = logged(tmp_path / "stopped").Scalars("loss/validation")
    values = [event.value for event in events]
    assert len(values) == read_header(checkpoint).provenance.steps
    assert min(values[-3:]) >= min(values[:-3])


def test_stages_without_a_block_are_neither_masked_nor_changed() -> None:
    config = fit_config(
        "edge",
        {**TINY_OPTIONS, "teacher": "test_resnet", "student": "test_resnet", "generation_stages": (2,)},
    )
    _, student, _ = build_teacher_and_student(config, weights_dir=None)
    image = torch.randint(
        0, 256, (2, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    own = student.eval().backbone(image)
    masked = mask_features(own, mask_ratio=0.9, generator=torch.Generator().manual_seed(0), stages=(2,))
    regenerated = student.regenerate(masked)
    for stage in (0, 2):
        assert torch.equal(regenerated[stage], own[stage])
    assert not torch.equal(masked[1], own[1])
    assert sum(parameter.numel() for parameter in student.generation_blocks.parameters()) == sum(
        parameter.numel() for parameter in student.generation_blocks[1].parameters()
    )


def test_a_stage_without_a_block_needs_the_teachers_channels() -> None:
    config = fit_config("edge", {"weights": "random", "generation_stages": (1, 3)})
    with pytest.raises(
        ConfigError, match=r"Stage 2 has no generation block, and the student's 40 channels .* 48;"
    ):
        build_teacher_and_student(config, weights_dir=None)


def test_a_student_from_scratch_keeps_its_normalisation_and_nothing_else() -> None:
    overrides = {**TINY_OPTIONS, "freeze_batchnorm": False}
    pretrained = build_teacher_and_student(fit_config("edge", overrides), weights_dir=None)[1]
    overrides |= {"student_weights": "scratch", "seed": 1}
    _, scratch, sources = build_teacher_and_student(fit_config("edge", overrides), weights_dir=None)
    assert sources["student"] == "random, seed 1"
    assert torch.equal(scratch.backbone.mean, pretrained.backbone.mean)
    with pytest.raises(
        ConfigError, match="freeze_batchnorm: a student from scratch has no statistics to keep"
    ):
        fit_config("edge", {"student_weights": "scratch", "freeze_batchnorm": True})


def test_cosine_and_l2_parts_add_up() -> None:
    parts = {(1.0, 1.0): 2.0, (1.0, 0.0): 1.0, (0.0, 0.5): 0.5}
    ours, theirs = (torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    unit = distance_maps([ours], [theirs], scale=1.0)[0]
    for (cosine, alpha), scale in parts.items():
        config = fit_config("paper", {"cosine_weight": cosine, "alpha": alpha})
        assert config.distance_scale == scale
        torch.testing.assert_close(
            distance_maps([ours], [theirs], scale=config.distance_scale)[0], scale * unit
        )
    with pytest.raises(ConfigError, match="alpha and cosine_weight are both 0"):
        fit_config("paper", {"cosine_weight": 0.0, "alpha": 0.0})


def test_width_sets_the_channels_between_the_convolutions() -> None:
    config = fit_config("edge", {**TINY_OPTIONS, "generation_width": 0.5})
    teacher, student, _ = build_teacher_and_student(config, weights_dir=None)
    assert isinstance(student, Student)
    for block, channels in zip(student.generation_blocks, teacher.channels, strict=True):
        assert block.first.out_channels == block.second.in_channels == round(0.5 * channels)  # type: ignore[union-attr]
