"""A release leaves a repository as one file and comes into another: checked wholly, shared by its bytes, not live."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from export.errors import PublishError
from export.releases.audit import entries
from export.releases.audit.signatures import Signer, make_keys
from export.releases.bundles.archive import SEAL, SEAL_LENGTH, write_archive
from export.releases.bundles.contents import about, members_of
from export.releases.publish import Circumstances, publish_category
from export.releases.repository import Repository
from export.releases.store import Live, Store
from export.releases.switch import require_whole
from export.releases.verbs.audit import lines_of
from export.releases.verbs.bundle import bundle_release, import_bundle
from export.releases.verbs.check import check
from export.releases.verbs.promote import promote
from export.releases.verbs.prune import prune
from export.releases.verbs.retune import Retuning, retune
from export.serving.backbones import Platform
from export.serving.onnx_files import read_onnx_file
from tests.conftest import CATEGORY
from tests.export.releases.conftest import TEACHER, contents, publish, with_another_teacher
from tests.export.releases.test_verbs import deploy
from tests.no_torch import run_without_torch
from train.errors import DataError, UserError


@pytest.fixture
def packed(pill: Path, repository: Path, tmp_path: Path) -> Path:
    """The first release of pill as a file."""
    publish(pill, repository)
    bundle_release(repository, CATEGORY, 1, tmp_path / "pill-1.bundle")
    return tmp_path / "pill-1.bundle"


@pytest.fixture
def line(tmp_path: Path) -> Path:
    """The empty repository of a PC at the line."""
    folder = tmp_path / "line"
    folder.mkdir()
    return folder


def test_a_release_goes_into_an_empty_repository_and_serves_as_it_did(
    packed: Path, repository: Path, line: Path
) -> None:
    said = run_without_torch("deploy", "import", packed, "--repository", line)
    assert "make it live with `python -m deploy promote 1 --category pill --repository" in said
    there, here = Store(repository).read(CATEGORY, 1), Store(line).read(CATEGORY, 1)
    assert Store(line).live(CATEGORY) is None
    assert not list(line.glob("*/config.pbtxt"))
    for name, step in here.steps.items():
        assert step.files == there.steps[name].files
    require_whole(Repository(line), here)
    assert check(line).faults == []
    assert (here.release_id, here.published, here.number) == (there.release_id, there.published, 1)
    run_without_torch("deploy", "promote", 1, "--category", CATEGORY, "--repository", line)
    for ensemble in (CATEGORY, f"{CATEGORY}_encoded"):
        config, expected = (Repository(root).read_config(ensemble) for root in (line, repository))
        assert config is not None
        assert expected is not None
        for step in (*config.ensemble_scheduling.step, *expected.ensemble_scheduling.step):
            step.model_version = 0  # the project's own code takes none here
        assert config == expected
    assert (line / here.steps["decoder"].model / "warmup" / "encoded_image").is_file()
    assert not [path for path in line.iterdir() if path.name.startswith(".") and path.name != ".releases"]


def test_packing_twice_gives_the_same_bytes(packed: Path, repository: Path, tmp_path: Path) -> None:
    first = packed.read_bytes()
    code, said = deploy(
        "bundle", 1, "--category", CATEGORY, "--repository", repository, "-o", tmp_path / "again.bundle"
    )
    assert (code, (tmp_path / "again.bundle").read_bytes()) == (0, first)
    assert "Packed: release 1 of pill" in said
    assert "in place of" in bundle_release(repository, CATEGORY, 1, packed)
    names = zipfile.ZipFile(packed).namelist()
    assert names[:2] == ["bundle.json", "decoder/__pycache__"]
    assert {"record.json", "student/model.onnx", "teacher/model.onnx", "fusion/map_fusion.py"} <= set(names)


def test_importing_twice_changes_nothing(packed: Path, line: Path, repository: Path) -> None:
    import_bundle(line, packed)
    for root in (line, repository):  # where it comes from too
        before = contents(root)
        record, said = import_bundle(root, packed)
        assert said.startswith("Up to date")
        assert record.number == 1
        assert contents(root) == before
    _, output = deploy("import", packed, "--repository", repository)
    assert output.endswith("already; it is live.\n")


def test_versions_are_shared_by_their_bytes(
    packed: Path, pill: Path, nut: Path, line: Path, repository: Path, tmp_path: Path
) -> None:
    """The teacher is here already, brought by another category: its graph is the same, its manifest is not."""
    publish(nut, shutil.copytree(repository, tmp_path / "both"))
    other = shutil.copytree(tmp_path / "both", tmp_path / "other", ignore=shutil.ignore_patterns("*pill*"))
    shutil.rmtree(other / ".releases" / "records" / CATEGORY, ignore_errors=True)
    versions = sorted(path for path in other.glob("*/*") if path.name.isdecimal())
    before = {path: path.stat().st_mtime_ns for path in versions}
    record, said = import_bundle(other, packed)
    assert "added pill_student/1; 3 steps were here already" in said
    assert record.steps["teacher"].version == 1
    assert {path: path.stat().st_mtime_ns for path in versions} == before
    # Published there first by nut, whose manifest lies beside the same graph.
    first = publish_into(line, nut, repository)
    record, said = import_bundle(first, packed)
    assert record.steps["teacher"].version == 1
    assert "added pill_student/1" in said
    require_whole(Repository(first), record)
    assert import_bundle(first, packed)[1].startswith("Up to date")


def publish_into(line: Path, build: Path, repository: Path, **platform: Any) -> Path:
    for model in ("distance_fusion", "foreground", "image_decoder"):
        shutil.copytree(
            repository / model,
            line / model,
            ignore=lambda _, names: [n for n in names if (n.isdecimal() and n != "1") or n == "config.pbtxt"],
        )
    publish(build, line, **platform)
    return line


def test_another_release_of_that_number_is_here(
    packed: Path, pill: Path, line: Path, repository: Path, tmp_path: Path
) -> None:
    publish_into(line, with_another_teacher(pill, tmp_path / "newer" / CATEGORY, "newer"), repository)
    before = contents(line)
    code, said = deploy("import", packed, "--repository", line)
    assert code == 0, said
    assert "Imported: release 2 of pill" in said
    assert "number 1 where it was packed" in said
    assert f"added {TEACHER}/2" in said
    after = contents(line)
    changed = {
        name for name in before if after[name] != before[name]
    }  # nothing that is served, and no version
    assert changed == {".releases/audit.jsonl", ".releases/audit.head.json"}
    store = Store(line)
    assert (store.live(CATEGORY), store.read(CATEGORY, 2).steps["teacher"].version) == (Live(1), 2)
    code, said = deploy("import", packed, "--repository", line, "--promote")
    assert code == 0, said
    assert "Live: release 2 of pill" in said
    assert store.live(CATEGORY) == Live(2, 1, 1)


def test_a_later_number_stays_what_it_is(packed: Path, line: Path, repository: Path, tmp_path: Path) -> None:
    retune(repository, CATEGORY, Retuning(threshold=9.5), url=None)
    bundle_release(repository, CATEGORY, 2, tmp_path / "second.bundle")
    record, said = import_bundle(line, tmp_path / "second.bundle")
    assert (record.number, record.retuned_from) == (2, 1)
    assert "where it was packed" not in said
    assert import_bundle(line, packed)[0].number == 3


def test_a_clock_that_was_set_back_is_told(
    packed: Path, line: Path, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_bundle(line, packed)
    retune(repository, CATEGORY, Retuning(threshold=9.5), url=None)
    bundle_release(repository, CATEGORY, 2, tmp_path / "second.bundle")
    now = entries.published_now

    def set_clock(year: int) -> None:
        at = f"{year}-01-01T00:00:00+00:00"
        monkeypatch.setattr(entries, "published_now", lambda why: now(why).model_copy(update={"at": at}))

    set_clock(2002)
    _, said = import_bundle(line, tmp_path / "second.bundle")
    assert re.search(r"; the clock of \S+ says 2002-.*, and line 1 of the audit log is of 2", said)
    set_clock(2001)
    said = prune(line, 1, apply=True)[-2]
    assert re.search(
        r"^The clock of \S+ says 2001-.*, and line 2 of the audit log is of 2002-.*; set the clock\.$", said
    )
    assert (len(check(line).notes), check(line).faults) == (2, [])


def test_what_is_gone_is_restored(packed: Path, repository: Path) -> None:
    shutil.rmtree(repository / "pill_student" / "1")
    with pytest.raises(PublishError, match="is gone"):
        promote(repository, CATEGORY, 1)
    assert import_bundle(repository, packed)[1].startswith("Restored: release 1 of pill")
    promote(repository, CATEGORY, 1)


def test_every_changed_byte_is_found(packed: Path, line: Path) -> None:
    """At every place of the small parts, and here and there in the graphs."""
    whole, damaged = packed.read_bytes(), packed.with_name("damaged.bundle")
    step = max(1, len(whole) // 40)
    places = {
        *range(0, len(whole), step),
        *range(0, 60, 5),
        *range(len(whole) - 400, len(whole), 13),
        len(whole) - 1,
    }
    for place in sorted(places):
        damaged.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(UserError) as refused:
            import_bundle(line, damaged)
        assert "\n" not in refused.value.message
    place = whole.index(b"student/model.onnx", whole.index(b"PK", 100)) + 500
    damaged.write_bytes(whole[:place] + b"?" + whole[place + 1 :])
    with pytest.raises(PublishError, match=r"damaged\.bundle: its \S+ (was changed|cannot be read)"):
        import_bundle(line, damaged)
    for length in (0, 10, 100, len(whole) // 2, len(whole) - 1):
        damaged.write_bytes(whole[:length])
        with pytest.raises(PublishError, match=r"is cut short|is no bundle"):
            import_bundle(line, damaged)
    damaged.write_bytes(whole + b"\n")
    with pytest.raises(PublishError, match="is cut short, or was changed at its end"):
        import_bundle(line, damaged)
    assert list(line.iterdir()) == []


def repacked(
    repository: Path,
    path: Path,
    *,
    record: Callable[[dict[str, Any]], Any] = lambda _: None,
    members: Callable[[dict[str, Path | bytes]], Any] = lambda _: None,
    index: dict[str, Any] | None = None,
) -> Path:
    """A whole, sealed bundle of what no release is."""
    kept = Store(repository).read(CATEGORY, 1)
    values = json.loads(kept.to_json())
    record(values)
    packed = members_of(repository, kept)
    packed["record.json"] = json.dumps(values).encode()
    members(packed)
    write_archive(path, packed, {**about(kept), **(index or {})})
    return path


def rename_step(name: str, model: str) -> Callable[[dict[str, Any]], None]:
    def change(values: dict[str, Any]) -> None:
        values["steps"][name]["model"] = model

    return change


def escaping(values: dict[str, Any]) -> None:
    values["steps"]["student"]["files"]["../../../escaped"] = values["steps"]["student"]["files"]["model.py"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"index": {"schema_number": 2}},
            r"bundle of schema 2, and this version reads 1; use the version of",
        ),
        ({"index": {"schema_number": 0}}, r"bundle of schema 0, and this version reads 1; pack the release"),
        ({"index": {"format": "other"}}, r"is no bundle; expected a file that"),
        ({"index": {"number": 9}}, r"speaks of another release than its record"),
        (
            {"record": lambda values: values.update(schema_number=99)},
            r"record of schema 99, and this version",
        ),
        ({"record": lambda values: values.pop("steps")}, r"cannot be used as a record"),
        (
            {"record": lambda values: values.update(auroc=float("nan"))},
            r"its record\.json cannot be used as a record \(1 faults; the first: auroc: Input should be a finite",
        ),
        (
            {"record": lambda values: values.update(probes=[{"png": "?", "score": 1.0}])},
            r"cannot be used as a record \(1 faults; the first: probes\.0\.png: Value error, it is no base64",
        ),
        (
            {"record": lambda values: values.update(schema_number=0)},
            r"its record\.json is a record of schema 0, .* reads it, or publish the release again",
        ),
        ({"record": lambda values: values.update(release_id=7), "index": {"release_id": 7}}, r"come to \d+"),
        ({"record": lambda values: values["calibration"].update(image_threshold=9.0)}, r"come to \d+;"),
        (
            {"record": rename_step("teacher", "../../teacher")},
            r"steps\.teacher\.model: .*'\.\./\.\./teacher' is no safe name of a file or folder",
        ),
        (
            {"record": rename_step("teacher", "other_teacher")},
            r"its steps are .*; expected \{'decoder': 'image_decoder_64'",
        ),
        ({"record": rename_step("student", "nut_student")}, r"its steps are .*'student': 'nut_student'"),
        (
            {
                "record": escaping,
                "members": lambda all_of_it: all_of_it.update({"student/../../../escaped": b""}),
            },
            r"cannot be used as a record .*'\.\./\.\./\.\./escaped' is no safe name of a file or folder; expected",
        ),
        ({"members": lambda all_of_it: all_of_it.update({"../escaped": b""})}, r"belongs to no step of it"),
        ({"members": lambda all_of_it: all_of_it.update({"notes.txt": b""})}, r"'notes.txt' belongs to no"),
        (
            {"members": lambda all_of_it: all_of_it.pop("student/model.onnx")},
            r"'student/model.onnx' is missing",
        ),
        (
            {"members": lambda all_of_it: all_of_it.update({"teacher/model.onnx": b"x"})},
            r"is not the file of its",
        ),
        (
            {"members": lambda all_of_it: all_of_it.pop("warmup/encoded_image")},
            r"'warmup/encoded_image' is missing",
        ),
    ],
)
def test_a_bundle_that_is_no_release_is_refused(
    pill: Path, repository: Path, line: Path, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    publish(pill, repository)
    path = repacked(repository, tmp_path / "odd.bundle", **changes)
    with pytest.raises(PublishError, match=sentence) as refused:
        import_bundle(line, path)
    assert "\n" not in refused.value.message
    assert list(line.iterdir()) == []
    assert not (tmp_path / "escaped").exists()


@pytest.mark.parametrize(
    "index", [b"[]", b'{"members": []}', b'{"members": {"a": 1}}', b"7", b"\xff", b"[" * 9999]
)
def test_a_sealed_file_with_an_index_of_another_form_is_refused(
    line: Path, tmp_path: Path, index: bytes
) -> None:
    path = tmp_path / "odd.bundle"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bundle.json", index)
        archive.comment = SEAL + b"0" * 64
    content = path.read_bytes()[:-SEAL_LENGTH]
    path.write_bytes(content + SEAL + hashlib.sha256(content).hexdigest().encode())
    with pytest.raises(PublishError, match=r"odd\.bundle was changed since it was packed \(") as refused:
        import_bundle(line, path)
    assert "\n" not in refused.value.message
    assert list(line.iterdir()) == []


@pytest.mark.parametrize("category", ["distance_fusion", "x_encoded"])
def test_a_category_called_like_a_model_is_refused(
    pill: Path, repository: Path, line: Path, tmp_path: Path, category: str
) -> None:
    publish(pill, repository)

    def rename(values: dict[str, Any]) -> None:
        values["category"] = category

    path = repacked(repository, tmp_path / "odd.bundle", record=rename, index={"category": category})
    with pytest.raises(DataError, match=rf"Category '{category}'"):
        import_bundle(line, path)
    assert list(line.iterdir()) == []


def test_what_is_no_bundle_and_no_repository_is_told(packed: Path, line: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "photos"
    foreign.mkdir()
    (foreign / "a.png").write_bytes(b"png")
    for root, path, sentence in (
        (line, tmp_path / "missing.bundle", r"missing\.bundle cannot be read \(No such file or directory\)"),
        (line, foreign, r"photos cannot be read \(Is a directory\)"),
        (line, foreign / "a.png", r"a\.png is no bundle"),
        (foreign, packed, r"photos holds files and is no model repository"),
        (tmp_path / "nowhere", packed, r"nowhere is no folder"),
    ):
        with pytest.raises(PublishError, match=sentence):
            import_bundle(root, path)
    assert [list(line.iterdir()), [path.name for path in foreign.iterdir()]] == [[], ["a.png"]]
    assert not (tmp_path / "nowhere").exists()


def test_another_categorys_model_of_that_name_is_not_replaced(packed: Path, line: Path) -> None:
    (line / "pill").mkdir()
    (line / "pill" / "config.pbtxt").write_text('name: "pill"\nbackend: "python"\n')
    before = contents(line)
    with pytest.raises(PublishError, match=r"is that of a model, and publishing 'pill' would replace it"):
        import_bundle(line, packed)
    assert contents(line) == before


def test_a_teacher_that_is_served_on_another_platform_to_another_category_is_refused(
    packed: Path, nut: Path, line: Path, repository: Path
) -> None:
    publish_into(line, nut, repository, name="onnxruntime")
    before = contents(line)
    with pytest.raises(
        PublishError,
        match=rf"^nut is served over {TEACHER} on platform onnxruntime \(cpu\), and release 1 of 'pill' wants python",
    ):
        import_bundle(line, packed)
    assert contents(line) == before


def test_what_cannot_be_packed_is_told(packed: Path, repository: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(PublishError, match=r"notes\.txt is there and is no bundle"):
        bundle_release(repository, CATEGORY, 1, tmp_path / "notes.txt")
    with pytest.raises(PublishError, match=r"has no release 4 of 'pill'"):
        bundle_release(repository, CATEGORY, 4, tmp_path / "new.bundle")
    graph = repository / "pill_student" / "1" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"?")
    before = packed.read_bytes()
    with pytest.raises(PublishError, match=r"pill_student/1/model\.onnx is not the file of release 1"):
        bundle_release(repository, CATEGORY, 1, packed)
    assert packed.read_bytes() == before
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    make_keys(tmp_path / "key")
    return tmp_path / "key"


def publish_signed(build: Path, repository: Path, key: Path) -> None:
    publish_category(
        build,
        repository=repository,
        platform=Platform(max_batch_size=4),
        read_graph=read_onnx_file,
        circumstances=Circumstances(signer=Signer.load(key)),
    )


def test_a_signature_travels_with_its_record(
    pill: Path, repository: Path, line: Path, tmp_path: Path, key: Path
) -> None:
    publish_signed(pill, repository, key)
    record, path = Store(repository).record_path(CATEGORY, 1), tmp_path / "signed.bundle"
    assert ", signed, " in bundle_release(repository, CATEGORY, 1, path)
    code, said = deploy(
        "import", path, "--repository", line, "--public-key", f"{key}.pub", "--reason", "line 3"
    )
    assert code == 0, said
    here = Store(line).record_path(CATEGORY, 1)
    assert here.read_bytes() == record.read_bytes()
    assert here.with_name("1.json.sig").read_bytes() == record.with_name("1.json.sig").read_bytes()
    assert [(entry["what"], entry["reason"]) for entry in lines_of(line)] == [("import", "line 3")]
    assert check(line, [Path(f"{key}.pub")]).signed == 1
    assert check(line).faults == []


def test_a_signature_that_is_none_or_by_an_unknown_key_is_told(
    packed: Path, pill: Path, repository: Path, line: Path, tmp_path: Path, key: Path
) -> None:
    make_keys(tmp_path / "other")
    known = [Path(f"{key}.pub")]
    with pytest.raises(PublishError, match=r"its record is not signed; expected a signature by .*key\.pub"):
        import_bundle(line, packed, public_keys=known)
    retune(repository, CATEGORY, Retuning(threshold=9.5), url=None, signer=Signer.load(tmp_path / "other"))
    bundle_release(repository, CATEGORY, 2, tmp_path / "other.bundle")
    with pytest.raises(PublishError, match=r"its record is signed by an unknown key, \S{16}; expected"):
        import_bundle(line, tmp_path / "other.bundle", public_keys=known)
    signature = Store(repository).record_path(CATEGORY, 2).with_name("2.json.sig")

    def another(members: dict[str, Path | bytes]) -> None:
        members["record.json.sig"] = signature

    with pytest.raises(PublishError, match=r"the signature by key \S{16} does not fit its record"):
        import_bundle(line, repacked(repository, tmp_path / "odd.bundle", members=another))
    assert list(line.iterdir()) == []


def test_a_student_of_another_size_is_a_model_of_its_own(
    packed: Path, pill: Path, line: Path, repository: Path
) -> None:
    publish_into(line, pill, repository)
    before = Repository(line).read_manifest("pill_student", 1)
    other = before.model_copy(update={"teacher_channels": (1, 2, 3), "weights_id": 1})
    other.write(line / "pill_student" / "1")
    record, _ = import_bundle(line, packed)
    assert (record.number, record.steps["student"].model) == (2, "pill_student_64")
    assert record.steps["student"].parsed_config().name == "pill_student_64"
    require_whole(Repository(line), record)
    assert import_bundle(line, packed)[1].startswith("Up to date")


def test_a_signed_record_that_is_numbered_anew_is_kept_as_it_was_signed(
    pill: Path, repository: Path, line: Path, tmp_path: Path, key: Path
) -> None:
    publish_into(line, with_another_teacher(pill, tmp_path / "newer" / CATEGORY, "newer"), repository)
    publish_signed(pill, repository, key)
    record, path = Store(repository).record_path(CATEGORY, 1), tmp_path / "signed.bundle"
    bundle_release(repository, CATEGORY, 1, path)
    code, said = deploy("import", path, "--repository", line, "--signing-key", key)
    assert code == 0, said
    assert "its signature is of the record as it was packed, which lies beside" in said
    kept = Store(line).record_path(CATEGORY, 2).with_name("2.json.packed")
    assert kept.read_bytes() == record.read_bytes()
    assert kept.with_name("2.json.packed.sig").read_bytes() == record.with_name("1.json.sig").read_bytes()
    assert Store(line).numbers(CATEGORY) == [1, 2]
    assert (check(line).faults, check(line).signed) == ([], 1)  # signed here, as it is here
    (fault,) = check(line, [Path(f"{key}.pub")]).faults  # of the other release alone
    assert "1.json is not signed" in fault
    promote(line, CATEGORY, 2)
