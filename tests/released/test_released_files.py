"""The table of the files that packages ship: today's are in it, and those of released versions stay in it."""

import hashlib
import inspect
from pathlib import Path

import pytest

import im2im_zoo.processing.custom as operations
from im2im_zoo.core.released_files import RELEASED_FILES, Kind, find_released
from im2im_zoo.instances.blockwise.run import is_exact
from im2im_zoo.recipe.components import resolve_component

HERE = Path(__file__).parent
# What packages that were exported by a version hold. These lines are never changed; a release adds its own.
PINNED = {
    "0.1.0": {
        "components.py": "6b4d951e0c305880bebf42dfda17b51c1ca4f4de049291ab6cb468d9215d00cb",
        "embedseg.py": "40227102aed04400ab2ed05785d6d5d4d7ab660177a9d7dd201a13cdcd5d5813",
        "watershed.py": "0f53c3e48cea5dc9c2cd12b4ded9812086ba947b2dfbd15a9f748c5df79ef5f6",
        "centre_normalisation.py": "a0c135da8e9142d83f4ec44a2ba3ae3c0a2c32b8df49ca01111e86a52b43c82b",
        "macenko.py": "ea63d5ab148a98fae8b3d939929b63f45705ebd3e6c916f1044a5f745ce1aa69",
    }
}
METHODS = Path(inspect.getfile(resolve_component("im2im_zoo.grouping.components.group", ""))).parent
OPERATIONS = Path(str(operations.__file__)).parent
TODAY: list[tuple[Kind, Path]] = [
    *(("instance method", path) for path in sorted(METHODS.glob("*.py")) if path.stem != "__init__"),
    *(("operation", path) for path in sorted(OPERATIONS.glob("*.py")) if path.stem != "__init__"),
]
# Instance methods that nothing groups exactly in blocks (their labels are joined where they overlap).
INEXACT: set[str] = set()


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(("kind", "path"), TODAY, ids=lambda value: getattr(value, "stem", ""))
def test_each_file_that_packages_ship_today_is_in_the_table(kind: Kind, path: Path) -> None:
    name = "group" if kind == "instance method" else path.stem
    entry = find_released(kind, digest(path), name)
    assert entry is not None, (
        f"{path.name} has changed, so packages that are exported now would need --allow-code. Add to RELEASED_FILES in "
        f"im2im_zoo/core/released_files.py, beside the entries that are there:\n\n    ReleasedFile(\n        name={path.name!r},\n"
        f'        versions=("THE COMING VERSION",),\n        sha256="{digest(path)}",\n        kind={kind!r},\n'
        f"        callable={name!r},\n        implementation={path.stem!r},\n    ),\n\nIf it gives other results than before, set "
        "`implementation` of the earlier entries to None."
    )
    assert entry.name == path.name
    assert entry.implementation == (None if path.stem in INEXACT else path.stem)


@pytest.mark.parametrize("version", PINNED)
def test_the_files_of_a_released_version_stay_in_the_table(version: str) -> None:
    table = {(file.name, file.sha256) for file in RELEASED_FILES if version in file.versions}
    missing = set(PINNED[version].items()) - table
    assert not missing, (
        f"packages of {version} with these files exist: put their entries back into RELEASED_FILES: {missing}"
    )


@pytest.mark.parametrize("version", PINNED)
def test_what_is_pinned_is_what_packages_of_the_version_hold(version: str) -> None:
    shipped = {path.name: digest(path) for path in (HERE / version).glob("*/package/*.py")}
    shipped.pop("architecture.py")
    assert shipped
    assert shipped.items() <= PINNED[version].items()


def test_each_entry_is_of_other_bytes_and_names_what_is_there_today() -> None:
    assert len({file.sha256 for file in RELEASED_FILES}) == len(RELEASED_FILES)
    names = {path.stem for kind, path in TODAY if kind == "operation"}
    for file in RELEASED_FILES:
        assert file.versions
        if file.implementation is not None:
            exact = is_exact(file.implementation)
            assert exact if file.kind == "instance method" else file.implementation in names


def test_only_the_function_itself_is_trusted_and_only_for_what_it_is() -> None:
    sha256 = PINNED["0.1.0"]["macenko.py"]
    assert find_released("operation", sha256, "macenko") is not None
    assert find_released("operation", sha256, "Macenko") is None
    assert find_released("instance method", sha256, "macenko") is None
