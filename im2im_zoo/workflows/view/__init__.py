"""Views: pictures and pages of an image, its prediction and its labels. Entry point: `write.write_view`."""
