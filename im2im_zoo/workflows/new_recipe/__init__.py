"""A recipe of the user's own, written for the images of a folder."""
