"""Instance segmentation: from maps to label images, whole or in blocks."""
