"""Packages give the same in programs that know nothing of im2im_zoo: one framework here, all of them by `make consumers`."""

from pathlib import Path

import pytest
from consumer_packages import RECIPES, Packaged, package_of
from consumer_programs import FIRST_READER, PROGRAMS, Program

# What ten of our own tolerances of a format (1e-4 of the largest output) leave to other versions of a runtime.
ALLOWED = 1e-3
# Its gain and offset are moved into the network.
FRAMEWORK = "Noise2Void"


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Packaged:
    return package_of(RECIPES[FRAMEWORK], tmp_path_factory.mktemp("package"))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_a_program_gives_what_the_network_gives(program: Program, package: Packaged, tmp_path: Path) -> None:
    if program.missing:
        pytest.skip(program.missing)
    found = program.differences(package, tmp_path)
    assert set(found) == set(program.formats)
    assert max(found.values()) < ALLOWED, found


def test_the_first_reader_of_the_format_takes_a_package_of_0_5_1_as_its_own(package: Packaged) -> None:
    if FIRST_READER.missing:
        pytest.skip(FIRST_READER.missing)
    zipped = package.exported.zip_path
    assert zipped is not None
    assert FIRST_READER.says(zipped) == "passed 0.5.0"
