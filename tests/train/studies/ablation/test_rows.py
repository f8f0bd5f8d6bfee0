"""The rows of the ablations say what the paper's tables say."""

from __future__ import annotations

import pytest

from train.config import FitConfig, fit_config
from train.studies.ablation.rows import (
    ABLATIONS,
    Networks,
    StudentWeights,
    figure_6,
    run_name,
    table_4,
    table_7,
)
from train.studies.paper_figures import UNKNOWN, Auroc

WIDE, NEXT, RESNET = "wide_resnet50_2", "resnext50_32x4d", "resnet50"
PAPERS = Networks.of_preset("paper")


def configs(name: str, preset: str = "paper", identical: StudentWeights = "scratch") -> list[FitConfig]:
    ablation = ABLATIONS[name](Networks.of_preset(preset, identical_student=identical))
    return [fit_config(preset, row.overrides) for row in ablation.rows]


def test_networks_are_the_presets_unless_named() -> None:
    assert Networks(WIDE, NEXT, RESNET) == PAPERS
    assert Networks.of_preset("edge", wide="a").wide == "a"
    assert Networks.of_preset("edge").resnet == "tf_efficientnet_lite1"


def test_table_4_switches_blocks_and_masks_and_the_students_network() -> None:
    pairs = [(c.student, c.student_weights, c.generation_stages) for c in configs("table-4")]
    assert pairs == [
        (WIDE, "scratch", ()),
        (NEXT, "pretrained", ()),
        (WIDE, "scratch", (1, 2, 3)),
        (NEXT, "pretrained", (1, 2, 3)),
    ]
    assert [row.paper for row in table_4(PAPERS).rows] == [
        Auroc(96.0, 97.0),
        Auroc(96.5, 97.3),
        Auroc(98.4, 97.9),
        Auroc(98.7, 98.0),
    ]


def test_identical_pairs_start_as_asked() -> None:
    weights = [config.student_weights for config in configs("table-6", identical="pretrained")]
    assert weights == ["pretrained"] * 4
    scratch = configs("table-6", preset="edge")
    assert [config.student_weights for config in scratch] == ["scratch"] * 3 + ["pretrained"]
    assert [config.freeze_batchnorm for config in scratch] == [False] * 3 + [True]


def test_table_7_has_the_student_from_scratch_and_six_pairs() -> None:
    pairs = [(c.teacher, c.student, c.student_weights) for c in configs("table-7")]
    assert pairs[0] == (WIDE, NEXT, "scratch")
    assert len(set(pairs[1:])) == 6
    assert all(teacher != student and weights == "pretrained" for teacher, student, weights in pairs[1:])
    known = {row.label: row.paper for row in table_7(PAPERS).rows if row.paper != UNKNOWN}
    assert known == {
        (WIDE, NEXT, "pretrained"): Auroc(98.7, 98.0),
        (WIDE, RESNET, "pretrained"): Auroc(98.5, 98.0),
    }


def test_table_8_has_every_subset_of_stages() -> None:
    assert len({config.generation_stages for config in configs("table-8")}) == 8
    labels = [row.label for row in ABLATIONS["table-8"](PAPERS).rows]
    assert (labels[0], labels[5]) == (("", "", ""), ("✓", "", "✓"))


def test_figure_6_has_ratios_and_no_figures_of_the_paper() -> None:
    assert [config.mask_ratio for config in configs("figure-6")] == [0.1, 0.3, 0.5, 0.7, 0.9]
    assert {row.paper for row in figure_6(PAPERS).rows} == {UNKNOWN}


def test_the_whole_method_is_one_run_for_all_tables() -> None:
    whole = run_name(fit_config("paper", {}))
    assert whole == "wide_resnet50_2-resnext50_32x4d-pretrained-stages-123-mask-0.5"
    for name in ABLATIONS:
        assert [run_name(config) for config in configs(name)].count(whole) == 1
    assert "-stages-none-" in run_name(configs("table-4")[0])


@pytest.mark.parametrize("name", ABLATIONS)
def test_names_tell_all_runs_apart(name: str) -> None:
    folders = [run_name(config) for config in configs(name)]
    assert len(set(folders)) == len(folders)
