"""The synthetic study, written once a session; tests that alter it write their own."""

import sys
from pathlib import Path

import pytest

# Found under every import mode of pytest, without making the tests a package.
sys.path.insert(0, str(Path(__file__).parent))

from synthetic_study import LARGE, write_study


@pytest.fixture(scope="session")
def study_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("results") / "made_up", seeds=3, tuned=True)


@pytest.fixture(scope="session")
def large_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("results") / "large", losses=LARGE, cases=4)
