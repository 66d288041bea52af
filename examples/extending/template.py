"""A parallel template: one row, and every transition to and from it follows from the three resharding rules."""

from apexsim.plan.plan import Layout
from apexsim.plan.reshard import layer_collectives
from apexsim.plan.templates import TEMPLATES, Template

TEMPLATES["replicated_ffn"] = Template("replicated_ffn", "nothing: every device holds the whole FFN", (), "whole")

attention = Layout(tp=8)
usual = layer_collectives(attention, Layout(tp=8), False, 16384.0)
whole = layer_collectives(attention, Layout(dp=8), False, 16384.0, feed=TEMPLATES["replicated_ffn"])
print([c.kind for c in usual], [c.kind for c in whole])
assert [c.kind for c in usual] == ["all_reduce", "all_reduce"]
assert [c.kind for c in whole] == ["reduce_scatter", "all_gather"]
