"""How a cell splits over the devices of a stage, and what that leaves behind (floor 2).

A template is a row: which factors of the `Layout` divide its weights, and whether the devices of a replica end with
partial sums (`partial`), with whole results (`whole`), or send tokens to where the weights are (`exchange`).
Resharding, memory and lowering read nothing else, so a new way of splitting is a new row.
"""

from __future__ import annotations

from dataclasses import dataclass

from apexsim.errors import InputError, nearest
from apexsim.plan.plan import Layout


@dataclass(frozen=True, slots=True)
class Template:
    """One way of splitting a cell.

    divides: what is dealt out, in words; over: the factors of `Layout` that divide it; leaves: "partial" (sums over
    those factors are still to be added) or "whole"; exchange: the collective that carries tokens in and results out.
    """

    name: str
    divides: str
    over: tuple[str, ...]
    leaves: str
    exchange: str = ""

    def width(self, layout: Layout) -> int:
        """Devices that the weights of one replica of the cell are divided over."""
        product = 1
        for factor in self.over:
            product *= getattr(layout, factor)
        return product


TEMPLATES = {
    t.name: t
    for t in (
        Template("heads", "attention heads; output projection by rows", ("tp",), "partial"),
        Template("columns", "columns of the first FFN product, rows of the second", ("tp",), "partial"),
        Template("expert_columns", "the columns of every expert", ("tp",), "partial"),
        Template("expert_ranks", "whole experts; every device sees all tokens of its replica", ("tp", "ep"), "partial"),
        Template("expert_exchange", "whole experts; tokens travel to them and back", ("tp", "ep"), "whole", "all_to_all"),
        Template("replicated", "nothing", (), "whole"),
    )
}


def template(name: str) -> Template:
    """The template called `name`; raises InputError with the nearest names."""
    if name not in TEMPLATES:
        raise InputError(f"unknown template '{name}'", "template", nearest(name, TEMPLATES))
    return TEMPLATES[name]


def ffn_template(ffn: Layout, routed: bool, exchange: bool = False) -> Template:
    """The template that a layout means for a dense (`routed` false) or an expert cell.

    Exchange by all-to-all is a choice of the engine (DeepEP and kin); the default, gather and reduce-scatter, is what
    engines do without such a library.
    """
    if not routed:
        return TEMPLATES["columns"]
    if ffn.ep == 1:
        return TEMPLATES["expert_columns"]
    return TEMPLATES["expert_exchange" if exchange else "expert_ranks"]
