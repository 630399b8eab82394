"""Measure a network: its fastest engine, halo, memory and time, kept in the user's cache."""
