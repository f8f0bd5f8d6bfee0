"""What a run of the preset `paper` did otherwise than the paper."""

from __future__ import annotations

from train.checkpoint.provenance import Provenance
from train.checkpoint.tensors import Checkpoint
from train.config import fit_config
from train.evaluation.evaluate import Evaluation
from train.evaluation.protocol import deviations_from_paper
from train.evaluation.report import render_report


def provenance(checkpoint: Checkpoint) -> Provenance:
    return checkpoint.provenance.model_copy(update={"n_train": 178, "n_held_out": 31})


def test_the_papers_own_options_depart_in_the_held_out_images_alone(checkpoint: Checkpoint) -> None:
    config = fit_config("paper", {"seed": 3, "false_reject_rate": 0.05})
    (sentence,) = deviations_from_paper(config, provenance(checkpoint))
    assert sentence.startswith(
        "31 of 209 good images were held out to fit the thresholds on; the paper trains on all"
    )


def test_other_options_are_named_with_the_papers(checkpoint: Checkpoint) -> None:
    config = fit_config("paper", {"image_size": 128, "steps": 50})
    _, sentence = deviations_from_paper(config, provenance(checkpoint))
    assert sentence == (
        "Other options than the paper's: image_size 128 (the paper: 256), epochs None (the paper: 200), "
        "steps 50 (the paper: None)."
    )


def test_another_preset_promises_nothing_about_the_paper(checkpoint: Checkpoint) -> None:
    assert deviations_from_paper(fit_config("edge", {}), provenance(checkpoint)) == []


def test_the_report_says_them(evaluation: Evaluation, checkpoint: Checkpoint) -> None:
    sentence = "31 of 209 good images were held out"
    said = Evaluation(
        evaluation.metrics | {"deviations_from_paper": [sentence]}, evaluation.judged, evaluation.pixels
    )
    assert f'<div class="note">{sentence}</div>' in render_report(said, checkpoint)
