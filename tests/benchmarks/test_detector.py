"""The benchmark of the detector: the table, the goals, and that nothing is measured twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.detector import measuring
from tests.benchmarks.detector.__main__ import parse_arguments
from tests.benchmarks.detector.figure import auroc_figure
from tests.benchmarks.detector.measuring import Measured, Study, draw_good, measure_category
from tests.benchmarks.detector.results import cells_of, detector_table, goals_line, goals_of
from tests.conftest import TINY_OPTIONS
from train.data.category import CategoryData
from train.errors import DataError
from train.support.devices import Runtime

OVERRIDES = {name: value for name, value in TINY_OPTIONS.items() if name != "batch_size"}


def study_in(runs_dir: Path, **fields: Any) -> Study:
    study = Study(OVERRIDES, (0,), None, True, runs_dir, Runtime("cpu", strict=True), code="code of today")
    return replace(study, **fields)


Measures = tuple[float, float | None, float | None]  # image AUROC, pixel AUROC, PRO


def results_of(where: tuple[str, str], **by_method: list[Measures]) -> list[Measured]:
    """A result for each seed of each method."""
    return [
        Measured(*where, method, seed, *measures, 100 + seed, n_train=14, batch_size=14, code="code of today")
        for method, by_seed in by_method.items()
        for seed, measures in enumerate(by_seed)
    ]


PILL = results_of(
    ("synthetic", "pill"),
    edge=[(0.99, 0.98, 0.9), (1.0, 0.98, 0.92)],
    padim=[(0.998, 0.9899, 0.90), (0.998, 0.9901, 0.90)],
    patchcore=[(0.969, 0.979, 0.91), (0.969, 0.979, 0.91)],
)
MONO = results_of(
    ("elpv", "mono"),
    edge=[(0.9619, None, None)],
    padim=[(0.953, None, None)],
    patchcore=[(0.9619, None, None)],
)


def test_the_table_has_the_means_and_the_best_in_bold(tmp_path: Path) -> None:
    table = detector_table(PILL + MONO, study_in(tmp_path, seeds=(0, 1)))
    assert table.columns == ("", "`edge`", "PaDiM", "PatchCore", "s of training, `edge`")
    assert table.rows == (
        ("synthetic/pill", "0.9950 / 0.9800 / **0.9100**", "**0.9980** / **0.9900** / 0.9000",
         "0.9690 / 0.9790 / **0.9100**", "100"),
        ("elpv/mono", "**0.9619** / - / -", "0.9530 / - / -", "**0.9619** / - / -", "100"),
        ("mean of 2", "**0.9785** / 0.9800 / **0.9100**", "0.9755 / **0.9900** / 0.9000",
         "0.9654 / 0.9790 / **0.9100**", "100"),
    )  # fmt: skip
    assert "all good images, mean of seeds 0, 1" in table.title
    assert any("UNTRAINED" in note for note in table.notes)
    assert any("SYNTHETIC" in note for note in table.notes)
    (alone,) = detector_table([r for r in MONO if r.method == "edge"], study_in(tmp_path, peers=False)).rows
    assert alone == ("elpv/mono", "0.9619 / - / -", "100")  # the best of one is nothing


def test_goals_are_the_better_peer_and_with_all_images_the_issues_figures() -> None:
    goals = goals_of(PILL + MONO, n_images=None)
    assert [(goal.name, goal.cleared) for goal in goals] == [
        ("synthetic/pill image AUROC beside PaDiM", False),
        ("synthetic/pill image AUROC", False),
        ("synthetic/pill pixel AUROC beside PaDiM", False),
        ("synthetic/pill PRO beside PatchCore", True),
        ("elpv/mono image AUROC beside PatchCore", True),
        ("elpv/mono image AUROC", False),
    ]
    assert goals_line(goals) == (
        "Goals: 2 of 6 hold. Not: synthetic/pill image AUROC beside PaDiM (0.9950, goal 0.9980); synthetic/pill image "
        "AUROC (0.9950, goal 0.9980); synthetic/pill pixel AUROC beside PaDiM (0.9800, goal 0.9900); elpv/mono image "
        "AUROC (0.9619, goal 0.9620). Hold: synthetic/pill PRO beside PatchCore; elpv/mono image AUROC beside "
        "PatchCore."
    )
    assert len(goals_of(PILL + MONO, n_images=20)) == 3 + 1
    # MVTec AD's pill is another one.
    assert len(goals_of([replace(result, dataset="mvtec_ad") for result in PILL], n_images=None)) == 3
    assert goals_line([]) == "Goals: none to compare with."


def test_beside_a_peer_that_failed_nothing_holds() -> None:
    failed = replace(MONO[1], image_auroc=None, fault="no anomalib.")
    (beside, alone) = goals_of([MONO[0], failed, MONO[2]], n_images=None)
    assert (beside.value, beside.verdict) == (None, "failed")
    assert alone.value == 0.9619


def test_a_mean_over_fewer_seeds_than_were_asked_for_is_none(tmp_path: Path) -> None:
    results = [replace(MONO[0], seed=1, image_auroc=None, fault="it cannot be read."), *MONO]
    cells = cells_of(results)["elpv", "mono"]
    assert (cells["edge"].means["image_auroc"], cells["padim"].means["image_auroc"]) == (None, 0.953)
    table = detector_table(results, study_in(tmp_path))
    assert table.rows == (("elpv/mono", "failed", "0.9530 / - / -", "**0.9619** / - / -", "failed"),)
    assert "Failed: elpv/mono, seed 1, edge: it cannot be read." in table.notes
    assert not any(goal.cleared for goal in goals_of(results, n_images=None))
    assert "0 of 2 hold" in goals_line(goals_of(results, n_images=None))
    assert "(failed, goal 0.9620)" in goals_line(goals_of(results, n_images=None))


def test_images_are_drawn_by_the_seed_and_fewer_are_among_more(tiny_data: CategoryData) -> None:
    few, more = (draw_good(tiny_data, n_images=n, seed=3).train_good for n in (5, 10))
    assert (len(few), len(more), set(few) < set(more)) == (5, 10, True)
    assert more == tuple(sorted(more))
    assert draw_good(tiny_data, n_images=5, seed=4).train_good != few
    assert draw_good(tiny_data, n_images=None, seed=3) is tiny_data
    with pytest.raises(DataError, match="has 16 good images; expected at least the 17"):
        draw_good(tiny_data, n_images=17, seed=0)


def test_what_was_measured_is_read_and_measured_anew_where_something_changed(
    tiny_data: CategoryData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_in(tmp_path, n_images=10)
    results = list(measure_category(tiny_data, study))
    assert [(r.method, r.n_train, r.fault) for r in results] == [
        ("edge", 8, None), ("padim", 9, None), ("patchcore", 9, None),
    ]  # fmt: skip
    assert results[0].batch_size == 8  # the preset's is 16
    assert all(0 <= getattr(r, name) <= 1 for r in results for name in ("image_auroc", "pixel_auroc", "pro"))
    assert not list(tmp_path.rglob("*.safetensors"))
    assert any("PatchCore keeps 10 % of" in note for note in detector_table(results, study).notes)
    assert any("batches of 8" in note for note in detector_table(results, study).notes)

    trained = []

    def no_training(data: CategoryData, **options: Any) -> None:
        trained.append((len(data.train_good), options["config"].smoothing_sigma))
        raise DataError("not now")

    monkeypatch.setattr("train.studies.ablation.run.fit_and_evaluate", no_training)
    monkeypatch.setattr("train.studies.baselines.run.load_inputs", no_training)
    assert list(measure_category(tiny_data, study)) == results
    assert trained == []
    wider = study_in(tmp_path, n_images=10, peers=False, overrides=OVERRIDES | {"smoothing_sigma": 8.0})
    (failed,) = measure_category(tiny_data, wider)
    assert (failed.fault, failed.image_auroc) == ("not now", None)
    assert [r.fault for r in measure_category(tiny_data, study_in(tmp_path, n_images=12))] == ["not now"] * 3
    assert trained == [(10, 8.0), (12, 2.0), (12, 4.0), (12, 4.0)]

    # Of other code it is read and that is said, or trained anew.
    later = replace(study, code="code of tomorrow", peers=False)
    assert list(measure_category(tiny_data, later)) == results[:1]
    assert any(
        "1 of 1 results of `edge` are from before" in note
        for note in detector_table(results[:1], later).notes
    )
    (renewed,) = measure_category(tiny_data, replace(later, renew=True))
    assert renewed.fault == "not now"


def test_the_codes_fingerprint_is_of_what_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "ROOT", tmp_path)
    monkeypatch.setattr(measuring, "DECIDING_CODE", ("train", "one.py"))
    (tmp_path / "train").mkdir()
    (tmp_path / "one.py").write_text("", encoding="utf-8")
    fingerprints = []
    for text in ("a = 1\n", "a = (1)  # of these\n", "a = 2\n"):
        (tmp_path / "train" / "part.py").write_text(text, encoding="utf-8")
        fingerprints.append(measuring.code_fingerprint())
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_the_figure_has_every_method_and_set() -> None:
    figure = auroc_figure(PILL + MONO)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["pill\nsynthetic", "mono\nelpv"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["edge", "PaDiM", "PatchCore"]
    assert auroc_figure([replace(PILL[0], image_auroc=None, fault="failed")]).axes


def test_options_are_read_or_refused(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "--set",
        "steps=2",
        "--set",
        "centered_stages=2,3",
        "--set",
        "schedule=constant",
        "--seeds",
        "0,2",
    ]
    asked = parse_arguments([*arguments, "--no-peers"])
    assert dict(asked.set) == {"steps": 2, "centered_stages": ("2", "3"), "schedule": "constant"}
    assert (asked.seeds, asked.peers, len(asked.categories), asked.images) == ((0, 2), False, 8, None)
    for wrong in (
        ["--set", "stpes=2"],
        ["--set", "seed=1"],
        ["--seeds", "0,x"],
        ["--images", "1"],
        ["--categories", ""],
    ):
        with pytest.raises(SystemExit) as refused:
            parse_arguments(wrong)
        assert refused.value.code == 2
        assert "expected" in capsys.readouterr().err
