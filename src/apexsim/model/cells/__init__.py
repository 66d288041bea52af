"""The cells that models are made of, a file for each kind (floor 2)."""

from apexsim.model.cells.attention import Attention
from apexsim.model.cells.experts import Experts
from apexsim.model.cells.ffn import Ffn
from apexsim.model.cells.indexer import NO_INDEXER, Indexer
from apexsim.model.cells.latent import LatentAttention
from apexsim.model.cells.linear import LinearAttention

__all__ = ["NO_INDEXER", "Attention", "Experts", "Ffn", "Indexer", "LatentAttention", "LinearAttention"]
