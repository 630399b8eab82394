"""The programs that run packages, and what each can run."""
