from __future__ import annotations

import pytest

from tests.certificates import Authority, Signed


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that nobody here trusts."""
    return Authority(tmp_path_factory.mktemp("foreign"), "foreign")


@pytest.fixture(scope="session")
def pair(authority: Authority) -> Signed:
    """Certificate and key of a server at 127.0.0.1."""
    return authority.sign("server", days=90)
