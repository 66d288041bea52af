"""The simulator's engine: arrays in, arrays out (floor E).  Where its machine code is kept is settled here, before numba."""

from apexsim.engine import cache

cache.prepare()
