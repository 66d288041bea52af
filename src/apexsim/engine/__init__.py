"""The simulator's engine: arrays in, arrays out (floor E).  Before numba comes in, a place for machine code is found."""

from apexsim.engine import cache

cache.prepare()
