"""Training on a GPU; the same tests run on a CPU, where what they hold is exact."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import TINY_OPTIONS
from tests.train.fitting.test_resume import signal, signal_at
from train.checkpoint.tensors import load_checkpoint
from train.config import fit_config
from train.data.category import CategoryData
from train.errors import ConfigError, WeightsError
from train.fitting import good_images as reading
from train.fitting.cpu.frozen_batchnorm import folded_batchnorm
from train.fitting.features import GoodImages, load_batches
from train.fitting.fit import fit
from train.fitting.gpu.late_looks import LateLooks
from train.fitting.gpu.room import STORES, Place, choose_place
from train.fitting.loop import masked_regeneration_loss
from train.fitting.losses import read_losses
from train.fitting.monitor import look_at_held_out
from train.fitting.preparation import fast_training, full_memory_of_gpu, initial_state, set_training_mode
from train.method.student import Student, build_teacher_and_student
from train.support.devices import Runtime, tf32_is_allowed

IMAGES = np.random.default_rng(0).integers(0, 256, (18, 64, 64, 3), np.uint8)


def run(data: CategoryData, run_dir: Path, device: torch.device, **overrides: Any) -> Path:
    config = fit_config("edge", TINY_OPTIONS | overrides)
    checkpoint = run_dir / "checkpoint.safetensors"
    fit(data, config=config, checkpoint_path=checkpoint, runtime=Runtime(device.type))
    return checkpoint


def losses_of(checkpoint: Path) -> list[float]:
    losses = read_losses(checkpoint.with_name("losses.csv"))
    assert losses is not None
    return losses.train_loss.tolist()


@pytest.mark.parametrize("precision", ["auto", "off", "bfloat16", "float16"])
def test_it_learns_in_every_precision(
    precision: str, device: torch.device, tiny_data: CategoryData, tmp_path: Path
) -> None:
    options = {"steps": 40, "mixed_precision": precision, "validation_interval": 15, "drop_last": False}
    checkpoint = run(tiny_data, tmp_path, device, **options)
    losses = losses_of(checkpoint)
    assert len(losses) == 40
    assert np.isfinite(losses).all()
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])
    assert load_checkpoint(checkpoint).provenance.steps == 40


def test_a_run_that_was_stopped_ends_with_the_same_losses(
    device: torch.device, tiny_data: CategoryData, tmp_path: Path
) -> None:
    """Bit for bit on a CPU; a GPU adds up in another order each time."""
    options = {"steps": 30, "validation_interval": 4, "mixed_precision": "off"}
    with signal_at(8, signal.SIGINT), pytest.raises(KeyboardInterrupt):
        run(tiny_data, tmp_path / "stopped", device, **options)
    stopped, whole = (
        losses_of(run(tiny_data, tmp_path / name, device, **options)) for name in ("stopped", "whole")
    )
    assert len(stopped) == len(whole) == 30
    np.testing.assert_allclose(stopped, whole, rtol=0 if device.type == "cpu" else 0.02)


@pytest.mark.parametrize("place", STORES)
def test_a_whole_run_is_the_same_wherever_features_are_kept(
    place: Place,
    device: torch.device,
    tiny_data: CategoryData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its statistics of each place too, which come from the features after the training."""
    options = {"steps": 6, "validation_interval": 3, "mixed_precision": "off"}
    plain = losses_of(run(tiny_data, tmp_path / "plain", device, **options))
    if device.type == "cpu":
        monkeypatch.setattr(
            reading,
            "compute_teacher_features",
            lambda teacher, images, *, scratch_dir, device: STORES[place](teacher, images, device),
        )
    else:
        monkeypatch.setattr(reading, "choose_place", lambda *_, **__: place)
    checkpoint = run(tiny_data, tmp_path / "kept", device, **options)
    np.testing.assert_allclose(losses_of(checkpoint), plain, rtol=1e-3 if device.type == "cpu" else 0.02)
    residuals = load_checkpoint(checkpoint).student.residuals
    assert residuals is not None
    assert all(stage.place_mean.abs().sum() > 0 for stage in residuals)


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's compiler, about itself
def test_a_compiled_loss_is_the_plain_one(
    device: torch.device, tiny_data: CategoryData, tmp_path: Path
) -> None:
    if device.type == "cpu":
        pytest.skip("test_loop compiles for a CPU")
    options = {"steps": 10, "mixed_precision": "off", "drop_last": False, "validation_interval": 3}
    losses = [
        losses_of(run(tiny_data, tmp_path / str(compiled), device, compile=compiled, **options))
        for compiled in (True, False)
    ]
    np.testing.assert_allclose(*losses, rtol=0.02)


@pytest.mark.parametrize("overrides", [{}, {"distance": "cosine", "neighbourhoods": (1, 1, 1)}])
def test_one_function_is_compiled_once(overrides: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the sizes of batches and however often held-out images are looked at between."""
    from torch._dynamo.testing import CompileCounter

    config = fit_config("edge", TINY_OPTIONS | {"compile": True} | overrides)
    teacher, student, _ = build_teacher_and_student(config, weights_dir=None)
    counter = CompileCounter()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counter, fullgraph=True))
    cpu = torch.device("cpu")
    good = good_images("recomputed", device=cpu, teacher=teacher)
    masks = torch.Generator().manual_seed(0)
    set_training_mode(student, freeze_batchnorm=config.freeze_batchnorm)
    with fast_training(student, config=config, device=cpu, n_images=len(good)) as compute:
        odd = config.model_copy(update={"drop_last": False})
        for batch in load_batches(good, config=odd, steps=range(6), device=cpu):
            masked_regeneration_loss(student, batch, masks, config=config, compute=compute).backward()  # type: ignore[no-untyped-call]
            look_at_held_out(student, good, scale=config.distance_scale)
    assert counter.frame_count == 1


def good_images(place: Place, *, device: torch.device, teacher: Any = None) -> GoodImages:
    if teacher is None:
        teacher, _, _ = build_teacher_and_student(fit_config("edge", TINY_OPTIONS), weights_dir=None)
        teacher.to(device)
    return GoodImages(IMAGES, STORES[place](teacher, IMAGES, device), [""] * len(IMAGES))


@pytest.mark.filterwarnings("ignore")  # that asking torch to refuse waits is new
@pytest.mark.parametrize("precision", ["off", "bfloat16", "float16"])
@pytest.mark.parametrize("place", STORES)
def test_no_step_waits_for_the_device(place: Place, precision: str, device: torch.device) -> None:
    """No `.item()`, and no copy that is not pinned, which on a GPU are an error here."""
    config = fit_config("edge", TINY_OPTIONS | {"mixed_precision": precision, "freeze_batchnorm": False})
    _, student, _ = build_teacher_and_student(config, weights_dir=None)
    student.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    good = good_images(place, device=device)
    state = initial_state(student, config=config, n_steps=8, device=device)
    assert state.mask_generator.device.type == device.type
    set_training_mode(student, freeze_batchnorm=False)
    steps = LateLooks(state, every=100)
    try:
        with fast_training(student, config=config, device=device) as compute:
            for batch in load_batches(good, config=config, steps=range(8), device=device):
                steps.keep()
                if device.type == "cuda" and state.step == 3:  # buffers and algorithms have been found
                    torch.cuda.set_sync_debug_mode("error")
                loss = masked_regeneration_loss(
                    student, batch, state.mask_generator, config=config, compute=compute
                )
                steps.take(loss, batch.indices)
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    seen = steps.look()
    assert [step.step for step in seen] == list(range(8))
    assert np.isfinite([step.loss for step in seen]).all()


def test_folding_keeps_the_features_of_edges_own_weights(device: torch.device) -> None:
    config = fit_config("edge", {})
    try:
        _, student, _ = build_teacher_and_student(config, weights_dir=None)
    except WeightsError as error:
        pytest.skip(error.message)
    student.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    set_training_mode(student, freeze_batchnorm=True)
    image = torch.from_numpy(IMAGES[:2]).to(device)
    with torch.no_grad():
        expected = student.backbone(image)
        with folded_batchnorm(student.backbone, image_size=64) as n_pairs:
            features = student.backbone(image)
    assert n_pairs > 20
    for feature, reference in zip(features, expected, strict=True):
        assert not torch.equal(feature, reference)
        torch.testing.assert_close(feature, reference, rtol=0, atol=1e-3 * float(reference.abs().max()))


def test_on_a_gpu_kernels_are_tried_out_and_nothing_is_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    config = fit_config("edge", TINY_OPTIONS)
    _, student, _ = build_teacher_and_student(config, weights_dir=None)
    set_training_mode(student, freeze_batchnorm=True)
    switches = torch.backends.cudnn
    before = (switches.benchmark, tf32_is_allowed())
    seen = []

    def forward(self: Student, image: torch.Tensor) -> list[torch.Tensor]:
        seen.append(tf32_is_allowed())
        return self.regenerate(self.backbone(image))

    monkeypatch.setattr(Student, "forward", forward)
    good = good_images("device", device=torch.device("cpu"))
    with fast_training(student, config=config, device=torch.device("cuda")):
        assert (switches.benchmark, tf32_is_allowed()) == (True, True)
        assert not any("forward" in layer.__dict__ for layer in student.modules())
        look_at_held_out(student, good, scale=config.distance_scale)  # a number that is kept
        assert tf32_is_allowed()
    assert (switches.benchmark, tf32_is_allowed()) == before
    assert set(seen) == {False}


def test_a_gpu_that_turns_out_too_small_is_told_with_a_batch_to_try() -> None:
    config = fit_config("paper", {})
    with (
        pytest.raises(
            ConfigError, match=r"\(CUDA out of memory\); try --batch-size 16, a smaller --image-size"
        ),
        full_memory_of_gpu(config, torch.device("cuda")),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has")


@pytest.mark.gpu
def test_room_is_measured_on_the_gpu(device: torch.device, capsys: pytest.CaptureFixture[str]) -> None:
    if device.type == "cpu":
        pytest.skip("measures a GPU")
    config = fit_config("edge", TINY_OPTIONS)
    teacher, student, _ = build_teacher_and_student(config, weights_dir=None)
    teacher.to(device)
    student.to(device)
    place = choose_place(teacher, student, n_images=16, config=config, device=device)
    assert place == "device"
    assert "are kept on the GPU" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(ConfigError, match=r"--batch-size \d+ would fit"):
        choose_place(
            teacher,
            student,
            n_images=16,
            config=config.model_copy(update={"batch_size": 10_000_000}),
            device=device,
        )
