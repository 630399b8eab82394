"""Files of released versions, in copies that tests may change."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[str], Path]:
    """Copies a folder, by its path below `tests/released`."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(HERE / name, tmp_path / "copy" / name))

    return copy
