"""No file that is read is a program: pickles are read nowhere, or by an unpickler that makes tensors alone."""

from __future__ import annotations

import ast

import pytest

from tests.products import ROOT

FOLDERS = ("train", "export", "client", "deploy", "model_repository")
SOURCES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
FORBIDDEN = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "cloudpickle.load", "cloudpickle.loads", "joblib.load",
    "dill.load",
    "shelve.open", "marshal.loads", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.jit.load",
    "torch.hub.load", "pandas.read_pickle", "eval", "exec", "compile",
}  # fmt: skip
# What must be said, where it is called.
REQUIRED = {
    "torch.load": ("weights_only", True),
    "SamModel.from_pretrained": ("use_safetensors", True),
}
NEVER = ("allow_pickle", True)


def faults(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        said = {word.arg: word.value.value for word in node.keywords if isinstance(word.value, ast.Constant)}
        if name in FORBIDDEN or NEVER in said.items():
            found.append(f"line {node.lineno}: {name} may run what a file says")
        if name in REQUIRED and REQUIRED[name] not in said.items():
            found.append(f"line {node.lineno}: {name} needs {REQUIRED[name][0]}={REQUIRED[name][1]}")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_reads_a_pickle(path: object) -> None:
    assert faults(path.read_text(encoding="utf-8")) == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "source",
    [
        "pickle.loads(x)", "torch.load(p)", "torch.load(p, weights_only=False)", "np.load(p, allow_pickle=True)",
        "yaml.load(f)", "SamModel.from_pretrained(n)", "eval(text)",
    ],
)  # fmt: skip
def test_what_would_run_a_file_is_found(source: str) -> None:
    assert len(faults(source)) == 1


def test_tensors_alone_are_taken() -> None:
    assert faults("torch.load(p, weights_only=True)\nnp.load(p)\nyaml.safe_load(f)\nre.compile('x')") == []
