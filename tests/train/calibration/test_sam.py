"""SAM from weights to masks: the same as transformers' own, and refused where it is damaged or missing."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from tests.conftest import CATEGORY, FitTiny
from tests.tiny_sam import save_tiny_sam
from train.__main__ import main
from train.calibration import sam as sam_module
from train.calibration.sam import load_sam
from train.checkpoint.header import read_header
from train.checkpoint.tensors import load_checkpoint
from train.data.category import CategoryData
from train.data.pictures.loading import load_images
from train.errors import WeightsError

pytestmark = pytest.mark.usefixtures("without_pictures")

CPU = torch.device("cpu")


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
        masks = load_sam(weights_dir)(torch.from_numpy(pixels)).numpy()
    for index in range(3):
        best = answer.pred_masks[index, 0, answer.iou_scores[index, 0].argmax()]
        large = torch.nn.functional.interpolate(best[None, None], (64, 64), mode="bilinear")[0, 0] > 0
        wide = torch.nn.functional.max_pool2d(large[None, None].float(), 3, 1, 1)[0, 0].numpy() > 0
        assert 0.05 < wide.mean() < 0.95
        assert (masks[index] != wide).mean() < 1e-3


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


def test_what_was_downloaded_earlier_needs_no_network(
    weights_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(_: str) -> None:
        raise OSError("no address")

    repository = tmp_path / "models--facebook--sam-vit-base"
    shutil.copytree(weights_dir / "sam-vit-base", repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("train.method.pretrained_weights.require_reachable", unreachable)
    assert load_sam(None).id == load_sam(weights_dir).id


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
