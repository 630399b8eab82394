"""Files of a package that show how programs run it, with its own names, sizes and files filled in.

They are beside the RDF, not in a folder: bioimageio.spec moves all files of a package there when it writes or uploads one.
"""

from collections.abc import Callable, Mapping
from typing import Any

PREFIX = "example_"
_NOT_RUN = "Written from the sources of {program}; the export did not run it."


def examples(rdf: Mapping[str, Any]) -> dict[str, str]:
    """Return the text of each example by its name in the package, for the programs that can open it.

    Args:
        rdf: the RDF of the package as plain values.
    """
    made: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "fiji.ijm": _fiji,
        "qupath.groovy": _qupath,
        "ilastik.md": _ilastik,
        "bioimageio_core.py": _core,
        "napari.py": _napari,
    }
    if len(_space(rdf)) > 2:
        del made["qupath.groovy"]
    if not {"torchscript", "pytorch_state_dict"} & set(rdf["weights"]):
        del made["ilastik.md"]
    return {f"{PREFIX}{name}": write(rdf) for name, write in made.items()}


def _fiji(rdf: Mapping[str, Any]) -> str:
    return f"""// {rdf["name"]} in Fiji, with deepImageJ 3 (Help > Update > Manage update sites > DeepImageJ).
// {_NOT_RUN.format(program="deepImageJ 3, July 2025")}{_comment(rdf, "//")}

model = getDirectory("The folder of the model, unzipped");
input = File.openDialog("The image");
output = getDirectory("A folder for the result");
run("DeepImageJ Run", "model_path=[" + model + "] input_path=[" + input + "] output_folder=[" + output + "] display_output=all");
"""


def _qupath(rdf: Mapping[str, Any]) -> str:
    sizes = rdf["config"]["im2im_zoo"].get("pixel_size_um", {})
    known = {"x", "y"} <= set(sizes)
    calibration = (
        f"new PixelCalibration.Builder().pixelSizeMicrons({sizes['x']:.6g}, {sizes['y']:.6g}).build()"
        if known
        else "PixelCalibration.getDefaultInstance()"
    )
    resolution = f"{calibration}" if known else f"{calibration}, 1"
    return f"""// {rdf["name"]} in QuPath 0.6 or later, with the extensions Deep Java Library and BioImage Model Zoo.
// {_NOT_RUN.format(program="QuPath 0.8, May 2026")}{_comment(rdf, "//")}
// Open a project and an image, then run this in Automate > Script editor. It saves the model as a pixel classifier of the
// project: Classify > Pixel classification > Load pixel classifier shows it, measures it, and makes objects.

import qupath.bioimageio.spec.Model
import qupath.lib.images.servers.PixelCalibration
import qupath.opencv.ml.BioimageIoTools
import qupath.opencv.ml.PatchClassifierParams

def rdf = new File("/path/to/the/unzipped/package/rdf.yaml")

// Tiles as large as the image, up to 2048 pixels: they do not overlap, and statistics of an image are those of a tile.
def server = getCurrentServer()
def width = Math.min(server.getWidth(), 2048)
def height = Math.min(server.getHeight(), 2048)

def model = Model.parse(rdf)
def params = PatchClassifierParams.builder(BioimageIoTools.buildPatchClassifierParams(model, width, height))
    .inputResolution({resolution})
    .build()
def classifier = PatchClassifierParams.buildPixelClassifier(params)
getProject().getPixelClassifiers().put({rdf["config"]["bioimageio"]["nickname"]!r}, classifier)
println "Saved the pixel classifier {rdf["config"]["bioimageio"]["nickname"]}"
"""


def _ilastik(rdf: Mapping[str, Any]) -> str:
    axes = ", ".join(_space(rdf))
    return f"""# {rdf["name"]} in ilastik

{_NOT_RUN.format(program="ilastik's server, tiktorch 26.5")}

1. Start ilastik 1.4.1 or later and create a project `Neural Network Classification (Local)`.
2. *Input data*: add the image; its axes must be {axes}{" and c" if _channels(rdf) > 1 else ""}.
3. *NN prediction*: drag the zip of this package (or the folder's `rdf.yaml`) onto the model field, press *Load model*, then
   *Live prediction*.
4. *Export*: choose *Probabilities*.{_comment(rdf, "5.")}
"""


def _core(rdf: Mapping[str, Any]) -> str:
    source, result = rdf["inputs"][0], rdf["outputs"][0]
    return f'''"""{rdf["name"]} with bioimageio.core (pip install bioimageio.core onnxruntime)."""

from pathlib import Path

import numpy as np
from bioimageio.core import predict
from bioimageio.core.digest_spec import create_sample_for_model
from bioimageio.spec import load_model_description

PACKAGE = Path(__file__).resolve().parent
IMAGE = PACKAGE / "test_input.npy"  # or an image of yours: {", ".join(a.get("id", a["type"]) for a in source["axes"])}

model = load_model_description(PACKAGE / "rdf.yaml")
sample = create_sample_for_model(model, inputs={{{source["id"]!r}: np.load(IMAGE)}})
result = predict(model=model, inputs=sample).members[{result["id"]!r}].data
print({result["id"]!r}, dict(result.sizes), "from", float(result.min()), "to", float(result.max()))
'''


def _napari(rdf: Mapping[str, Any]) -> str:
    space = _space(rdf)
    add = "add_labels" if rdf["config"]["im2im_zoo"].get("grouping") else "add_image"
    return f'''"""{rdf["name"]} in napari (pip install im2im_zoo "napari[all]"): python example_napari.py IMAGE"""

import sys
from pathlib import Path

import im2im_zoo as zoo
import napari
from im2im_zoo.images import open_image

PACKAGE = Path(__file__).resolve().parent

image = open_image(sys.argv[1])
with zoo.open_model(PACKAGE) as model:
    result = model.predict_array(image)

viewer = napari.Viewer(ndisplay={2 if len(space) == 2 else 3})
viewer.add_image(image.squeeze().to_numpy(), name="image")
viewer.{add}(result.squeeze().to_numpy(), name={rdf["outputs"][0]["id"]!r})
napari.run()
'''


def _comment(rdf: Mapping[str, Any], mark: str) -> str:
    """Return lines on what the program does differently, each behind a comment mark."""
    ours = rdf["config"]["im2im_zoo"]
    lines = []
    if ours.get("preprocessing"):
        lines.append("Give it the image that the README's section `Before the input` has processed.")
    if ours.get("grouping"):
        lines.append("It gives maps; the README's section `From maps to objects` makes labels of them.")
    return "".join(f"\n{mark} {line}" for line in lines)


def _space(rdf: Mapping[str, Any]) -> list[str]:
    return [a["id"] for a in rdf["inputs"][0]["axes"] if a["type"] == "space"]


def _channels(rdf: Mapping[str, Any]) -> int:
    return next((len(a["channel_names"]) for a in rdf["inputs"][0]["axes"] if a["type"] == "channel"), 1)
