"""A trace sent to a running server, what came back, and how far from it the prediction lies (floor 5)."""
