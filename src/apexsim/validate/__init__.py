"""Predictions held against measured systems (floor 5)."""

from apexsim.validate.replay import run
from apexsim.validate.words import render

__all__ = ["render", "run"]
