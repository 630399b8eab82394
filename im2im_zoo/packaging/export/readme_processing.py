"""README sections on processing that the RDF cannot describe: before the input, and after the output."""

from collections.abc import Mapping, Sequence
from typing import Any

from im2im_zoo.recipe import Recipe


def custom_operations(rdf: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the operations that come before those of the RDF."""
    entries = rdf["config"]["im2im_zoo"].get("preprocessing") or [{"operations": []}]
    return list(entries[0]["operations"])


def inside_the_network(ours: Mapping[str, Any]) -> str:
    """Return the line on processing that moved into the network's graph; empty if none did.

    Args:
        ours: `config.im2im_zoo` of the RDF.
    """
    moved = ours.get("in_graph")
    if moved is None:
        return ""
    places = (("in front of the trained layers", "before"), ("behind them", "after"))
    texts = [f"{place} {' then '.join(map(_formula, moved[key]))}" for place, key in places if moved[key]]
    return (
        f"\n- The weights contain processing that programs compute differently: {'; '.join(texts)}. The network takes and gives the "
        f"images' own values. Moving it changed the test output by {moved['change']:.1g} of its largest value."
    )


def _formula(operation: Mapping[str, Any]) -> str:
    """Return an operation and its arguments: `scale_linear(gain=2.0, offset=-1.0)`."""
    kwargs = ", ".join(f"{k}={v}" for k, v in (operation.get("kwargs") or {}).items())
    return f"`{operation['id']}({kwargs})`"


def before_the_input(recipe: Recipe, rdf: Mapping[str, Any]) -> str:
    """Return the section on custom operations before the input."""
    operations = custom_operations(rdf)
    if not operations:
        return ""
    image_type = rdf["config"]["im2im_zoo"]["preprocessing"][0]["image_type"]
    imports = dict.fromkeys(
        f"from {o['source'].removesuffix('.py')} import {o['callable']}"
        for o in operations
        if o["id"] == "custom"
    )
    return f"""## Before the input

The model was trained on images that {_names(operations)} had processed whole. The format has no place for that in front of a
network, so the input of this package, and its test and sample image, is what comes out of it. `im2im-zoo predict` takes the
raw image and does it by itself. Everything else (bioimageio.core, Fiji, ilastik, QuPath) has to be given the processed image:

```python
import numpy as np

# with this folder in sys.path
{chr(10).join(imports)}

image = np.load("image.npy")  # the whole raw image ({image_type}), axes {", ".join(recipe.input.axes)}
{chr(10).join(map(_python, operations))}
```"""


def after_the_output(recipe: Recipe, rdf: Mapping[str, Any]) -> str:
    """Return the section on computing labels from the maps."""
    grouping = rdf["config"]["im2im_zoo"].get("grouping")
    if grouping is None:
        return ""
    axes = ", ".join(a for a in recipe.input.axes if a != "batch")
    module, function = grouping["source"].removesuffix(".py"), grouping["callable"]
    kwargs = "".join(f", {key}={value!r}" for key, value in grouping["kwargs"].items())
    return f"""## From maps to objects

The output of this package is maps: what the network says of each voxel. `{grouping["source"]}`, a file of this package that
needs numpy alone, makes labels of them, a number for each object and 0 for the background. It has to see the whole image at
once. `im2im-zoo predict` does it by itself: in an OME-Zarr the labels are beside the maps (`result.ome.zarr/labels/instances`),
any other result is the labels. Everything else (bioimageio.core, Fiji, ilastik, QuPath) gives the maps; in Python, after the
lines above:

```python
# with this folder in sys.path
from {module} import {function}

maps = result.data.transpose("batch", {", ".join(f'"{a}"' for a in recipe.input.axes[1:])}).values[0]  # {axes}; float32
labels = {function}(maps{kwargs})
```"""


def _names(operations: Sequence[Mapping[str, Any]]) -> str:
    names = [f"`{o['callable']}` (`{o['source']}`)" for o in operations if o["id"] == "custom"]
    return " and ".join(dict.fromkeys(names))


def _python(operation: Mapping[str, Any]) -> str:
    """Return an operation as a line of Python."""
    if operation["id"] == "custom":
        kwargs = ", ".join(f"{key}={value!r}" for key, value in operation["kwargs"].items())
        return f"image = {operation['callable']}({kwargs})(image)"
    if operation["id"] == "ensure_dtype":
        return f'image = image.astype("{operation["kwargs"]["dtype"]}")'
    return f"# here {operation['id']} as the format defines it: {operation.get('kwargs', {})}"
