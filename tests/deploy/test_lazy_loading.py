"""Which category goes, and what of it; `tests/test_lazy_loading.py` does it on a real server."""

from __future__ import annotations

from deploy.lazy_loading import (
    MIN_LOADED_S,
    last_used_s,
    loaded_categories,
    models_of,
    own_models,
    too_many,
)

LONG_AGO = dict.fromkeys(("bolt", "nut", "screw"), 0.0)
USED = {"bolt": 30.0, "nut": 10.0, "screw": 20.0}


def test_the_longest_unused_go_first() -> None:
    assert too_many(USED, seen_s=LONG_AGO, now_s=100, keep=2) == ["nut"]
    assert too_many(USED, seen_s=LONG_AGO, now_s=100, keep=1) == ["nut", "screw"]
    assert too_many(USED, seen_s=LONG_AGO, now_s=100, keep=3) == []
    assert too_many(USED, seen_s=LONG_AGO, now_s=100, keep=9) == []


def test_what_was_just_loaded_stays_a_moment() -> None:
    seen_s = {**LONG_AGO, "nut": 100 - MIN_LOADED_S + 0.1, "screw": 100 - MIN_LOADED_S}
    assert too_many(USED, seen_s=seen_s, now_s=100, keep=1) == ["screw"]


def test_either_ensemble_and_the_student_count_as_use() -> None:
    steps = ["image_decoder", "teacher_x", "distance_fusion"]
    own = own_models(
        {
            "nut": ["nut", "nut_encoded", "nut_student_fp16", *steps],
            "nut_students": ["nut_students", "nut_students_encoded", "nut_students_student", *steps],
            "bolt": ["bolt", "bolt_encoded", "bolt_student", *steps],
        }
    )
    assert own["nut"] == {"nut", "nut_encoded", "nut_student_fp16"}
    asked_s = {
        **{"nut": 5.0, "nut_encoded": 9.0, "nut_student_fp16": 0.0, "nut_students_student": 50.0},
        **{"teacher_x": 60.0, "distance_fusion": 70.0},
    }
    assert last_used_s(own["nut"], asked_s) == 9
    assert last_used_s(own["nut"], asked_s | {"nut_student_fp16": 11.0}) == 11
    assert last_used_s(own["bolt"], asked_s) == 0


def test_what_the_supervisor_asks_is_no_use() -> None:
    asked_s = {"nut": 9.0, "nut_student": 12.0}
    assert last_used_s(asked_s, asked_s, probed_s=(11.9, 12.1)) == 9
    assert last_used_s(asked_s, asked_s, probed_s=(11.9, float("inf"))) == 9
    assert last_used_s(asked_s, asked_s, probed_s=(12.1, 12.2)) == 12


def test_a_category_that_is_alone_does_not_own_the_committed_backends() -> None:
    assert own_models({"nut": ["nut", "nut_student", "distance_fusion"]}) == {"nut": {"nut", "nut_student"}}


def test_a_category_is_loaded_with_either_of_its_ensembles() -> None:
    ready = {"bolt", "nut_encoded", "screw_student", "teacher_x"}
    assert loaded_categories(ready, set(LONG_AGO)) == {"bolt", "nut"}


def test_steps_that_others_use_stay() -> None:
    fused = ["distance_fusion"]
    steps_of = {
        "bolt": ["teacher_x", "bolt_student", *fused],
        "nut": ["teacher_x", "nut_student", *fused],
        "nut_encoded": ["image_decoder_64", "teacher_x", "nut_student", *fused],
        "teacher_x": [],
    }
    assert models_of(["nut", "nut_encoded"], steps_of) == [
        "nut", "nut_encoded", "nut_student", "image_decoder_64",
    ]  # fmt: skip
    del steps_of["bolt"]
    assert models_of(["nut", "nut_encoded"], steps_of) == [
        "nut", "nut_encoded", "teacher_x", "nut_student", "image_decoder_64",
    ]  # fmt: skip
