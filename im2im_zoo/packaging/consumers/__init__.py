"""Programs that run packages, and the packages that each can run."""
