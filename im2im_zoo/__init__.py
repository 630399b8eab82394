"""im2im_zoo: train, package, validate and run microscopy image-to-image models."""
