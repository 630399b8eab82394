"""Executors: what runs the units of a job, one file each."""
