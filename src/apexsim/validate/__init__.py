"""Predictions held against measured systems (floor 5)."""
