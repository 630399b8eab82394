// Nuclei in 2D fluorescence in QuPath 0.6 or later, with the extensions Deep Java Library and BioImage Model Zoo.
// Written from the sources of QuPath 0.8, May 2026; the export did not run it.
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
    .inputResolution(PixelCalibration.getDefaultInstance(), 1)
    .build()
def classifier = PatchClassifierParams.buildPixelClassifier(params)
getProject().getPixelClassifiers().put('nuclei-in-2d-fluorescence', classifier)
println "Saved the pixel classifier nuclei-in-2d-fluorescence"
