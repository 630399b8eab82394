"""Whole workflows, each of several rooms: what a command does, for Python too. Nothing is printed here."""
