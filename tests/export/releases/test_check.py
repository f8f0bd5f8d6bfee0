"""`check`: one flipped bit anywhere is found and named; signatures, and what a server refuses to start with."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from deploy.__main__ import main
from export.__main__ import main as export
from export.errors import PublishError
from export.releases.audit import Act
from export.releases.audit.log import AuditLog, head_path, log_path
from export.releases.audit.signatures import Signer, load_public_key, make_keys, signatures_path
from export.releases.store import Store
from export.releases.verbs.check import check, require_signed
from export.releases.verbs.promote import promote, rollback
from export.releases.verbs.retune import Retuning, retune
from tests.conftest import CATEGORY
from tests.export.releases.conftest import TEACHER, contents, publish
from tests.no_torch import run_without_torch
from tests.products import calibration_file, copy_backends

OWN = (
    "alignment",
    "distance_fusion",
    "image_decoder",
    "foreground",
)  # the project's own code, which no release is


@pytest.fixture
def key(tmp_path: Path) -> Path:
    make_keys(tmp_path / "line 3")
    return tmp_path / "line 3"


def public(key: Path) -> Path:
    return key.with_name(key.name + ".pub")


@pytest.fixture
def signed(pill: Path, repository: Path, key: Path, tiny_build: Path) -> Path:
    """A repository with two releases of pill, signed, of which the second is live."""
    arguments = ["--category", CATEGORY, "--build-dir", tiny_build, "--repository", repository]
    arguments += ["--max-batch-size", 4, "--signing-key", key]
    result = CliRunner().invoke(export, ["publish", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    retune(repository, CATEGORY, Retuning(threshold=12.5), url=None, signer=Signer.load(key))
    return repository


def deploy(*arguments: object, **environment: str) -> tuple[int, str]:
    result = CliRunner(env=environment).invoke(main, [*map(str, arguments)])
    return result.exit_code, result.output


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def of_releases(repository: Path) -> list[Path]:
    """Every file in a repository but the project's own code."""
    files = (path for path in sorted(repository.rglob("*")) if path.is_file() and path.stat().st_size)
    return [
        path
        for path in files
        for parts in [path.relative_to(repository).parts]
        if parts[0] not in OWN or (parts[1].isdecimal() and parts[1] != "1") or parts[1] == "config.pbtxt"
    ]


def test_a_flipped_bit_in_any_file_is_found_and_named(signed: Path, key: Path) -> None:
    whole = check(signed, [public(key)])
    assert (whole.faults, whole.notes, whole.records, whole.signed, whole.lines) == ([], [], 2, 2, 2)
    assert whole.files > 10
    files = of_releases(signed)
    names = {path.name for path in files}
    assert names >= {"model.onnx", "config.pbtxt", "1.json", "1.json.sig", "audit.jsonl", "encoded_image"}
    for path in files:
        content = path.read_bytes()
        for bit in (3, len(content) * 4 + 1, len(content) * 8 - 8):
            path.write_bytes(flipped(content, bit))
            faults = check(signed).faults
            assert any(str(path) in fault for fault in faults), (path, bit, faults)
            assert not any("\n" in fault for fault in faults)
        path.write_bytes(content)
    assert check(signed, [public(key)]) == whole


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (lambda root: (root / TEACHER / "1" / "model.onnx").unlink(), "model.onnx of release 1 of 'pill' is gone"),
        (lambda root: shutil.rmtree(root / TEACHER / "1"), f"{TEACHER}/1 of release 1 of 'pill' is gone"),
        (lambda root: (root / TEACHER / "1" / "extra.py").touch(), "extra.py belongs to no record; remove it"),
        (lambda root: (root / TEACHER / "1" / "model.py").write_text("#"), "it has 1 bytes, and had "),
        (lambda root: Store(root).record_path(CATEGORY, 1).unlink(), "1.json, which line 1 of the audit log names"),
        (lambda root: signatures_path(Store(root).record_path(CATEGORY, 1)).unlink(), "has no such signature"),
        (lambda root: Store(root).live_path(CATEGORY).unlink(), "pill.json is gone, and line 2 of the audit log"),
        (
            lambda root: Store(root).live_path(CATEGORY).write_text('{"number": 1, "before": 2}\n'),
            "says that release 1 is live, 2 before, and line 2 of the audit log says that release 2 is live, 1 before",
        ),
        (lambda root: (root / CATEGORY / "config.pbtxt").unlink(), "pill/config.pbtxt, which the live records need"),
        (lambda root: shutil.copytree(root / CATEGORY, root / "more"), "more/config.pbtxt is the configuration of"),
        (lambda root: (root / ".releases" / "audit.jsonl").unlink(), "audit.jsonl, the audit log, is gone or empty"),
        (lambda root: (root / ".releases" / "calibrations" / "7.json").touch(), "7.json is the calibration of no"),
    ],
)  # fmt: skip
def test_what_is_gone_or_came_from_elsewhere_is_named(
    signed: Path, harm: Callable[[Path], object], sentence: str
) -> None:
    harm(signed)
    faults = check(signed).faults
    assert any(sentence in fault for fault in faults), faults


def begun_anew(root: Path, other: Path) -> None:
    """The log of another repository in place of this one's."""
    for path in (log_path(root), head_path(root)):
        path.write_bytes((other / path.relative_to(root)).read_bytes())


def cut_with_its_head(root: Path, n_lines: int) -> None:
    """The log without its last lines, and a head of what is left."""
    raw = log_path(root).read_bytes().splitlines()[:n_lines]
    log_path(root).write_bytes(b"".join(line + b"\n" for line in raw))
    head_path(root).write_bytes(AuditLog.read(root).expected_head.to_bytes())


LOST: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "removed": (lambda root, _: [log_path(root).unlink(), head_path(root).unlink()], "is gone or empty; restore it"),
    "emptied": (lambda root, _: log_path(root).write_bytes(b""), "has 0 lines, and"),
    "both emptied": (
        lambda root, _: [log_path(root).write_bytes(b""), head_path(root).write_bytes(b"")],
        "is gone or empty; restore it",
    ),
    "cut at its end": (lambda root, _: cut_with_its_head(root, 2), "has 2 lines, and {live} is of a time when it had"),
    "cut to its first line": (lambda root, _: cut_with_its_head(root, 1), "is of a time when it had 3"),
    "replaced": (begun_anew, "line 3 of {log} is another one than {live} names: the log was changed or begun anew"),
}  # fmt: skip


@pytest.mark.parametrize("name", LOST)
def test_a_log_that_is_gone_shorter_or_another_one_is_found_and_no_server_starts(
    signed: Path, key: Path, pill: Path, tmp_path: Path, name: str
) -> None:
    harm, sentence = LOST[name]
    signer = Signer.load(key)
    promote(signed, CATEGORY, 1, act=Act("", signer))
    other = copy_backends(tmp_path / "other")
    publish(pill, other)
    for threshold in (2, 3, 4):
        retune(other, CATEGORY, Retuning(threshold=threshold), url=None)
    promote(signed, CATEGORY, 2, act=Act("", signer))
    require_signed(signed, [public(key)])
    harm(signed, other)
    expected = sentence.format(log=log_path(signed), live=Store(signed).live_path(CATEGORY))
    assert any(expected in fault for fault in check(signed).faults), check(signed).faults
    with pytest.raises(PublishError, match=rf"^Nothing is served: .*{re.escape(expected)}"):
        require_signed(signed, [public(key)])
    if name == "replaced":  # whose first record is another one
        with pytest.raises(
            PublishError, match=r"1\.json is not the record that line 1 of the audit log names"
        ):
            promote(signed, CATEGORY, 1)
        return
    promote(signed, CATEGORY, 1)  # which writes on; what was lost is told for ever
    assert any("was added to a log that did not fit: " in fault for fault in check(signed).faults)
    with pytest.raises(PublishError, match=r"^Nothing is served: "):
        require_signed(signed, [public(key)])


def test_a_log_that_was_begun_anew_is_told_for_ever_and_a_signature_vouches_for_it(
    signed: Path, key: Path, tmp_path: Path
) -> None:
    for path in (log_path(signed), head_path(signed)):
        path.unlink()
    signer = Signer.load(key)
    promote(signed, CATEGORY, 1, act=Act("the disk was replaced", signer))
    promote(signed, CATEGORY, 2, act=Act("", signer))
    (fault,) = check(signed, [public(key)]).faults
    assert "line 1 of " in fault
    assert "is gone or empty, and " in fault
    assert fault.endswith("is of a time when it had 1: what it held was removed")
    require_signed(signed, [public(key)])
    with pytest.raises(
        PublishError, match=r"^Nothing is served: line 1 of .* was added to a log that did not fit"
    ):
        require_signed(signed, [make_keys(tmp_path / "other")])


def test_a_log_whose_only_line_was_removed_does_not_begin_with_a_promotion(
    pill: Path, repository: Path
) -> None:
    publish(pill, repository)
    for path in (log_path(repository), head_path(repository)):
        path.unlink()
    (fault, *_) = check(repository).faults
    assert fault == f"{log_path(repository)}, the audit log, is gone or empty; restore it"
    promote(repository, CATEGORY, 1)
    (fault,) = check(repository).faults
    assert "line 1 of " in fault
    assert "is a promote of release 1 of 'pill', before which there was another line" in fault


def test_a_pointer_of_before_says_nothing_of_the_log(signed: Path) -> None:
    path = Store(signed).live_path(CATEGORY)
    pointer = json.loads(path.read_bytes())
    assert pointer.pop("log_lines") == 1
    del pointer["log_sha256"]
    path.write_text(json.dumps(pointer) + "\n")
    assert check(signed).faults == []


def test_a_model_of_no_record_is_named(signed: Path) -> None:
    folder = signed / "foreign"
    folder.mkdir()
    (folder / "config.pbtxt").write_text('name: "foreign"\nbackend: "python"\n')
    (fault,) = check(signed).faults
    assert fault.startswith(f"{folder / 'config.pbtxt'} belongs to no record, and a server would load it")


def test_the_command_says_what_it_found(signed: Path, key: Path) -> None:
    said = run_without_torch("deploy", "check", "--repository", signed, "--public-key", public(key))
    assert said.startswith("Checked: 2 records, 2 of them signed, ")
    live = calibration_file(signed, Store(signed).read(CATEGORY, 2).weights_id)
    live.write_bytes(flipped(live.read_bytes(), 100))
    code, said = deploy("check", "--repository", signed)
    assert code == 1
    assert f"{live} is not the calibration of release 2 of 'pill', which is live; promote it again.\n" in said
    assert said.endswith("is not what was published: 1 fault, named above.\n")
    promote(signed, CATEGORY, 2)
    assert deploy("check", "--repository", signed)[0] == 0
    code, said = deploy("check", "--repository", signed / CATEGORY)
    assert (code, said.count("\n")) == (1, 1)
    assert "holds no release; publish one" in said


def test_who_signed_is_held_to_the_keys_that_are_known(signed: Path, key: Path, tmp_path: Path) -> None:
    other = make_keys(tmp_path / "other")
    unknown = check(signed, [other]).faults
    assert len(unknown) == 3
    assert all("by an unknown key, " in fault and f"expected {'a' if 'head' in fault else 'one'}" in fault
               for fault in unknown)  # fmt: skip
    assert check(signed, [other, public(key)]).faults == []
    promote(signed, CATEGORY, 1)  # unsigned: the log's end is
    (fault,) = check(signed, [public(key)]).faults
    assert fault.startswith(f"{head_path(signed)} is not signed; expected a signature by {public(key)}")
    code, said = deploy(
        "promote", 2, "--category", CATEGORY, "--repository", signed, ASTMFR_SIGNING_KEY=str(tmp_path / "other")
    )  # fmt: skip
    assert code == 0, said
    signatures = json.loads(signatures_path(Store(signed).record_path(CATEGORY, 2)).read_bytes())
    assert signatures.keys() == {load_public_key(other), load_public_key(public(key))}
    assert check(signed).faults == []


def test_a_server_does_not_start_with_what_is_not_signed(
    pill: Path, repository: Path, key: Path, tmp_path: Path
) -> None:
    publish(pill, repository)
    serve = (
        "serve",
        "--repository",
        repository,
        "--log",
        tmp_path / "log",
        "--require-signature",
        public(key),
    )
    code, said = deploy(*serve)
    assert (code, said.count("\n")) == (1, 1)
    assert f"Nothing is served: {Store(repository).record_path(CATEGORY, 1)} is not signed; expected" in said
    assert not (tmp_path / "log").exists()
    retune(repository, CATEGORY, Retuning(threshold=3), url=None, signer=Signer.load(key))
    require_signed(repository, [public(key)])  # the one before is not live
    graph = repository / TEACHER / "1" / "model.onnx"
    content = graph.read_bytes()
    graph.write_bytes(flipped(content, 77))
    code, said = deploy(*serve)
    assert (code, said.count("\n")) == (1, 1)
    assert f"Nothing is served: {graph} is not the file of release 2 of 'pill': it was changed" in said
    graph.write_bytes(content)
    with pytest.raises(PublishError, match=r"is signed by an unknown key, .*; expected one by .*other\.pub"):
        require_signed(repository, [make_keys(tmp_path / "other")])
    rollback(repository, CATEGORY)
    with pytest.raises(PublishError, match=r"Nothing is served: .*1\.json is not signed"):
        require_signed(repository, [public(key)])


def test_a_record_that_was_changed_is_not_made_live(signed: Path) -> None:
    path = Store(signed).record_path(CATEGORY, 1)
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"verified": true', b'"verified": false'))
    before = contents(signed)
    with pytest.raises(PublishError, match=r"1\.json is not the record that line 1 of the audit log names"):
        promote(signed, CATEGORY, 1)
    assert contents(signed) == before
    path.write_bytes(content)
    promote(signed, CATEGORY, 1)


def test_keys_are_never_overwritten(key: Path, tmp_path: Path) -> None:
    assert key.stat().st_mode & 0o777 == 0o600
    assert Signer.load(key).key == load_public_key(public(key))
    before = contents(tmp_path)
    for name in (key, public(key)):
        code, said = deploy("keygen", name)
        assert (code, said.count("\n")) == (1, 1)
        assert "is there already and stays as it is" in said
    code, said = deploy("keygen", tmp_path / "none" / "key")
    assert code == 1
    assert "cannot be written (No such file or directory)" in said
    key.unlink()
    assert "is there already" in deploy("keygen", key)[1]  # its public key is
    assert contents(tmp_path).keys() == before.keys() - {key.name}
    for load in (Signer.load, load_public_key):
        with pytest.raises(PublishError, match=r"give a file that `python -m deploy keygen` wrote"):
            load(tmp_path / "none")
    with pytest.raises(PublishError, match=r"holds no private key"):
        Signer.load(public(key))


def test_a_private_key_is_no_public_one(key: Path) -> None:
    with pytest.raises(PublishError, match=r"holds a private key; give the public one, line 3\.pub"):
        load_public_key(key)


def test_what_a_command_changes_meanwhile_is_looked_at_again(
    signed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Store(signed).live_path(CATEGORY)
    content, waits = path.read_bytes(), []

    def finish(seconds: float) -> None:
        waits.append(seconds)
        path.write_bytes(content)
        (signed / ".publish-1").rmdir()

    path.unlink()
    monkeypatch.setattr("export.releases.verbs.check.time.sleep", finish)
    assert len(check(signed).faults) == 1  # nobody is at work
    (signed / ".publish-1").mkdir()
    assert (check(signed).faults, len(waits)) == ([], 1)
