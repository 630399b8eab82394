"""Instance methods of other libraries: StarDist and Cellpose."""
