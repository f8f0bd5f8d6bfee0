"""Table 9: the background removed in calibration and evaluation alike, and measured with and without."""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.metrics import roc_auc_score

from model_repository.distance_fusion.map_fusion import fuse_distances, remove_background
from model_repository.foreground.foreground_mask import foreground_mask
from tests.conftest import CATEGORY, FitTiny
from tests.tiny_sam import save_tiny_sam
from train.__main__ import main
from train.calibration import sam as sam_module
from train.calibration.foreground import find_foreground, load_foreground
from train.calibration.sam import load_sam
from train.checkpoint.header import read_header, read_release_id
from train.checkpoint.tensors import Checkpoint, load_checkpoint, save_checkpoint
from train.config import fit_config
from train.data.category import CategoryData, load_images, read_category, split_good
from train.errors import CheckpointError, ConfigError, DataError, WeightsError
from train.evaluation.evaluate import Evaluation, evaluate
from train.method.student import compute_distances
from train.runs import checkpoint_is_up_to_date, evaluate_category

CPU = torch.device("cpu")


# As the paper compares features: the blot is what random networks find oddest in its picture.
PLAIN = {"centered_stages": (), "stage_weighting": "equal"}


@pytest.fixture(scope="module")
def blotted(tiny_data: CategoryData, tmp_path_factory: pytest.TempPathFactory) -> CategoryData:
    """The category with a black blot on the background of one good test image."""
    root = tmp_path_factory.mktemp("blotted") / CATEGORY
    shutil.copytree(tiny_data.root, root)
    path = root / "test" / "good" / "000.png"
    image = np.asarray(Image.open(path)).copy()
    assert not foreground_mask(image[None])[0, :8, :8].any()
    image[1:5, 1:5] = 0
    Image.fromarray(image).save(path)
    return read_category(root, dataset="folder", category=CATEGORY)


@pytest.fixture(scope="module")
def masked_runs(blotted: CategoryData, fit_tiny: FitTiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained with `--foreground threshold`."""
    runs = tmp_path_factory.mktemp("masked_runs")
    fit_tiny(blotted, runs / CATEGORY, foreground="threshold")
    return runs


@pytest.fixture(scope="module")
def masked(masked_runs: Path) -> Checkpoint:
    return load_checkpoint(masked_runs / CATEGORY / "checkpoint.safetensors")


@pytest.fixture(scope="module")
def weights_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds a tiny SAM."""
    folder = tmp_path_factory.mktemp("weights")
    save_tiny_sam(folder)
    return folder


def judged(checkpoint: Checkpoint, data: CategoryData) -> Evaluation:
    found = evaluate(checkpoint, data, device=CPU, strict=True)
    assert found is not None
    return found


def blotted_index(evaluation: Evaluation) -> int:
    return [(image.defect, image.path.name) for image in evaluation.test].index(("good", "000.png"))


def test_a_blot_on_the_background_counts_without_the_mask_alone(
    blotted: CategoryData, fit_tiny: FitTiny, tmp_path: Path
) -> None:
    whole, part = (
        judged(load_checkpoint(fit_tiny(blotted, tmp_path / method, foreground=method, **PLAIN)), blotted)
        for method in ("none", "threshold")
    )
    index = blotted_index(part)
    assert whole.verdict.anomaly_map[index, 2, 2] > 0
    assert part.verdict.anomaly_map[index, 2, 2] == 0
    assert part.verdict.pred_score[index, 0] < whole.verdict.pred_score[index, 0]
    # The same networks: on the part nothing changes.
    mask = foreground_mask(part.pixels)
    np.testing.assert_array_equal(part.verdict.anomaly_map[mask], whole.verdict.anomaly_map[mask])


def test_both_aurocs_of_table_9_are_scikit_learns(
    blotted: CategoryData, fit_tiny: FitTiny, tmp_path: Path
) -> None:
    masked = load_checkpoint(fit_tiny(blotted, tmp_path, foreground="threshold", **PLAIN))
    found = judged(masked, blotted)
    distances = compute_distances(
        masked.teacher, masked.student, found.pixels, scale=2.0, device=CPU, what="Test"
    )
    maps = fuse_distances(distances, masked.calibration.fusion)
    mask = foreground_mask(found.pixels)
    without = roc_auc_score(found.labels, maps.max(axis=(1, 2)))
    with_mask = roc_auc_score(found.labels, remove_background(maps, mask).max(axis=(1, 2)))
    assert found.metrics["foreground"] == "threshold"
    assert found.metrics["image_auroc"] == pytest.approx(with_mask)
    assert found.metrics["image_auroc_without_foreground"] == pytest.approx(without)
    assert with_mask != without  # or this test would see nothing
    assert found.metrics["foreground_share"] == pytest.approx(mask.mean())
    assert 0.1 < mask.mean() < 0.9


def test_thresholds_are_fitted_on_masked_maps(masked: Checkpoint, blotted: CategoryData) -> None:
    pixels = load_images(blotted.train_good, image_size=64, strict=True).pixels
    config = masked.config
    _, held_out = split_good(len(pixels), holdout_ratio=config.holdout_ratio, seed=config.seed)
    distances = compute_distances(
        masked.teacher, masked.student, pixels[held_out], scale=config.distance_scale, device=CPU, what="Test"
    )
    maps = fuse_distances(distances, masked.calibration.fusion)
    part = np.where(foreground_mask(pixels[held_out]), maps, 0)
    # Two are held out: the threshold is the larger score.
    assert masked.calibration.image_threshold == pytest.approx(part.max())
    assert masked.calibration.pixel_threshold == pytest.approx(
        np.quantile(part, 1 - config.false_reject_rate)
    )
    assert (masked.calibration.foreground, masked.calibration.foreground_id) == ("threshold", 0)


def test_without_a_foreground_metrics_say_so(tiny_checkpoint: Path, tiny_data: CategoryData) -> None:
    metrics = judged(load_checkpoint(tiny_checkpoint), tiny_data).metrics
    names = ("foreground", "foreground_share", "image_auroc_without_foreground")
    assert [metrics[name] for name in names] == ["none", None, None]


def test_the_foreground_counts_in_the_release_id(masked: Checkpoint, tmp_path: Path) -> None:
    def save(**changes: object) -> int:
        return save_checkpoint(
            tmp_path / "checkpoint.safetensors",
            config=masked.config,
            provenance=masked.provenance,
            calibration=replace(masked.calibration, **changes),  # type: ignore[arg-type]
            teacher=masked.teacher,
            student=masked.student,
        )

    assert save() == masked.release_id
    others = {save(foreground="none"), save(foreground="sam"), save(foreground="sam", foreground_id=1)}
    assert len(others | {masked.release_id}) == 4
    with pytest.raises(CheckpointError, match=r"with foreground 'threshold' and calibrated with another"):
        load_checkpoint(tmp_path / "checkpoint.safetensors")


def test_another_foreground_is_another_training(masked_runs: Path, blotted: CategoryData) -> None:
    path = masked_runs / CATEGORY / "checkpoint.safetensors"
    for asked, same in (({}, True), ({"foreground": "threshold"}, True), ({"foreground": "none"}, False)):
        config = fit_config("edge", asked)
        assert checkpoint_is_up_to_date(path, data=blotted, config=config, asked=asked) is same


def test_evaluating_with_another_foreground_fits_thresholds_of_its_own(
    tiny_runs: Path,
    masked: Checkpoint,
    blotted: CategoryData,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As if it had been trained so: only the foreground differs between the two runs."""
    run_dir = tmp_path / CATEGORY
    shutil.copytree(tiny_runs / CATEGORY, run_dir)
    checkpoint = run_dir / "checkpoint.safetensors"
    before = checkpoint.read_bytes()

    def run(foreground: str | None) -> str:
        return evaluate_category(
            blotted, run_dir=run_dir, device=CPU, strict=True, force=False, foreground=foreground
        )

    said = run("threshold")
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert (
        f"image AUROC {metrics['image_auroc']:.4f} with foreground threshold and "
        f"{metrics['image_auroc_without_foreground']:.4f} without"
    ) in said
    assert "are for foreground none; those for threshold are fitted" in " ".join(
        capsys.readouterr().err.split()
    )
    trained_so = judged(masked, blotted).metrics
    for name in ("threshold", "image_auroc", "image_auroc_without_foreground", "false_reject_rate"):
        assert metrics[name] == pytest.approx(trained_so[name]), name
    assert checkpoint.read_bytes() == before
    assert metrics["release_id"] == read_release_id(checkpoint)

    assert run("threshold").startswith("Up to date")
    assert "without" not in run(None)  # the checkpoint's own way is another evaluation
    assert json.loads((run_dir / "metrics.json").read_text())["foreground"] == "none"
    assert run("none").startswith("Up to date")


def test_thresholds_of_other_images_cannot_be_fitted(
    tiny_runs: Path, blotted: CategoryData, tmp_path: Path
) -> None:
    root = tmp_path / "other" / CATEGORY
    shutil.copytree(blotted.root, root)
    (root / "train" / "good" / "000.png").unlink()
    data = read_category(root, dataset="folder", category=CATEGORY)
    shutil.copytree(tiny_runs / CATEGORY, tmp_path / CATEGORY)
    with pytest.raises(DataError, match=r"Thresholds for --foreground threshold cannot be fitted: .*--data"):
        evaluate_category(
            data, run_dir=tmp_path / CATEGORY, device=CPU, strict=True, force=False, foreground="threshold"
        )
    assert not (tmp_path / CATEGORY / "metrics.json").exists()


def test_thresholds_do_not_hold_for_another_method(masked: Checkpoint, blotted: CategoryData) -> None:
    finder = load_foreground("none", weights_dir=None)
    with pytest.raises(ConfigError, match=r"calibrated with foreground threshold; .* do not hold for none"):
        evaluate(masked, blotted, foreground=finder, device=CPU, strict=True)


def test_masks_do_not_depend_on_the_batches(weights_dir: Path, blotted: CategoryData) -> None:
    pixels = load_images([image.path for image in blotted.test], image_size=64, strict=True).pixels
    for method in ("threshold", "sam"):
        finder = load_foreground(method, weights_dir=weights_dir)
        together = find_foreground(pixels, finder, device=CPU)
        assert together is not None
        assert (together.shape, together.dtype) == (pixels.shape[:3], np.bool_)
        for index in (0, len(pixels) - 1):
            alone = find_foreground(pixels[index : index + 1], finder, device=CPU)
            assert alone is not None
            assert (alone[0] != together[index]).mean() < 1e-3
        assert any((mask != together[0]).any() for mask in together[1:])
    assert find_foreground(pixels, load_foreground("none", weights_dir=None), device=CPU) is None


def test_sam_masks_are_transformers_own(weights_dir: Path, blotted: CategoryData) -> None:
    """The best of three masks of SamModel itself, its post-processing spelt out."""
    from transformers import SamModel

    pixels = load_images([image.path for image in blotted.test[:3]], image_size=64, strict=True).pixels
    sam = SamModel.from_pretrained(weights_dir / "sam-vit-base").eval()
    image = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    normalised = (image - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor(
        [0.229, 0.224, 0.225]
    )[:, None, None]
    points = torch.tensor([[32, 32], [1.28, 1.28], [62.72, 1.28], [1.28, 62.72], [62.72, 62.72]])
    with torch.inference_mode():
        answer = sam(
            pixel_values=normalised,
            input_points=points.expand(3, 1, 5, 2),
            input_labels=torch.tensor([1, 0, 0, 0, 0]).expand(3, 1, 5),
        )
        found = load_sam(weights_dir)(torch.from_numpy(pixels)).numpy()
    for index in range(3):
        best = answer.pred_masks[index, 0, answer.iou_scores[index, 0].argmax()]
        large = torch.nn.functional.interpolate(best[None, None], (64, 64), mode="bilinear")[0, 0] > 0
        wide = torch.nn.functional.max_pool2d(large[None, None].float(), 3, 1, 1)[0, 0].numpy() > 0
        assert 0.05 < wide.mean() < 0.95
        assert (found[index] != wide).mean() < 1e-3


def test_sam_from_fit_to_evaluation(
    blotted: CategoryData, weights_dir: Path, tmp_path: Path, fit_tiny: FitTiny
) -> None:
    arguments = [
        "--category",
        CATEGORY,
        "--data",
        str(blotted.root),
        "--runs-dir",
        str(tmp_path),
        "--device",
        "cpu",
    ]
    tiny = ["--teacher", "test_resnet", "--student", "test_efficientnet", "--random-weights", "--image-size", "64",
            "--batch-size", "4", "--steps", "1"]  # fmt: skip
    sam = ["--weights-dir", str(weights_dir)]
    fitted = CliRunner().invoke(main, ["fit", *arguments, *tiny, *sam, "--foreground", "sam"])
    assert fitted.exit_code == 0, fitted.output
    path = tmp_path / CATEGORY / "checkpoint.safetensors"
    header, checkpoint = read_header(path), load_checkpoint(path)
    assert header.provenance.weights["foreground"] == str(weights_dir / "sam-vit-base")
    assert checkpoint.calibration.foreground == "sam"
    assert checkpoint.calibration.foreground_id == load_sam(weights_dir).id > 0
    evaluated = CliRunner().invoke(main, ["evaluate", *arguments, *sam])
    assert evaluated.exit_code == 0, evaluated.output
    assert "with foreground sam and" in evaluated.output

    save_tiny_sam(tmp_path / "other", seed=1)
    refused = CliRunner().invoke(
        main, ["evaluate", *arguments, "--force", "--weights-dir", str(tmp_path / "other")]
    )
    assert refused.exit_code == 1
    assert "is not the one that category 'pill' was calibrated with" in refused.output


def test_next_to_no_part_is_the_whole_picture(weights_dir: Path) -> None:
    sam = load_sam(weights_dir)
    image = torch.zeros(2, 64, 64, 3, dtype=torch.uint8)
    assert not sam(image).all()
    with torch.no_grad():  # masks are products with what these layers give
        for layers in sam.decoder.output_hypernetworks_mlps:  # type: ignore[union-attr, operator]
            layers.proj_out.weight.zero_()
            layers.proj_out.bias.zero_()
    assert sam(image).all()


def cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def lose_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["mask_decoder.iou_token.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "config.json").unlink(), r"lacks config\.json; put config\.json and"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"lacks model\.safetensors; put"),
        (cut, r"cannot be used \(SafetensorError.*\); expected config\.json and"),
        (lose_a_tensor, r"1 tensors are missing, mask_decoder\.iou_token\.weight among them\); expected"),
    ],
)  # fmt: skip
def test_a_damaged_sam_is_refused(weights_dir: Path, tmp_path: Path, damage: object, reason: str) -> None:
    shutil.copytree(weights_dir, tmp_path / "weights")
    damage(tmp_path / "weights" / "sam-vit-base")  # type: ignore[operator]
    with pytest.raises(WeightsError, match=reason) as caught:
        load_sam(tmp_path / "weights")
    assert "\n" not in caught.value.message


def test_missing_weights_name_the_three_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(_: str) -> None:
        raise OSError("no network")

    monkeypatch.setattr("train.method.pretrained_weights.require_reachable", unreachable)
    ways = r"into a folder sam-vit-base in --weights-dir; or .*; or use --foreground threshold"
    with pytest.raises(WeightsError, match=rf"no --weights-dir given; download failed: OSError.*{ways}"):
        load_sam(None)
    with pytest.raises(WeightsError, match=rf"sam-vit-base does not exist; .*{ways}"):
        load_sam(tmp_path)


def test_missing_transformers_is_told_before_the_training(
    blotted: CategoryData, fit_tiny: FitTiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        sam_module.importlib.util,
        "find_spec",
        lambda name: None if name == "transformers" else real(name),
    )
    with pytest.raises(WeightsError, match=r"needs the package transformers.*pip install '\.\[sam\]'"):
        fit_tiny(blotted, tmp_path, foreground="sam")
    assert list(tmp_path.iterdir()) == []
