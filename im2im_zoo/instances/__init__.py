"""Instance segmentation: from maps to label images, as a whole or in blocks."""
