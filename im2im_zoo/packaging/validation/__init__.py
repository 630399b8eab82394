"""Validation of a package: checks, findings and the page that shows them."""
