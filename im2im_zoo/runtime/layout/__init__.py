"""How the axes of images become the axes of tensors; no voxel is read."""
