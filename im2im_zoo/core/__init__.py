"""What every room uses: errors, axes, sizes, hashes, downloads and readers of files that may be hostile."""
