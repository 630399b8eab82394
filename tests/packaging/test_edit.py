"""Editing the metadata of a package: what changes, what stays, and that nothing is lost when an edit fails."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from publishable import KNOWN_USER, contents, copy_package, read_fields, write_fields

from im2im_zoo.core.atomic import is_hidden
from im2im_zoo.core.errors import PackageError
from im2im_zoo.core.hashing import sha256
from im2im_zoo.package import open_package
from im2im_zoo.package.hashes import check_hashes
from im2im_zoo.packaging import Changes, edit_package
from im2im_zoo.packaging.editing import rewrite
from im2im_zoo.packaging.editing.changelog import add_change
from im2im_zoo.packaging.editing.changes import change_metadata, raise_version
from im2im_zoo.packaging.editing.entries import parse_citation, parse_maintainer, parse_person
from im2im_zoo.packaging.export.output_folder import write_zip
from im2im_zoo.packaging.publishing.publication import prepare_publication


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return copy_package(tmp_path / "model")


def raw(source: Path) -> dict[str, Any]:
    """The RDF as bioimageio.spec reads it."""
    with open_package(source, must_run=False) as opened:
        return dict(opened.raw)


def zip_contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_only_the_given_fields_change(package: Path) -> None:
    before, files = raw(package), contents(package)
    edited = edit_package(
        package,
        Changes(
            name="Nuclei, again".replace(",", ""),
            license="BSD-3-Clause",
            git_repo="https://example.org/nuclei",
            authors=("Ada Lovelace; affiliation=University; github=" + KNOWN_USER, "Grace Hopper"),
            maintainers=(f"Grace Hopper; github={KNOWN_USER}",),
            cite=("A paper; with a semicolon; doi=https://doi.org/10.1234/abc",),
            tags=("nuclei", "mouse"),
            training_data="powerful-chipmunk",
        ),
    )
    after = raw(package)
    expected = {
        **before,
        "name": "Nuclei again",
        "license": "BSD-3-Clause",
        "git_repo": "https://example.org/nuclei",
        "authors": [
            {
                "name": "Ada Lovelace", "orcid": "0000-0002-1825-0097", "affiliation": "University",
                "github_user": KNOWN_USER,
            },
            {"name": "Grace Hopper"},
        ],
        "maintainers": [{"name": "Grace Hopper", "github_user": KNOWN_USER}],
        "cite": [*before["cite"], {"text": "A paper; with a semicolon", "doi": "10.1234/abc"}],
        "tags": [*before["tags"], "mouse"],
        "training_data": {"id": "powerful-chipmunk"},
    }  # fmt: skip
    assert after == expected
    assert edited.changed.keys() == {key for key in expected if expected[key] != before.get(key)}
    del files["rdf.yaml"]
    assert contents(package) == {**files, "rdf.yaml": (package / "rdf.yaml").read_bytes()}


def test_numbers_are_read_alike_by_readers_of_yaml_1_1_and_1_2(package: Path) -> None:
    rdf = read_fields(package)
    rdf["config"]["odd"] = {
        "tiny": 1e-06,
        "text": "1e-06",
        "yes": "yes",
        "octal": "0o17",
        "nothing": None,
        "list": [],
    }
    write_fields(package, rdf)
    before = raw(package)
    edit_package(package, Changes(version="1.0.0"))
    assert raw(package) == {**before, "version": "1.0.0"}
    assert read_fields(package)["config"]["odd"]["tiny"] == 1e-06  # read by PyYAML, YAML 1.1


def test_the_same_edit_again_writes_nothing(package: Path) -> None:
    edit_package(package, Changes(license="BSD-3-Clause"))
    before = (package / "rdf.yaml").stat().st_mtime_ns, package.stat().st_ino
    again = edit_package(package, Changes(license="BSD-3-Clause"))
    assert again.outputs == ()
    assert ((package / "rdf.yaml").stat().st_mtime_ns, package.stat().st_ino) == before


@pytest.mark.parametrize("named", ["zip", "rdf.yaml"])
def test_a_folder_and_its_zip_beside_it_are_kept_in_step(package: Path, named: str) -> None:
    zipped = package.with_name("model.zip")
    write_zip(package, zipped)
    source = {"zip": zipped, "rdf.yaml": package / "rdf.yaml"}[named]
    edited = edit_package(source, Changes(version="2.0.0"))
    assert set(edited.outputs) == {package, zipped}
    assert raw(package)["version"] == "2.0.0"
    assert zip_contents(zipped) == contents(package)


def test_a_zip_of_another_package_beside_it_is_left_alone(package: Path, tmp_path: Path) -> None:
    zipped = package.with_name("model.zip")
    write_zip(copy_package(tmp_path / "other", name="Another model"), zipped)
    before = zipped.read_bytes()
    edit_package(package, Changes(version="2.0.0"))
    assert zipped.read_bytes() == before


def test_a_kill_between_folder_and_zip_is_completed_by_the_same_command(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zipped = package.with_name("model.zip")
    write_zip(package, zipped)

    class KillError(BaseException):
        pass

    from im2im_zoo.packaging.export import output_folder

    move = output_folder.move_into_place

    def move_folder_only(partial: Path, path: Path, **options: Any) -> None:
        if path == zipped:
            raise KillError
        move(partial, path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(output_folder, "move_into_place", move_folder_only)
        with pytest.raises(KillError):
            edit_package(package, Changes(version="2.0.0"))
    assert raw(zipped)["version"] == "0.1.0"
    edit_package(package, Changes(version="2.0.0", license="BSD-3-Clause"))
    assert raw(zipped)["version"] == raw(package)["version"] == "2.0.0"
    assert [p.name for p in package.parent.iterdir() if is_hidden(p) or p.name.endswith(".unfinished")] == []


def test_another_output_leaves_the_original_and_shares_no_file_with_it(package: Path, tmp_path: Path) -> None:
    before = contents(package)
    edit_package(package, Changes(version="2.0.0"), output=tmp_path / "new")
    edit_package(package, Changes(version="3.0.0"), output=tmp_path / "new.zip")
    assert contents(package) == before
    assert raw(tmp_path / "new")["version"] == "2.0.0"
    assert raw(tmp_path / "new.zip")["version"] == "3.0.0"
    assert (tmp_path / "new" / "weights.onnx").stat().st_ino != (package / "weights.onnx").stat().st_ino
    with pytest.raises(PackageError, match="already exists"):
        edit_package(package, Changes(version="4.0.0"), output=tmp_path / "new.zip")
    with pytest.raises(PackageError, match="already exists"):
        edit_package(package, Changes(version="4.0.0"), output=tmp_path / "new")


def test_folders_within_a_package_are_kept(package: Path) -> None:
    (package / "code").mkdir()
    (package / "code" / "network.py").write_text("x = 1\n", encoding="utf-8")
    zipped = package.with_name("other.zip")
    edit_package(package, Changes(version="2.0.0"), output=zipped)
    assert zip_contents(zipped)["code/network.py"] == b"x = 1\n"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (Changes(name="x"), "name"),
        (Changes(description="x" * 2000), "description"),
        (Changes(license="mit licence"), "did you mean MIT"),
        (Changes(version="one"), "version"),
        (Changes(authors=("Ada; orcid=0000-0002-1825-0098",)), "orcid"),
        (Changes(authors=("Ada; orcid=123",)), "is not an ORCID"),
        (Changes(authors=("Ada; phone=1",)), "unknown key 'phone'"),
        (Changes(authors=("orcid=0000-0002-1825-0097",)), "does not begin with a name"),
        (Changes(maintainers=("Ada",)), "no GitHub user"),
        (Changes(cite=("A paper",)), "no doi= or url="),
        (Changes(cite=("A paper; doi=abc",)), "is not a DOI"),
        (Changes(git_repo="example"), "git_repo"),
        (Changes(training_data="A Data Set"), "training_data"),
        (Changes(remove=("inputs",)), "choose one of authors"),
        (Changes(bump="minor", remove=("version",)), "there is no version"),
        (Changes(documentation=Path("missing.md")), "missing.md"),
        (Changes(cover="missing.png"), "was not found"),
        (Changes(cover="../model.zip"), "was not found"),
        (Changes(cover="README.md"), "give a png"),
        (Changes(change=" "), "is empty"),
    ],
)  # fmt: skip
def test_a_refused_edit_leaves_everything_as_it_is(package: Path, changes: Changes, reason: str) -> None:
    before, beside = contents(package), sorted(package.parent.iterdir())
    with pytest.raises(PackageError, match=reason) as failure:
        edit_package(package, changes)
    assert ".partial-" not in str(failure.value)
    assert contents(package) == before
    assert sorted(package.parent.iterdir()) == beside


def test_a_failure_to_write_leaves_the_original(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(package)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rewrite, "deliver", full)
    with pytest.raises(PackageError, match="No space left on device; the package is unchanged"):
        edit_package(package, Changes(version="2.0.0"))
    assert contents(package) == before
    assert [p for p in package.parent.iterdir() if is_hidden(p)] == []


def test_a_package_that_its_licence_makes_invalid_can_be_mended(tmp_path: Path) -> None:
    package = copy_package(tmp_path / "model", license="CC BY 4")
    edit_package(package, Changes(license="CC-BY-4.0"))
    assert raw(package)["license"] == "CC-BY-4.0"


def test_hashes_of_the_files_that_an_edit_writes_stay_right(package: Path, tmp_path: Path) -> None:
    rdf = read_fields(package)
    rdf["documentation"] = {"source": "README.md", "sha256": sha256(package / "README.md")}
    rdf["covers"] = [{"source": "cover.png", "sha256": sha256(package / "cover.png")}]
    write_fields(package, rdf)
    PIL.Image.fromarray(np.zeros((100, 300, 3), np.uint8)).save(tmp_path / "wide.png")
    edit_package(package, Changes(bump="minor", change="A new cover.", cover=tmp_path / "wide.png"))
    with open_package(package, must_run=False) as opened:
        assert check_hashes(opened) == []
        assert opened.raw["documentation"]["sha256"] == sha256(package / "README.md")
    assert "## Changes\n\n- 0.2.0: A new cover.\n" in (package / "README.md").read_text(encoding="utf-8")


def test_a_cover_is_fitted_to_the_limits(package: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 800, 3), dtype=np.uint8)
    PIL.Image.fromarray(noise).save(package / "cover.png")
    edit_package(package, Changes(cover="cover.png"))
    with PIL.Image.open(package / "cover.png") as cover:
        assert abs(cover.width / cover.height - 2) < 0.05
    assert (package / "cover.png").stat().st_size < 500_000


def test_the_commands_of_the_findings_make_a_bare_package_publishable(tmp_path: Path) -> None:
    bare = copy_package(
        tmp_path / "model", maintainers=None, license=None, description="Short.", cite=None, tags=None, covers=None,
        documentation=None, id="quick-ant", authors=[{"name": "Ada Lovelace"}],
    )  # fmt: skip
    documentation = tmp_path / "README.md"
    documentation.write_text("# A model\n\n## Validation\n\nDice 0.9.\n", encoding="utf-8")
    tags = (
        "nuclei",
        "2d",
        "fluorescence-light-microscopy",
        "pytorch",
        "unet",
        "semantic-segmentation",
        "ilastik",
    )
    changes = Changes(
        maintainers=(f"Ada Lovelace; github={KNOWN_USER}",),
        license="MIT",
        description="Finds nuclei in fluorescence images.",
        cite=("A paper; doi=10.1234/abc",),
        tags=tags,
        cover="cover.png",
        documentation=documentation,
        remove=("id",),
        authors=("Ada Lovelace; orcid=0000-0002-1825-0097",),
    )
    edit_package(bare, changes)
    with prepare_publication(bare, "bioimage.io") as publication:
        assert {f.code for f in publication.findings} == {"format_version"}


@pytest.mark.parametrize(
    ("field", "value", "changes"),
    [
        ("authors", "Ada", Changes(authors=("Ada Lovelace",))),
        ("cite", [None], Changes(cite=("A paper; doi=10.1234/abc",))),
        ("tags", [{"a": 1}], Changes(tags=("mouse",))),
        ("covers", {"a": 1}, Changes(cover="cover.png")),
        ("inputs", 1.5, Changes(version="2.0.0")),
        ("weights", "x", Changes(version="2.0.0")),
        ("documentation", "a\0b", Changes(change="x")),
    ],
)
def test_an_rdf_that_is_damaged_is_refused_with_a_message(
    package: Path, field: str, value: Any, changes: Changes
) -> None:
    write_fields(package, {**read_fields(package), field: value})
    with pytest.raises(PackageError):
        edit_package(package, changes)


def test_names_and_addresses_are_not_changed_in_place() -> None:
    for source in ("nuclei_2d", "https://example.org/model.zip"):
        with pytest.raises(PackageError, match="copy or download the package first"):
            edit_package(source, Changes(license="MIT"))


def test_a_zip_that_leads_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("../rdf.yaml", "type: model\nformat_version: 0.5.0\n")
    with pytest.raises(PackageError, match="leads out of its folder"):
        edit_package(tmp_path / "bad.zip", Changes(license="MIT"))


def test_links_in_a_package_stay_links(package: Path) -> None:
    (package / "link.txt").symlink_to("README.md")
    edit_package(package, Changes(version="2.0.0"))
    assert (package / "link.txt").is_symlink()


def test_versions_are_raised() -> None:
    assert [raise_version("1.2.3", part) for part in ("major", "minor", "patch")] == [
        "2.0.0",
        "1.3.0",
        "1.2.4",
    ]
    assert raise_version(1.0, "patch") == "1.0.1"
    with pytest.raises(PackageError, match="not of the form"):
        raise_version("1.0rc1", "patch")


def test_texts_of_people_and_citations_are_read() -> None:
    orcid = "0000-0002-1825-0097"
    assert parse_person(f"Ada; orcid=https://orcid.org/{orcid}", option="--author") == {
        "name": "Ada",
        "orcid": orcid,
    }
    assert parse_maintainer("Ada ; GitHub = ada-l ") == {"name": "Ada", "github_user": "ada-l"}
    assert parse_citation("A; b; url=https://x.org?a=1") == {"text": "A; b", "url": "https://x.org?a=1"}


def test_a_format_version_is_raised_only_if_a_new_value_needs_it(package: Path) -> None:
    rdf = {**read_fields(package), "format_version": "0.5.0"}
    assert change_metadata(rdf, Changes(license="CC-BY-4.0"))["format_version"] == "0.5.0"
    assert change_metadata(rdf, Changes(name="Nuclei + cells"))["format_version"] == "0.5.4"
    newest = {**rdf, "format_version": "0.5.12"}
    assert change_metadata(newest, Changes(name="Nuclei + cells"))["format_version"] == "0.5.12"


def test_changes_are_listed_newest_first() -> None:
    readme = add_change(add_change("# A\n", "1.0.0", "First."), "1.1.0", "Second\nline.")
    assert readme == "# A\n\n## Changes\n\n- 1.1.0: Second line.\n- 1.0.0: First.\n"
    assert add_change(readme, "1.1.0", "Second line.") == readme
    assert add_change("## Changes\n\n## Licence\n", "", "New.") == "## Changes\n\n- New.\n\n## Licence\n"
