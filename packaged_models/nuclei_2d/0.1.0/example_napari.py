"""Nuclei in 2D fluorescence in napari (pip install im2im_zoo "napari[all]"): python example_napari.py IMAGE"""

import sys
from pathlib import Path

import im2im_zoo as zoo
import napari
from im2im_zoo.images import open_image

PACKAGE = Path(__file__).resolve().parent

image = open_image(sys.argv[1])
with zoo.open_model(PACKAGE) as model:
    result = model.predict_array(image)

viewer = napari.Viewer(ndisplay=2)
viewer.add_image(image.squeeze().to_numpy(), name="image")
viewer.add_image(result.squeeze().to_numpy(), name='probability')
napari.run()
