"""Publishing of a package on bioimage.io or the Hugging Face Hub: checks before it, a dry run, and a resumable upload."""
