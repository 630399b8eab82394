"""The sentence on a model that is not better than a trivial method."""

import math

import pytest
import yaml

from im2im_zoo.packaging.export.export import _warnings
from im2im_zoo.packaging.export.rdf.content import Metrics
from im2im_zoo.packaging.export.readme import write_readme
from im2im_zoo.packaging.export.usefulness import compare_with_baselines
from im2im_zoo.recipe.load import load_recipe


@pytest.mark.parametrize(
    ("values", "baselines", "expected"),
    [
        (
            {"dice": 0.8},
            {"Otsu dice": 0.8},
            "not better than Otsu on the held-out images (Dice 0.8 against 0.8)",
        ),
        ({"dice": 0.81}, {"Otsu dice": 0.8}, None),
        (
            {"mean_ap": 0.1, "ap@0.50": 0.9, "pooled_mean_ap": 0.9},
            {
                "Otsu components mean_ap": 0.3,
                "Otsu watershed mean_ap": 0.4,
                "Otsu watershed pooled_mean_ap": 0.9,
            },
            "not better than Otsu watershed on the held-out images (mean AP 0.1 against 0.4)",
        ),
        ({"mean_ap": 0.5, "ap@0.50": 0.1}, {"Otsu mean_ap": 0.3, "Otsu ap@0.50": 0.4}, None),
        ({"pearson": math.nan}, {"linear fit pearson": 0.3}, "(Pearson correlation undefined against 0.3)"),
        ({"pearson": 0.2, "mse": 9.0}, {"linear fit pearson": math.nan, "linear fit mse": 1.0}, None),
        ({"dice": 0.1}, {}, None),
        ({}, {"Otsu dice": 0.8}, None),
    ],
)
def test_the_decisive_metric_is_compared_with_the_best_trivial_method(values, baselines, expected):
    sentence = compare_with_baselines(Metrics(values, baselines))
    assert sentence is None if expected is None else expected in sentence


def test_the_readme_and_the_warnings_have_the_sentence(packaged) -> None:
    exported = packaged(2, "regression")
    assert "not better" not in (exported.folder / "README.md").read_text(encoding="utf-8")
    recipe = load_recipe(exported.folder / "recipe.yaml")
    rdf = yaml.safe_load((exported.folder / "rdf.yaml").read_text(encoding="utf-8"))
    worse = Metrics({"pearson": 0.3}, {"linear fit pearson": 0.4})
    sentence = "This model is not better than linear fit on the held-out images (Pearson correlation 0.3 against 0.4)."
    assert sentence in write_readme(recipe, rdf, worse, {}, 1).split("## Validation")[1]
    assert any(line.startswith(sentence) for line in _warnings(recipe, rdf, worse))
