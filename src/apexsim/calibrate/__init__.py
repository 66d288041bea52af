"""A user's own benchmark results: factors on prices, and how far predictions are off after that."""
