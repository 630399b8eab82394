"""Pages are self-contained and harmless, whatever the names of files, models, channels and metrics are."""

import base64
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import jinja2
import numpy as np
import pytest
import xarray as xr

from im2im_zoo.evaluation import Curve, Headline, Panel, Report, Sample, evaluate
from im2im_zoo.evaluation.gallery import Gallery, Remark, Row, write_gallery
from im2im_zoo.evaluation.report import report_html
from im2im_zoo.packaging import ValidationReport
from im2im_zoo.packaging.consumers.programs import ConsumerVerdict
from im2im_zoo.packaging.validation.findings import CoreVerdict, Finding, Note, Picture
from im2im_zoo.packaging.validation.page import validation_page
from im2im_zoo.pages import Line, line_chart, render
from im2im_zoo.recipe.load import load_recipe
from im2im_zoo.training.run import TrainingRun
from im2im_zoo.workflows.run_page import write_run_page

EVIL = (
    "<script>alert('x')</script></style></title>\"' onload=alert(1) {{ 7 * 7 }} $x_1$ &amp; 細胞 \x01 \udcff"
)
SHOWN = EVIL.replace("\udcff", "?")
TAGS = {
    "html", "head", "meta", "title", "style", "body", "main", "header", "section", "h1", "h2", "h3", "p", "div", "span",
    "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "img", "strong", "b", "i", "code",
    "small", "a", "details", "summary", "svg", "g", "path", "text", "tspan",
}  # fmt: skip


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def report_page(folder: Path) -> str:
    image = xr.DataArray(np.eye(8), dims=("y", "x"))
    channels = xr.DataArray(np.zeros((2, 8, 8)) + np.eye(8), dims=("channel", "y", "x"))
    evaluation = evaluate(channels.assign_coords(channel=[EVIL, "b"]), channels, "regression")
    return report_html(
        Report(
            EVIL,
            EVIL,
            (Headline(EVIL, 0.5, {EVIL: 0.4}),),
            (Sample(EVIL, (Panel(EVIL, image, caption=EVIL),), EVIL),),
            (Curve(EVIL, EVIL, EVIL, {EVIL: ((0, 2.0), (1, 1.0)), f"_{EVIL}": ((0, 3.0), (1, 1.0))}),),
            {EVIL: evaluation},
            {EVIL: {EVIL: EVIL}},
            {EVIL: EVIL.replace("/", "")},
            (EVIL,),
        )
    )


def gallery_page(folder: Path) -> str:
    image = xr.DataArray(np.eye(8), dims=("y", "x"))
    row = Row(EVIL, (Panel(EVIL, image, caption=EVIL),), EVIL, EVIL)
    gallery = Gallery(EVIL, EVIL, {EVIL: EVIL}, (Remark(EVIL, EVIL, EVIL, (EVIL,) * 15),), (row,))
    return write_gallery(folder / "page.html", gallery).read_text(encoding="utf-8")


def package_page(folder: Path) -> str:
    return validation_page(
        ValidationReport(
            EVIL,
            (Finding("error", "hash", EVIL, EVIL),),
            notes=(Note("weights", EVIL),),
            name=EVIL,
            version=EVIL,
            core=(CoreVerdict(EVIL, "failed", "passed", EVIL),),
            consumers=(ConsumerVerdict(EVIL, EVIL, EVIL, "cannot", EVIL, EVIL),),
            pictures=(Picture(EVIL, EVIL, b""),),
        )
    )


def run_page(folder: Path) -> str:
    recipe = load_recipe("nuclei_2d")
    recipe = recipe.model_copy(update={"name": EVIL, "monitor": EVIL, "trainer": {EVIL: EVIL}})
    provenance = {
        "state": "failed",
        "reason": EVIL,
        "data": {"train": [EVIL], "validation": [EVIL], "sha256": EVIL},
        "chosen": {EVIL: EVIL},
        **dict.fromkeys(("system", "processors", "accelerator", "git_revision"), EVIL),
        "versions": {EVIL: EVIL},
    }
    (folder / "pictures").mkdir()
    patch = np.random.default_rng(0).random((1, 1, 16, 16), dtype=np.float32)
    np.savez(folder / "pictures" / "epoch_00000.npz", input=patch, target=patch, output=patch)
    rows = ({"epoch": 0.0, EVIL: 1.0, "val_loss": 2.0}, {"epoch": 1.0, EVIL: 0.5, "val_loss": 1.0})
    return write_run_page(TrainingRun(folder, recipe, provenance, rows)).read_text(encoding="utf-8")


PAGES = {"report": report_page, "gallery": gallery_page, "package": package_page, "run": run_page}


@pytest.mark.parametrize("make", PAGES.values(), ids=PAGES)
def test_hostile_names_stay_text_on_every_page(make: Callable[[Path], str], tmp_path: Path) -> None:
    page = Page(make(tmp_path))
    tags = {tag for tag, _ in page.tags}
    assert not tags - TAGS
    assert sum(tag == "style" for tag, _ in page.tags) == sum(tag == "h1" for tag, _ in page.tags) == 1
    assert not [a for _, attributes in page.tags for a in attributes if a.startswith("on")]
    assert page.text.count(SHOWN) >= 5
    assert page.text.count("alert('x')") >= 6  # and in charts, which cannot hold the control character
    assert "49" not in page.text.split("{{ 7 * 7 }}")[1][:10]


@pytest.mark.parametrize("make", PAGES.values(), ids=PAGES)
def test_pages_load_nothing_and_describe_images_and_tables(
    make: Callable[[Path], str], tmp_path: Path
) -> None:
    text = make(tmp_path)
    page = Page(text)
    assert not re.search(r"url\(|@import", text)
    assert "Content-Security-Policy" in text
    assert ("html", {"lang": "en"}) in page.tags
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert images
    assert all(a["alt"] and str(a["src"]).startswith("data:") for a in images)
    assert all(a.get("scope") in ("col", "row") for tag, a in page.tags if tag == "th")
    assert all(a.get("role") == "img" for tag, a in page.tags if tag == "svg")
    assert not [a for tag, a in page.tags if tag != "meta" and "id" in a]  # ids of several charts would clash


def test_templates_escape_everything_and_styles_stand_in_one_sheet() -> None:
    folder = files("im2im_zoo.pages") / "templates"
    templates = {str(file): file.read_text(encoding="utf-8") for file in folder.iterdir()}
    assert len(templates) >= 5
    for name, text in templates.items():
        assert not re.search(r"\|\s*safe\b", text), name
        assert "autoescape" not in text, name
        assert text.count("<style") == (1 if "base.html" in name else 0), name


def test_a_value_that_a_template_lacks_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError, match="summary"):
        render("gallery.html.j2", title="t")


def test_a_chart_of_the_same_data_is_the_same_text() -> None:
    def draw() -> str:
        lines = [Line("a", ((0, 1.0), (1, 2.0))), Line("b", ((0, 2.0), (1, 1.0)), (1, 1.0))]
        return line_chart(lines, title="t", x_label="epoch", y_label="loss")

    assert draw() == draw()
    assert "20" not in "".join(ET.fromstring(draw()).itertext())  # no date


def test_a_chart_takes_its_colours_from_the_page() -> None:
    lines = [Line(str(n), ((0, 1.0), (1, float(n)))) for n in range(6)]
    svg = line_chart(lines, title="t", x_label="epoch", y_label="loss")
    assert not re.search(r"#[0-9a-f]{6}", svg)
    style = (files("im2im_zoo.pages") / "style.css").read_text(encoding="utf-8")
    assert all(f"{name}:" in style for name in set(re.findall(r"var\((--[\w-]+)\)", svg)))


def test_an_image_is_given_in_the_page_itself() -> None:
    page = validation_page(ValidationReport("p", (), pictures=(Picture("cover", "image/png", b"\x89PNG"),)))
    assert base64.b64encode(b"\x89PNG").decode() in page
