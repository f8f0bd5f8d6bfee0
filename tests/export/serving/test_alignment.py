"""The step that aligns stands around the others, and no other takes the image as it came."""

from __future__ import annotations

import pytest
from tritonclient.grpc import model_config_pb2 as pb

from export.serving import steps as configs
from export.serving.alignment import aligning_steps, alignment_config, alignment_name
from export.serving.backend_rules import broken_rules
from export.serving.ensembles import encoded_steps, ensemble_config, judging_steps
from export.tensors import ENCODED_IMAGE, ORIGINAL_SIZE
from model_repository.distance_fusion.map_fusion import VERDICT_OUTPUTS
from model_repository.image_size import ImageSize


@pytest.mark.parametrize("foreground", [None, ("foreground", 3)])
@pytest.mark.parametrize("picture_only", [False, True])
def test_only_the_first_step_sees_the_image_as_it_came(
    foreground: tuple[str, int] | None, picture_only: bool
) -> None:
    judging = judging_steps(
        teacher=("teacher_x", 2),
        student=("pill_student", 5),
        fusion=("distance_fusion", 4),
        foreground=foreground,
        alignment=("pill_alignment", 7),
        picture_only=picture_only,
    )
    ensemble = ensemble_config(
        "pill_encoded",
        inputs=[ENCODED_IMAGE],
        outputs=[*configs.verdict_specs(256), ORIGINAL_SIZE],
        steps=encoded_steps(("image_decoder", 1), judging, says_where=picture_only),
        parameters={},
        max_batch_size=8,
    )
    found = list(ensemble.ensemble_scheduling.step)
    names = [(step.model_name, step.model_version) for step in found]
    assert (names[1], names[-1]) == (("pill_alignment", 7), ("pill_alignment", 7))
    assert [step.model_name for step in found if "image" in step.input_map.values()] == ["pill_alignment"]
    known, outputs = {"encoded_image"}, list[str]()
    for step in found:
        assert set(step.input_map.values()) <= known, step.model_name
        known |= set(step.output_map.values())
        outputs += step.output_map.values()
    assert len(outputs) == len(set(outputs))  # each tensor has one source
    assert {tensor.name for tensor in ensemble.output} <= known
    assert "anomaly_map" not in found[-2].output_map.values()  # the fusion's is of the aligned image
    assert found[-1].input_map["aligned_motion"] == found[1].output_map["motion"]
    # Of a release of before, which counts all of a map, the fusion is not told where it shows the picture.
    told = {name: name for name in ("shown", "motion") if picture_only}
    assert {
        name: found[-2].input_map[name] for name in ("shown", "motion") if name in found[-2].input_map
    } == told
    assert ("shown" in found[0].output_map) == picture_only
    assert "shown" not in judging[-2].input_map  # pixels: who sends them says so


@pytest.mark.parametrize(
    ("size", "name", "dims"),
    [(256, "pill_alignment", [256, 256, 3]), ((64, 96), "pill_alignment_64x96", [64, 96, 3])],
)
def test_a_step_of_each_category_and_size(size: ImageSize, name: str, dims: list[int]) -> None:
    config = alignment_config("pill", size)
    assert config.name == alignment_name("pill", size) == name
    inputs = {tensor.name: tensor for tensor in config.input}
    assert all(tensor.optional for tensor in inputs.values())
    assert list(inputs["image"].dims) == dims
    assert list(inputs["aligned_map"].dims) == dims[:2]
    assert not config.model_warmup  # zeros cannot be aligned
    assert not broken_rules(config)


def test_every_tensor_of_a_step_is_renamed() -> None:
    """In which order a protobuf map is gone through is chance: formerly some processes left a tensor as it was."""
    steps = [
        pb.ModelEnsembling.Step(
            model_name="fusion",
            model_version=1,
            input_map={f"{number}_{name}": name for name in ("image", "a", "b", "c")},
            output_map={f"{number}_{name}": name for name in VERDICT_OUTPUTS},
        )
        for number in range(200)
    ]
    for step in aligning_steps(("pill_alignment", 1), steps)[1:-1]:
        assert set(step.input_map.values()) == {"aligned_image", "a", "b", "c"}
        assert set(step.output_map.values()) == {
            *(set(VERDICT_OUTPUTS) - {"anomaly_map", "pred_mask"}), "aligned_map", "aligned_mask",
        }  # fmt: skip
