"""One tiny category whose pictures keep their own size, trained on crops and built once for all tests.

A test module asks for it with `pytest_plugins = ["tests.tiny_native"]`; nobody changes its files.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from export.builds.up_to_date import build_category
from export.product import ProductPaths
from tests.conftest import CATEGORY, FitTiny
from tests.once import made_once
from train.data.category import CategoryData, read_category
from train.data.sources.synthetic.dataset import render_category

SIZE = (160, 224)


@pytest.fixture(scope="session")
def native_product(tmp_path_factory: pytest.TempPathFactory, fit_tiny: FitTiny) -> ProductPaths:
    """Its checkpoint and build; its pictures have 160 rows of 224 pixels."""

    def make(work: Path) -> None:
        root = render_category(
            work / "data", category=CATEGORY, image_size=SIZE, n_train=8, n_test_good=2, n_per_defect=1
        )
        data = read_category(root, dataset="synthetic", category=CATEGORY)
        # A network that looks at whole pictures would not do.
        fit_tiny(
            data,
            work / "runs" / CATEGORY,
            student="test_resnet",
            image_size="native",
            crop_size=96,
            sharpening=(2.0,),
            foreground="threshold",
        )
        build_category(ProductPaths(CATEGORY, work / "runs", work / "build"))

    work = made_once(tmp_path_factory, "native", make)
    return ProductPaths(CATEGORY, work / "runs", work / "build")


@pytest.fixture(scope="session")
def native_data(native_product: ProductPaths) -> CategoryData:
    """Its pictures."""
    root = native_product.runs_dir.parent / "data" / CATEGORY
    return read_category(root, dataset="synthetic", category=CATEGORY)
