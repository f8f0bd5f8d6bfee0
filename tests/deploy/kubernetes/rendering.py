"""The Helm chart rendered by Helm's own engine, which `helm-python-sdk` carries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import helm_python
import yaml

from tests.products import ROOT

CHART = ROOT / "deploy" / "helm" / "astmfr"
EXAMPLES = sorted((ROOT / "deploy" / "helm" / "examples").glob("*.yaml"))
Manifest = dict[str, Any]


def example(categories: int, **changed: Any) -> dict[str, Any]:
    """Values of an example, some of them changed."""
    path = ROOT / "deploy" / "helm" / "examples" / f"categories-{categories}.yaml"
    values: dict[str, Any] = yaml.safe_load(path.read_text())
    return values | changed


def render(values: dict[str, Any], *, chart: Path = CHART, release: str = "line") -> list[Manifest]:
    """What `helm template` gives."""
    with helm_python.Chart.load(chart) as loaded:
        files = loaded.render(values, name=release, namespace="factory")
    texts = [text for path, text in files.items() if path.endswith(".yaml")]
    # The loader in C: the largest example has 2 MB.
    loaded_texts = (yaml.load_all(text, Loader=yaml.CSafeLoader) for text in texts)
    return [manifest for manifests in loaded_texts for manifest in manifests if manifest]


def of_kind(manifests: list[Manifest], kind: str) -> dict[str, Manifest]:
    """Those of a kind by their names."""
    return {manifest["metadata"]["name"]: manifest for manifest in manifests if manifest["kind"] == kind}
