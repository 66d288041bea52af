"""The simulator's engine: arrays in, arrays out (floor E).  Before numba comes in, it gets a place to cache in."""

from apexsim.engine import cache

cache.prepare()
