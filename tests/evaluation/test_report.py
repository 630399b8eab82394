import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr

from im2im_zoo.core.errors import EvaluationError
from im2im_zoo.evaluation import (
    Curve,
    Panel,
    Report,
    Sample,
    curve_from_rows,
    evaluate,
    headlines,
    otsu_mask,
    write_report,
)
from im2im_zoo.evaluation.curves import curve_svg
from im2im_zoo.evaluation.report import format_metric, metric_label, report_html

EVIL = "<script>alert('x')</script> & \"q\""


class Page(HTMLParser):
    """Collects tags with attributes, and checks that they close in order."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def report(nuclei_2d):
    raw, labels = (
        xr.DataArray(a[:128, :128], dims=("y", "x"), attrs={"pixel_size_um": {"y": 0.5, "x": 0.5}})
        for a in nuclei_2d
    )
    mask = otsu_mask(raw)
    evaluations = {
        "model": evaluate(labels, labels, "semantic"),
        "Otsu": evaluate(mask, labels, "semantic"),
    }
    rows = [
        {"epoch": str(e), "train_loss": str(1 / (e + 1)), "val_loss": "" if e % 2 else "0.5"}
        for e in range(6)
    ]
    panels = (
        Panel("input", raw),
        Panel("target", labels, kind="mask"),
        Panel("prediction", mask, kind="mask"),
        Panel("difference", mask, kind="overlap", target=labels),
    )
    return Report(
        title=f"Nuclei {EVIL}",
        summary=EVIL,
        headlines=headlines(evaluations, ("dice",)),
        samples=(
            Sample(EVIL, panels, note=EVIL),
            Sample("own", (Panel(EVIL, raw, caption=EVIL),)),
        ),
        curves=(curve_from_rows(rows, title=EVIL),),
        evaluations={**evaluations, EVIL: evaluations["Otsu"]},
        facts={EVIL: {EVIL: EVIL}},
        links={EVIL: "package/a b&c.yaml"},
        notes=(EVIL,),
    )


def test_the_page_is_one_file_without_script_or_outside_address(report, tmp_path):
    path = write_report(tmp_path / "report.html", report)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert "http" not in text.replace("http-equiv", "")
    assert "//" not in re.sub(r'base64,[^"]*"', "", text)
    assert "url(" not in text
    assert "@import" not in text
    sources = [a["src"] for tag, a in page.tags if tag == "img"]
    assert len(sources) == 5
    assert all(s.startswith("data:image/png;base64,") for s in sources)
    assert not [a for _, a in page.tags if any(k.startswith("on") for k in a)]


def test_all_text_is_escaped_and_there(report):
    page = Page(report_html(report))
    assert page.text.count(EVIL) >= 12


def test_the_page_shows_metrics_with_baselines_and_definitions(report):
    text = Page(report_html(report)).text
    otsu = report.evaluations["Otsu"].metrics["dice"]
    assert f"Otsu {otsu:.3f}" in text
    assert "1.000" in text
    for definition in report.evaluations["model"].definitions.values():
        assert definition in text
    assert "target foreground: value > 0" in text
    assert "10 µm" in text


def test_the_page_follows_light_and_dark_and_prints(report):
    text = report_html(report)
    for rule in ("prefers-color-scheme: dark", "@media print", "width=device-width"):
        assert rule in text


def test_an_empty_report_has_a_title_and_no_empty_section():
    text = report_html(Report("Only a title"))
    assert "<h2>" not in text
    assert "Only a title" in Page(text).text


def test_links_are_relative_and_percent_encoded(report):
    hrefs = [a["href"] for tag, a in Page(report_html(report)).tags if tag == "a"]
    assert hrefs == ["package/a%20b%26c.yaml"]


@pytest.mark.parametrize(
    "target", ["https://example.org/x", "/etc/passwd", "javascript:alert(1)", "C:\\x", "//host/x"]
)
def test_a_link_that_leads_elsewhere_is_refused(target):
    with pytest.raises(EvaluationError, match="relative"):
        report_html(Report("t", links={"file": target}))


def test_a_failed_report_leaves_the_old_one_as_it_was(tmp_path):
    path = write_report(tmp_path / "r.html", Report("old"))
    before = path.read_bytes()
    with pytest.raises(EvaluationError):
        write_report(path, Report("new", links={"x": "/abs"}))
    assert path.read_bytes() == before
    write_report(path, Report("new"))
    assert b"new" in path.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(EvaluationError, match="nowhere"):
        write_report(tmp_path / "nowhere" / "r.html", Report("t"))


def test_channels_get_their_own_table(nuclei_3d):
    volume = xr.DataArray(nuclei_3d[0][:2], dims=("channel", "y", "x"), coords={"channel": ["dna", "actin"]})
    result = evaluate(volume + 1, volume, "regression")
    text = Page(report_html(Report("t", evaluations={"model": result}))).text
    assert "all channels" in text
    assert "dna" in text
    assert text.count("Pearson correlation") == 3
    assert text.count(result.definitions["pearson"]) == 1


def test_a_headline_that_is_no_figure_names_those_that_are(report):
    with pytest.raises(EvaluationError, match=r"no metric auc.*dice, iou"):
        headlines(report.evaluations, ("auc",))


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("dice", 0.95049, "0.950"),
        ("psnr", 27.8149, "27.81 dB"),
        ("psnr", np.inf, "∞"),
        ("tp@0.50", 54.0, "54"),
        ("mse", 1234.56, "1235"),
        ("pearson[dna]", -0.5, "-0.500"),
        ("ssim", np.nan, "undefined"),
    ],
)
def test_metrics_are_written_for_people(metric, value, text):
    assert format_metric(metric, value) == text


def test_labels_are_written_for_people():
    assert metric_label("ap@0.50") == "AP at IoU 0.50"
    assert metric_label("mine") == "mine"


def test_a_curve_takes_rows_of_text_or_numbers_and_skips_blanks():
    rows = [
        {"epoch": "0", "train_loss_epoch": "2", "val_loss": ""},
        {"epoch": 1, "train_loss_epoch": 1.0, "val_loss": 3.0},
        {"epoch": 2, "train_loss_epoch": float("nan")},
    ]
    curve = curve_from_rows(rows)
    assert curve.series == {"training": ((0, 2), (1, 1)), "validation": ((1, 3),)}


def test_rows_without_the_column_say_what_there_is():
    with pytest.raises(EvaluationError, match=r"no column val_f1; there are epoch, train_loss"):
        curve_from_rows([{"epoch": 0, "train_loss": 1}], {"val_f1": "F1"})
    with pytest.raises(EvaluationError, match="no column of a loss"):
        curve_from_rows([{"epoch": 0}])
    with pytest.raises(EvaluationError, match=r"train_loss.*'a' is not a number"):
        curve_from_rows([{"epoch": 0, "train_loss": "a"}])


def drawn_points(svg, name):
    """Corners of the path in the group of a class."""
    (path,) = svg.findall(f".//g[@class='{name}']/path")
    return [tuple(map(float, corner)) for corner in re.findall(r"[ML] (\S+) (\S+)", path.attrib["d"])]


def test_lines_lie_inside_the_drawing_and_fall_when_the_values_fall():
    curve = Curve("c", "epoch", "loss", {"a": ((0, 5.0), (1, 3.0), (2, 1.0)), "b": ((0, 4.0), (2, 2.0))})
    svg = ET.fromstring(curve_svg(curve))
    _, _, width, height = map(float, svg.attrib["viewBox"].split())
    for number, count in enumerate((3, 2)):
        points = drawn_points(svg, f"line-{number}")
        assert len(points) == count
        assert all(0 < x < width and 0 < y < height for x, y in points)
        assert points == sorted(points)
        assert [y for _, y in points] == sorted(y for _, y in points)  # y grows downwards
    assert drawn_points(svg, "dot-1")[0] == drawn_points(svg, "line-1")[-1]
    texts = "".join(svg.itertext())
    assert "b, lowest 2 at epoch 2" in texts


@pytest.mark.parametrize(
    ("values", "log"),
    [((100.0, 0.1), True), ((2.0, 1.0), False), ((100.0, -1.0), False), ((0.0, 0.0), False)],
)
def test_a_wide_range_of_positive_values_is_drawn_in_log_scale(values, log):
    svg = curve_svg(Curve("c", "epoch", "loss", {"a": tuple(enumerate(values))}))
    assert ("log scale" in svg) is log
    assert "nan" not in svg


def test_a_single_point_is_a_dot():
    svg = ET.fromstring(curve_svg(Curve("c", "epoch", "loss", {"a": ((0, 0.3),)})))
    dot = drawn_points(svg, "dot-0")
    assert dot == [dot[0], dot[0]] == [*drawn_points(svg, "line-0"), dot[0]]


def test_a_log_scale_of_zero_is_refused():
    with pytest.raises(EvaluationError, match="above 0"):
        curve_svg(Curve("c", "epoch", "loss", {"a": ((0, 0.0), (1, 1.0))}, log=True))
