"""Export of a network and its recipe as a bioimage.io package."""
