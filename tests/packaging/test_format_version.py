"""An RDF takes the oldest model format that has what it says."""

from typing import Any

import pytest
import yaml

from im2im_zoo.packaging.consumers.format_version import as_identifier, channel_names, oldest_format


@pytest.fixture
def rdf(folder_2d) -> dict[str, Any]:
    return yaml.safe_load((folder_2d / "rdf.yaml").read_text(encoding="utf-8"))


def test_a_plain_model_is_of_the_first_format(rdf: dict[str, Any]) -> None:
    assert rdf["format_version"] == oldest_format(rdf) == "0.5.1"
    assert (rdf["documentation"], rdf["covers"]) == ("README.md", ["cover.png"])


@pytest.mark.parametrize(
    ("operation", "version"),
    [
        ({"id": "binarize", "kwargs": {"threshold": 0.5}}, "0.5.1"),
        ({"id": "binarize", "kwargs": {"threshold": [0.5, 0.6], "axis": "channel"}}, "0.5.1"),
        ({"id": "softmax", "kwargs": {"axis": "channel"}}, "0.5.5"),
        ({"id": "clip", "kwargs": {"min": 0.0, "max": 1.0}}, "0.5.1"),
        ({"id": "clip", "kwargs": {"min_percentile": 1.0}}, "0.5.7"),
        ({"id": "stardist_postprocessing", "kwargs": {}}, "0.5.9"),
        ({"id": "custom", "callable": "f", "source": "f.py"}, "0.5.10"),
    ],
)
def test_operations_need_the_format_that_brought_them(rdf, operation: dict[str, Any], version: str) -> None:
    rdf["outputs"][0]["postprocessing"] = [operation]
    assert oldest_format(rdf) == version


def test_fields_need_the_format_that_brought_them(rdf: dict[str, Any]) -> None:
    assert oldest_format({**rdf, "name": "Nuclei +"}) == "0.5.4"
    assert oldest_format({k: v for k, v in rdf.items() if k != "authors"}) == "0.5.5"
    assert oldest_format({**rdf, "covers": [{"source": "cover.png"}]}) == "0.5.11"
    rdf["inputs"][0]["axes"][1]["channel_names"] = ["DAPI 405"]
    assert oldest_format(rdf) == "0.5.11"


def test_channel_names_become_identifiers_and_stay_apart() -> None:
    assert as_identifier("405 nm") == "_405_nm"
    assert as_identifier("class") == "_class"
    assert channel_names(["nuclei variance", "nuclei-variance", "µm"]) == [
        "nuclei_variance_0",
        "nuclei_variance_1",
        "µm",
    ]
