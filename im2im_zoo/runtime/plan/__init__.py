"""Plan a prediction: pure functions from layout, halo and memory to tiles."""
