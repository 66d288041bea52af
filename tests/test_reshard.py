"""Resharding, checked by emulating devices: after its collectives every device has exactly what the next cell needs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from apexsim.errors import InputError
from apexsim.model.ops import Axis
from apexsim.plan.plan import Layout
from apexsim.plan.reshard import Reshuffle, expected_copies, layer_collectives, transition, width
from apexsim.plan.templates import TEMPLATES, ffn_template, template

HIDDEN = 3


def layouts(devices: int) -> list[Layout]:
    """Every dp × tp × ep of so many devices."""
    divisors = [d for d in range(1, devices + 1) if devices % d == 0]
    return [Layout(dp, tp, devices // dp // tp) for dp in divisors for tp in divisors if devices // dp % tp == 0]


class Machine:
    """Devices that hold rows of tokens: (first token, array [rows, HIDDEN])."""

    def __init__(self, layout: Layout, partial: bool, seed: int = 0) -> None:
        self.n = layout.devices
        rng = np.random.default_rng(seed)
        self.truth = rng.integers(-9, 9, (self.n * 2, HIDDEN))
        rows = len(self.truth) // layout.dp
        self.held = []
        for replica in range(layout.dp):
            whole = self.truth[replica * rows : (replica + 1) * rows]
            parts = [rng.integers(-9, 9, whole.shape) for _ in range(width(layout) - 1)]
            parts.append(whole - sum(parts) if parts else whole)
            self.held += [(replica * rows, part if partial else whole) for part in parts]

    def groups(self, move: Reshuffle) -> list[list[int]]:
        """Members of every group, in rank order; each device is in exactly one."""
        extent = move.group * move.stride
        groups = [
            [base + offset + rank * move.stride for rank in range(move.group)]
            for base in range(0, self.n, extent)
            for offset in range(move.stride)
        ]
        assert sorted(itertools.chain(*groups)) == list(range(self.n))
        return groups

    def run(self, move: Reshuffle) -> None:
        """Carry out one collective."""
        tensor = len(self.truth) // move.dp
        for group in self.groups(move):
            if move.kind == "all_gather":
                self.gather(group, tensor)
                continue
            start = self.held[group[0]][0]
            assert all(self.held[d][0] == start and len(self.held[d][1]) == tensor for d in group)
            total = sum(self.held[d][1] for d in group)
            share = tensor // len(group)
            for rank, d in enumerate(group):
                scattered = (start + rank * share, total[rank * share : (rank + 1) * share])
                self.held[d] = scattered if move.kind == "reduce_scatter" else (start, total)

    def gather(self, group: list[int], tensor: int) -> None:
        """Each member gives its part (slicing what it has), all get the tensor."""
        first = group[0] * len(self.truth) // self.n // tensor * tensor
        share = tensor // len(group)
        parts = [self.slice(d, first + rank * share, share) for rank, d in enumerate(group)]
        for d in group:
            self.held[d] = (first, np.concatenate(parts))

    def slice(self, device: int, first: int, rows: int) -> np.ndarray:
        start, array = self.held[device]
        assert start <= first and first + rows <= start + len(array), "a device gives what it does not have"
        return array[first - start : first - start + rows]

    def check(self, layout: Layout) -> None:
        """Every device can slice out the summed tokens of its replica."""
        rows = len(self.truth) // layout.dp
        for device in range(self.n):
            first = device // width(layout) * rows
            np.testing.assert_array_equal(self.slice(device, first, rows), self.truth[first : first + rows])


@pytest.mark.parametrize("devices", range(1, 17))
@pytest.mark.parametrize("partial", [True, False])
def test_every_transition_delivers_what_the_next_cell_needs(devices: int, partial: bool) -> None:
    for left, right in itertools.product(layouts(devices), repeat=2):
        machine = Machine(left, partial)
        for move in transition(left, right, partial):
            assert move.group > 1
            machine.run(move)
        machine.check(right)


@pytest.mark.parametrize("devices", [1, 2, 6, 8, 12])
def test_a_block_returns_to_where_it_began(devices: int) -> None:
    for attention, ffn in itertools.product(layouts(devices), repeat=2):
        there, back = transition(attention, ffn), transition(ffn, attention)
        moved = layer_collectives(attention, ffn, False, 100.0)
        assert [(c.kind, c.group, c.stride) for c in moved] == [(m.kind, m.group, m.stride) for m in there + back]


def test_no_collective_is_left_out_of_the_emulation() -> None:
    machine = Machine(Layout(tp=4), partial=True)
    with pytest.raises(AssertionError):
        machine.check(Layout(tp=4))


def test_equal_layouts_need_one_all_reduce_per_cell() -> None:
    kinds = [(c.kind, c.group, c.split) for c in layer_collectives(Layout(tp=8), Layout(tp=8), False, 16384.0)]
    assert kinds == [("all_reduce", 8, 1)] * 2


def test_a_parallel_block_shares_one_reduction() -> None:
    assert len(layer_collectives(Layout(tp=8), Layout(tp=8), True, 16384.0)) == 1


def test_one_device_moves_nothing() -> None:
    assert layer_collectives(Layout(), Layout(), False, 16384.0) == ()


def test_data_parallel_attention_gathers_and_scatters_around_a_tensor_parallel_ffn() -> None:
    moved = layer_collectives(Layout(dp=2, tp=4), Layout(tp=8), False, 16384.0)
    assert [(c.kind, c.group, c.axis, c.split) for c in moved] == [
        ("reduce_scatter", 4, Axis.LANE, 1),
        ("all_gather", 8, Axis.TOTAL, 1),
        ("reduce_scatter", 8, Axis.TOTAL, 1),
        ("all_gather", 4, Axis.LANE, 1),
    ]


def test_ffn_replicas_gather_and_scatter_inside_themselves() -> None:
    moved = layer_collectives(Layout(tp=8), Layout(dp=4, tp=2), False, 16384.0)
    assert [(c.kind, c.group, c.axis, c.split) for c in moved] == [
        ("reduce_scatter", 8, Axis.TOTAL, 1),
        ("all_gather", 2, Axis.TOTAL, 4),
        ("reduce_scatter", 2, Axis.TOTAL, 4),
        ("all_gather", 8, Axis.TOTAL, 1),
    ]


def test_whole_results_are_gathered_across_replicas_a_stride_apart() -> None:
    assert transition(Layout(dp=2, tp=4), Layout(tp=8), left_partial=False) == (Reshuffle("all_gather", 2, 4, 1),)


def test_exchange_sends_tokens_out_and_back() -> None:
    moved = layer_collectives(
        Layout(dp=8), Layout(ep=8), False, 100.0, feed=TEMPLATES["expert_exchange"], copies=expected_copies(256, 8, 8)
    )
    assert [(c.kind, c.group) for c in moved] == [("all_to_all", 8)] * 2
    assert moved[0].bytes_per_token == pytest.approx(100.0 * 5.31, rel=0.01)


def test_expected_copies_against_drawn_experts() -> None:
    rng = np.random.default_rng(1)
    drawn = np.argsort(rng.random((4000, 64)), axis=1)[:, :6] // 8
    seen = np.mean([len(set(row)) for row in drawn])
    assert expected_copies(64, 6, 8) == pytest.approx(seen, abs=0.05)


def test_templates_know_their_width_and_an_unknown_one_is_named() -> None:
    assert [TEMPLATES[n].width(Layout(2, 4, 3)) for n in ("heads", "expert_ranks", "replicated")] == [4, 12, 1]
    assert ffn_template(Layout(ep=8), routed=True).name == "expert_ranks"
    assert ffn_template(Layout(tp=8), routed=True).name == "expert_columns"
    with pytest.raises(InputError, match="columns"):
        template("colums")
