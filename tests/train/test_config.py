"""The presets against the paper, and the options that are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from train.config import PRESETS, DrawnRegions, FitConfig, changed_config, fit_config
from train.errors import ConfigError
from train.method.pretrained_weights import random_weights


def test_paper_preset_is_section_4_1() -> None:
    config = PRESETS["paper"]
    assert (config.teacher, config.student) == ("wide_resnet50_2", "resnext50_32x4d")
    assert (config.image_size, config.batch_size, config.epochs, config.steps) == (256, 32, 200, None)
    assert (config.learning_rate, config.betas, config.schedule) == (1e-3, (0.9, 0.999), "constant")
    assert (config.alpha, config.mask_ratio) == (1.0, 0.5)
    assert (config.smoothing_sigma, config.pool_size, config.stage_weighting) == (4.0, 5, "equal")
    assert not config.freeze_batchnorm


def test_edge_preset_is_small_and_knows_its_name() -> None:
    config = PRESETS["edge"]
    assert (config.teacher, config.student) == ("tf_efficientnet_lite2", "tf_efficientnet_lite0")
    assert (config.image_size, config.epochs, config.weights) == (128, None, "pretrained")
    assert {name: preset.preset for name, preset in PRESETS.items()} == {"paper": "paper", "edge": "edge"}
    assert {preset.false_reject_rate for preset in PRESETS.values()} == {0.01}


def test_overrides_replace_their_fields_alone() -> None:
    config = fit_config("edge", {"mask_ratio": 0.25, "seed": 7})
    assert config == PRESETS["edge"].model_copy(update={"mask_ratio": 0.25, "seed": 7})


def test_steps_take_the_place_of_epochs_and_the_other_way_round() -> None:
    by_steps = fit_config("paper", {"steps": 12})
    assert (by_steps.steps, by_steps.epochs, by_steps.total_steps(1000)) == (12, None, 12)
    by_epochs = fit_config("edge", {"epochs": 3, "batch_size": 16})
    assert (by_epochs.steps, by_epochs.epochs) == (None, 3)


@pytest.mark.parametrize(
    ("n_images", "steps", "without_rest"),
    [(7, 200, 200), (32, 200, 200), (51, 400, 200), (64, 400, 400), (267, 1800, 1600)],
)
def test_an_epoch_of_the_paper_has_its_smaller_rest_too(n_images: int, steps: int, without_rest: int) -> None:
    """MVTec AD's toothbrush trains on 51 of its 60 good images: 400 steps."""
    assert PRESETS["paper"].total_steps(n_images) == steps
    assert fit_config("paper", {"drop_last": True}).total_steps(n_images) == without_rest


def test_edge_leaves_the_smaller_rest_out() -> None:
    """Its figures were measured so."""
    assert PRESETS["edge"].drop_last


def test_all_faults_are_told_at_once() -> None:
    overrides = {
        "image_size": 100,
        "mask_ratio": 1.0,
        "batch_size": 0,
        "epochs": 2,
        "steps": 3,
        "pool_size": 4,
        "learnig_rate": 1,
    }
    with pytest.raises(ConfigError) as caught:
        fit_config("paper", overrides)
    message = caught.value.message
    assert message.startswith("The options of this run cannot be used: ")
    assert "\n" not in message
    at_fault = {name: value for name, value in overrides.items() if name != "epochs"}
    for name, value in at_fault.items():
        assert f"{name}: " in message
        assert f"found {value!r}" in message


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("seed", (-1, 2**63, 10**23)),
        ("learning_rate", (0.0, -1e-3, 1.1, 1e30)),
        ("steps", (0, 10**8, 10**23)),
        ("epochs", (0, 10**8)),
        ("batch_size", (0, 10**23)),
        ("image_size", (0, 2080, 10**23)),
        ("mask_ratio", (-0.1, 1.0)),
        ("betas", ((0.9, 1.0), (-0.1, 0.9), (0.9,))),
        ("alpha", (-1.0, 1e30)),
        ("cosine_weight", (-1.0, 1e30)),
        ("generation_width", (0.0, 1e30)),
        ("holdout_ratio", (0.0, 1.0)),
        ("false_reject_rate", (0.0, 1e-300, 0.6)),
        ("pool_size", (0, 10**23 + 1)),
        ("validation_interval", (-1, 10**23)),
        ("plateau_patience", (0, 10**23)),
    ],
)
def test_numbers_out_of_range_are_refused_where_they_are_given(field: str, values: tuple[Any, ...]) -> None:
    for value in values:
        with pytest.raises(ConfigError, match=rf"used: {field}"):
            fit_config("edge", {field: value})


NUMBERS = [name for name, field in FitConfig.model_fields.items() if field.annotation is float]


@pytest.mark.parametrize("field", NUMBERS)
def test_what_is_no_number_is_refused_in_every_field(field: str) -> None:
    assert len(NUMBERS) >= 8
    for value in (float("nan"), float("inf"), float("-inf")):
        with pytest.raises(ConfigError, match=rf"used: {field}: .*, found -?(nan|inf)\.$"):
            fit_config("edge", {field: value})


def test_the_largest_seed_is_one_that_torch_and_numpy_take() -> None:
    seed = fit_config("edge", {"seed": 2**63 - 1}).seed
    torch.Generator().manual_seed(seed)
    np.random.default_rng(seed)
    random_weights("test_resnet", seed=seed)


def test_a_blur_that_is_wider_than_the_image_is_refused() -> None:
    assert fit_config("edge", {"smoothing_sigma": 64.0}).smoothing_sigma == 64
    with pytest.raises(
        ConfigError, match="smoothing_sigma: expected at most half the image_size, found 1000000"
    ):
        fit_config("edge", {"smoothing_sigma": 1e6})
    with pytest.raises(ConfigError, match=r"pool_size: .*2049, found 1000001"):
        fit_config("edge", {"pool_size": 1_000_001})


@pytest.mark.parametrize("overrides", [{"epochs": 1, "steps": 1}, {"epochs": None, "steps": None}])
def test_epochs_and_steps_are_one_choice(overrides: dict[str, int | None]) -> None:
    with pytest.raises(
        ConfigError, match="used: steps: give either epochs or steps, not both and not neither"
    ):
        fit_config("edge", overrides)


def test_a_field_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"learnig_rate: Extra inputs are not permitted, found 0\.1"):
        fit_config("edge", {"learnig_rate": 0.1})


def test_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"^Unknown preset 'tiny'; expected one of paper, edge\.$"):
        fit_config("tiny", {})


def test_config_survives_json() -> None:
    config = fit_config("edge", {"betas": (0.5, 0.9), "steps": 3})
    assert FitConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("preset", "overrides", "fault"),
    [
        (
            "edge",
            {"alpha": 0.5},
            "distance: goes without alpha, which the distance cosine has; expected cosine",
        ),
        (
            "edge",
            {"centered_stages": (3,), "cosine_weight": 0.5},
            "goes without centered_stages and cosine_weight",
        ),
        ("edge", {"neighbourhoods": (3, 2, 1)}, "expected three odd numbers"),
        ("edge", {"neighbourhoods": (3, 3)}, "neighbourhoods"),
        (
            "edge",
            {"distance": "cosine", "neighbourhoods": (3, 3, 1)},
            "compares single positions; expected 1,1,1",
        ),
        (
            "edge",
            {"distance": "cosine", "sharpening": (0, 4)},
            "takes one strength; expected a single number",
        ),
        ("edge", {"sharpening": (-1,)}, "sharpening"),
        ("edge", {"distance": "cosine", "common_factors": 4}, "the distance cosine has none; expected 0"),
        ("edge", {"image_size": "native", "common_factors": 4}, "at their own size have no places in common"),
        ("edge", {"sharpening": ()}, "sharpening"),
        ("paper", {"neighbourhoods": (3, 3, 1)}, "compares single positions; expected 1,1,1"),
        ("paper", {"score_share": 1.5}, "score_share"),
    ],
)
def test_an_option_of_the_other_distance_is_refused_and_never_passed_over(
    preset: str, overrides: dict[str, Any], fault: str
) -> None:
    with pytest.raises(ConfigError, match=fault):
        fit_config(preset, overrides)


def test_the_distance_cosine_brings_what_goes_with_it() -> None:
    config = fit_config("edge", {"distance": "cosine", "sharpening": (2.0,)})
    assert (config.neighbourhoods, config.sharpening) == ((1, 1, 1), (2.0,))
    assert fit_config("edge", {"distance": "cosine"}).sharpening == (0.0,)
    assert fit_config("edge", {"distance": "cosine"}).common_factors == 0


def test_a_run_without_common_factors_has_the_header_of_before() -> None:
    assert fit_config("edge", {"common_factors": 20}).model_dump()["common_factors"] == 20
    for preset, overrides in (
        ("edge", {"common_factors": 0}),
        ("edge", {"distance": "cosine"}),
        ("edge", {"image_size": "native"}),
        ("paper", {}),
    ):
        config = fit_config(preset, overrides)
        assert config.common_factors == 0
        assert "common_factors" not in config.model_dump()


def test_common_factors_come_back_with_a_size_for_all() -> None:
    native = fit_config("edge", {"image_size": "native"})
    usual = fit_config("edge", {}).common_factors
    assert usual > 0
    assert changed_config(native, {"image_size": 256}).common_factors == usual
    assert changed_config(native, {"image_size": 256, "common_factors": 4}).common_factors == 4
    assert changed_config(native, {"seed": 1}).common_factors == 0
    assert changed_config(native, {"image_size": 256, "distance": "cosine"}).common_factors == 0
    cosine = fit_config("edge", {"image_size": "native", "distance": "cosine"})
    assert changed_config(cosine, {"image_size": 256}).common_factors == 0
    without = fit_config("edge", {"common_factors": 0})
    assert changed_config(without, {"image_size": 256}).common_factors == 0


def test_the_share_that_scores_goes_with_the_size() -> None:
    native = fit_config("edge", {"image_size": "native"})
    assert native.score_share == 0.001
    assert (
        changed_config(native, {"image_size": 256}).score_share == fit_config("edge", {}).score_share == 0.01
    )
    assert changed_config(native, {"seed": 1}).score_share == 0.001
    assert changed_config(native, {"image_size": 256, "score_share": 0.05}).score_share == 0.05
    paper = fit_config("paper", {"image_size": "native"})
    assert changed_config(paper, {"image_size": 256}).score_share == paper.score_share == 0


def test_refused_regions_are_told_without_their_corners() -> None:
    regions = DrawnRegions(picture=(64, 64), ignore=(((0.0, 0.0), (9.0, 0.0), (0.0, 9.0)),))
    with pytest.raises(
        ConfigError, match=r"in place of auto, found 0 to inspect, 1 to ignore, drawn on 64 x 64 pixels\."
    ):
        fit_config("edge", {"align": "auto", "regions": regions})
