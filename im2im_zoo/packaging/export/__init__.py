"""From a network and its recipe to a bioimage.io package."""
