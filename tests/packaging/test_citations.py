"""Packages cite the framework, the network and the library, each with the identifier of its `cite` or of our table."""

import ast
from pathlib import Path

import pytest
from packaging_samples import tiny_recipe

import im2im_zoo
from im2im_zoo.networks.ddim import DDIM
from im2im_zoo.packaging.citations import third_party_works, work_on, works_behind
from im2im_zoo.packaging.validation.drafts import draft_citations
from im2im_zoo.recipe.load import load_recipe, recipe_names

ROOT = Path(im2im_zoo.__file__).parent
# What is measured of networks, or helps several, is no network of somebody's.
NETWORKS = ("Net", "UNet", "Generator", "DDIM")


def classes(folder: str, endings: tuple[str, ...], base: str) -> list[str]:
    """Dotted paths of the classes of a folder that have a base and an ending."""
    found = []
    for file in sorted((ROOT / folder).glob("*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if (
                not isinstance(node, ast.ClassDef)
                or node.name.startswith("_")
                or node.name == "AdversarialFramework"
            ):
                continue
            if any(ast.unparse(b).endswith(base) for b in node.bases) and node.name.endswith(endings):
                found.append(f"im2im_zoo.{folder}.{file.stem}.{node.name}")
    return found


@pytest.mark.parametrize(
    "path", [*classes("frameworks", ("",), "Framework"), *classes("networks", NETWORKS, "Module")]
)
def test_each_framework_and_network_names_its_paper(path: str) -> None:
    work = work_on(path)
    assert work is not None, f"{path}: set its class attribute `cite`"
    assert work.doi.startswith("10.")
    # The docstring names the work too, in the file that has the class.
    file = ROOT / f"{path.removeprefix('im2im_zoo.').rpartition('.')[0].replace('.', '/')}.py"
    docstrings = [
        ast.get_docstring(n) or ""
        for n in ast.parse(file.read_text("utf-8")).body
        if isinstance(n, ast.ClassDef)
    ]
    assert any(work.doi.removeprefix("10.48550/arXiv.") in text for text in docstrings)


@pytest.mark.parametrize("name", recipe_names())
def test_each_recipe_cites_its_method_and_network(name: str) -> None:
    recipe = load_recipe(name)
    assert len(list(works_behind(recipe))) == 3
    cited = draft_citations(recipe)
    assert len({c.get("doi", c.get("url")) for c in cited}) == len(cited)
    assert [c.text for c in recipe.package.cite] == [c["text"] for c in cited[: len(recipe.package.cite)]]


def test_the_table_has_works_of_other_libraries_only() -> None:
    assert not [path for path in third_party_works() if path.startswith("im2im_zoo")]


def test_a_function_is_cited_by_the_class_that_it_returns() -> None:
    assert work_on("im2im_zoo.networks.ddim.timed_unet_ddim") == DDIM.cite


def test_a_class_without_a_work_and_code_of_others_are_not_cited() -> None:
    assert work_on("im2im_zoo.networks.embedding_maps.EmbeddingMaps") is None
    assert work_on("my_networks.UNet") is None


def test_what_the_person_cites_comes_first_and_once() -> None:
    own = [{"text": "Mine", "doi": "10.48550/arXiv.1411.4038"}]
    cited = draft_citations(tiny_recipe(2, "semantic", cite=own))
    assert cited[0]["text"] == "Mine"
    assert [c["doi"] for c in cited].count("10.48550/arXiv.1411.4038") == 1
