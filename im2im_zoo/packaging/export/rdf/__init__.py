"""The RDF of an exported package."""
