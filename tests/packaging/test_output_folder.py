"""A package and its zip take their places together: an export that was killed between the two can be repeated."""

import zipfile
from pathlib import Path

import pytest

from im2im_zoo.core.errors import PackageError
from im2im_zoo.packaging.export import output_folder
from im2im_zoo.packaging.export.output_folder import check_free, deliver


class Killed(BaseException):
    """Stands for a kill: nothing handles it."""


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    folder = tmp_path / "finished"
    folder.mkdir()
    (folder / "rdf.yaml").write_text("name: a package\n")
    return folder


@pytest.mark.parametrize("moves", [1, 2])
def test_an_export_killed_between_package_and_zip_may_be_repeated(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    output, zip_path, move, done = (
        tmp_path / "package",
        tmp_path / "package.zip",
        output_folder.move_into_place,
        [],
    )

    def killed(part: Path, path: Path, **options: bool) -> None:
        move(part, path, **options)
        done.append(path)
        if len(done) == moves:
            raise Killed

    monkeypatch.setattr(output_folder, "move_into_place", killed)
    with pytest.raises(Killed):
        deliver(finished, output, zip_path)
    assert output.is_dir()
    check_free(output, zip_path, overwrite=False)
    other = tmp_path / "other.zip"
    other.touch()
    with pytest.raises(PackageError, match="already exists"):
        check_free(output, other, overwrite=False)


def test_a_complete_export_is_not_replaced(finished: Path, tmp_path: Path) -> None:
    output, zip_path = tmp_path / "package", tmp_path / "package.zip"
    deliver(finished, output, zip_path)
    assert zipfile.ZipFile(zip_path).namelist() == ["rdf.yaml"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["package", "package.zip"]
    for given in (None, zip_path):
        with pytest.raises(PackageError, match="already exists"):
            check_free(output, given, overwrite=False)
