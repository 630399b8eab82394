"""Links of a package are asked for only when a person wants it; dead ones are found, and no network is no error."""

import shutil
from pathlib import Path

import pytest
import yaml
from site_for_tests import serving

from im2im_zoo.package import open_package
from im2im_zoo.packaging import validate_package
from im2im_zoo.packaging.validation.checks.base import Checks
from im2im_zoo.packaging.validation.checks.links import check_links


@pytest.fixture
def copy(folder_2d: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder_2d, tmp_path / "package"))


def link(folder: Path, *urls: str) -> None:
    """Put links into the citations."""
    rdf = yaml.safe_load((folder / "rdf.yaml").read_text())
    rdf["cite"] = [{"text": "A paper", "url": url} for url in urls]
    (folder / "rdf.yaml").write_text(yaml.safe_dump(rdf, sort_keys=False))


def test_a_dead_link_is_a_warning_with_its_field(copy: Path) -> None:
    with serving({"/there": b"x"}) as site:
        link(copy, site.at("/there"), site.at("/gone"))
        checks = Checks(open_package(copy), allow_code=False)
        check_links(checks, local=True)
        assert [(f.severity, f.field) for f in checks.findings if f.code == "link"] == [
            ("warning", "cite[1].url")
        ]
        assert any(n.message.startswith("1 of ") for n in checks.notes if n.subject == "links")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_link_into_the_local_network_is_not_asked_for(copy: Path, host: str) -> None:
    with serving({"/there": b"x"}) as site:
        link(copy, site.at("/there").replace("127.0.0.1", host))
        report = validate_package(copy, weights=["onnx"], links=True)
        assert site.asked == []
    assert [f.code for f in report.findings if f.subject == "links"] == ["links_unchecked"]


def test_without_being_asked_nothing_is_asked(copy: Path) -> None:
    with serving({}) as site:
        link(copy, site.at("/gone"))
        report = validate_package(copy, weights=["onnx"], core=True)
        assert site.asked == []
    assert report.verdicts()["links"] == "not checked"


def test_no_network_is_a_remark(copy: Path) -> None:
    link(copy, "http://127.0.0.1:1/there", "https://nowhere.invalid/x")
    report = validate_package(copy, weights=["onnx"], links=True)
    assert report.sound
    assert [(f.severity, f.code) for f in report.findings if f.subject == "links"] == [
        ("info", "links_unchecked")
    ]
