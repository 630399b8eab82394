"""Map the axes of images to the axes of tensors, without reading voxels."""
