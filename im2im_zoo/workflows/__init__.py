"""Workflows that combine several packages: the functions behind the commands. They report by callbacks."""
