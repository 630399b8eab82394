"""Training: from a recipe to a run folder. `train` writes one, `open_run` reads one."""
