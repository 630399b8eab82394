"""Recipes: what is accepted, what is overridden, and what each wrong key says."""

from pathlib import Path

import pytest

from im2im_zoo.core.errors import RecipeError
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.load import dump_recipe, load_recipe, parse_value, recipe_names


@pytest.fixture(params=sorted(recipe_names()))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_shipped_recipe_is_read_and_written_back_equal(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    file = tmp_path / "recipe.yaml"
    file.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(file) == recipe


def test_there_are_recipes_for_2d_and_3d_regression_and_segmentation() -> None:
    recipes = [load_recipe(path) for path in recipe_names().values()]
    kinds = {(len(r.space), r.output.task) for r in recipes}
    assert kinds >= {(2, "regression"), (3, "regression"), (2, "semantic"), (3, "semantic")}


def test_an_override_reaches_any_depth() -> None:
    recipe = load_recipe(
        "nuclei_2d",
        [
            ("network.kwargs.features.0", 16),
            ("trainer.max_epochs", 3),
            ("framework.kwargs.optimizer.kwargs.lr", 0.5),
            ("input.preprocessing.0.kwargs.min_percentile", 2.5),
            ("data.augmentations.1.kwargs.prob", 1.0),
        ],
    )
    assert recipe.network.kwargs["features"] == [16, 24, 24, 32, 32, 12]
    assert recipe.trainer["max_epochs"] == 3
    assert recipe.framework.kwargs["optimizer"]["kwargs"]["lr"] == 0.5
    assert recipe.input.preprocessing[0].kwargs.min_percentile == 2.5  # type: ignore[union-attr]
    assert recipe.data.augmentations[1].kwargs["prob"] == 1.0


def test_an_override_of_one_number_keeps_the_rest_of_a_default_of_the_signature(tmp_path: Path) -> None:
    content = dump_recipe(load_recipe("nuclei_2d")).replace("features:", "strides_not_used:")
    lines = [
        line
        for line in content.splitlines()
        if "strides_not_used" not in line and not line.startswith("    - ")
    ]
    file = tmp_path / "recipe.yaml"
    file.write_text("\n".join(lines), encoding="utf-8")
    recipe = load_recipe(file, [("network.kwargs.features.0", 16)])
    assert recipe.network.kwargs["features"] == [
        16,
        32,
        64,
        128,
        256,
        32,
    ]  # BasicUNet's own default, but the first


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("networ", 1, r"unknown key 'networ'; did you mean 'network'\?"),
        ("data.pth", 1, r"unknown key 'data\.pth'; did you mean 'path'\?"),
        (
            "input.preprocessing.0.kwargs.axs",
            1,
            r"'input\.preprocessing\.0\.kwargs\.axs'; did you mean 'axes'\?",
        ),
        (
            "input.preprocessing.0.id",
            "scal_range",
            r"input\.preprocessing\.0: .*did you mean 'scale_range'\?",
        ),
        (
            "data.pairing",
            "foo",
            r"data\.pairing: .*'folders', 'suffixes', 'patterns', 'csv', 'channels', 'unpaired' or 'self'.*'foo'",
        ),
        ("data.patch_size", [64], r"data\.patch_size has 1 numbers, but input\.axes has the space axes y, x"),
        ("input.axes", "bcyq", r"input\.axes: .*'q' is not an axis"),
        ("input.axes", "bcxy", r"input: axes are batch, channel, x, y: use batch"),
        (
            "network.kwargs.features.9",
            1,
            r"--network\.kwargs\.features\.9: '9' is not an index of a list of 6",
        ),
        ("name.first", 1, r"--name\.first: .*has no keys"),
        ("data.pairs", "pairs.csv", r"data\.pairs: input should be a list \(it is 'pairs\.csv'\)"),
        ("data.batch_size", 0, r"data\.batch_size: .*greater than or equal to 1"),
        ("package.authors", [{"nme": "x"}], r"unknown key 'package\.authors\.0\.nme'; did you mean 'name'\?"),
    ],
)
def test_a_wrong_override_names_the_full_key_and_what_is_right(key: str, value: object, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe("nuclei_2d", [(key, value)])


def test_an_unknown_name_says_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"did you mean 'nuclei_2d'"):
        load_recipe("nuclei2d")


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [1\n", "\x00"])
def test_a_file_that_is_no_mapping_is_refused_by_name(text: str, tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=r"broken\.yaml"):
        load_recipe(file)


def test_yaml_cannot_build_objects(tmp_path: Path) -> None:
    file = tmp_path / "evil.yaml"
    file.write_text(
        f"name: !!python/object/apply:pathlib.Path.touch [{tmp_path / 'touched'}]\n", encoding="utf-8"
    )
    with pytest.raises(RecipeError, match="cannot be read as YAML"):
        load_recipe(file)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("16", 16),
        ("1e-3", 1e-3),
        ("2.", 2.0),
        ("[1, 2]", [1, 2]),
        ("true", True),
        ("null", None),
        ("a: b: c", "a: b: c"),
        ("12h", "12h"),
    ],
)
def test_a_value_is_what_it_looks_like(text: str, value: object) -> None:
    parsed = parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


def test_a_recipe_cannot_be_changed() -> None:
    recipe = load_recipe("nuclei_2d")
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 3  # type: ignore[misc]


def test_every_key_of_our_sections_is_described_in_the_schema() -> None:
    schema = Recipe.model_json_schema()
    ours = ("Data", "Input", "Target", "Output", "PackageMetadata", "Component")
    missing = [
        f"{name}.{key}"
        for name in ours
        for key, entry in schema["$defs"][name]["properties"].items()
        if "description" not in entry
    ]
    assert not missing


def test_the_weights_to_start_from_are_read_and_written_back(tmp_path: Path) -> None:
    recipe = load_recipe("nuclei_2d", [("network.init_from", "runs/first")])
    assert recipe.network.init_from == Path("runs/first")
    file = tmp_path / "recipe.yaml"
    file.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(file) == recipe


def test_only_the_network_can_start_from_a_run() -> None:
    with pytest.raises(RecipeError, match=r"unknown key 'framework\.init_from'"):
        load_recipe("nuclei_2d", [("framework.init_from", "runs/first")])
