"""Machine code without numba: arguments laid out in memory, an object file loaded, its function called (floor E).

A named tuple goes as the address of a block that holds its members one after the other, as engine/ref.py reads them: a
number, an array as numba keeps one (owner, parent, cells, bytes of a cell, address, shape, strides), None as nothing, and
a tuple inside as its own members.  An array alone goes as these words themselves.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct
from typing import Any

import numpy as np


class Unusable(Exception):
    """An object file that this process cannot run."""


@dataclass(frozen=True, slots=True)
class Laid:
    """Arguments as machine code takes them."""

    kind: str  # what they are: machine code serves one kind
    words: list[Any]  # numbers and addresses, in the order of the arguments
    blocks: list[Any]  # memory that lives as long as the call


def laid(arguments: Sequence[Any]) -> Laid:
    """Arguments of an outer function: named tuples, arrays, whole numbers."""
    told: list[str] = []
    words: list[Any] = []
    blocks: list[Any] = []
    for value in arguments:
        if isinstance(value, tuple):
            kind: list[str] = []
            members: list[Any] = []
            _lay(value, kind, members)
            told.append(" ".join(kind))
            block = ctypes.create_string_buffer(_packer(told[-1]).pack(*members))
            blocks.append(block)
            words.append(ctypes.addressof(block))
        else:
            _lay_one(value, told, words)
    return Laid(";".join(told), words, blocks)


def _lay(row: tuple[Any, ...], kind: list[str], words: list[Any]) -> None:
    """Members of a named tuple, those of tuples inside in their place."""
    kind.append(type(row).__name__ + "(")
    for value in row:
        if isinstance(value, tuple):
            _lay(value, kind, words)
        else:
            _lay_one(value, kind, words)
    kind.append(")")


def _lay_one(value: Any, kind: list[str], words: list[Any]) -> None:
    if isinstance(value, np.ndarray):
        assert value.flags.carray, "the engine takes arrays that are dense and may be written to"
        kind.append(_ARRAYS[value.dtype.char, value.ndim])
        at = ctypes.addressof(_cell(value)) if value.size else 0
        words += (0, 0, value.size, value.itemsize, at, *value.shape, *value.strides)
    elif value is None:
        kind.append("n")
        words.append(0)
    else:
        kind.append(_NUMBERS[type(value)])
        words.append(value)


_cell = ctypes.c_char.from_buffer  # the quickest way to an address
_NUMBERS = {bool: "b", np.bool_: "b", int: "q", np.int64: "q", float: "d", np.float64: "d"}
_CELLS = {"n": "q", "b": "?", "q": "q", "d": "d"}  # as `struct` names them


# Words of an array, then what its cells are.
_ARRAYS = {(letter, n): f"{5 + 2 * n}:{np.dtype(letter).str}" for letter in "dlqih" for n in range(1, 8)}


@lru_cache(maxsize=256)
def _packer(kind: str) -> Struct:
    """How a named tuple of a kind lies in memory; a tuple inside begins and ends where a word may begin."""
    return Struct("@" + "".join(_CELLS.get(part) or (f"{part.split(':')[0]}q" if ":" in part else "0q") for part in kind.split()))


@dataclass(frozen=True, slots=True)
class MachineCode:
    """A function of machine code; it runs without Python's lock."""

    function: Any
    returns: int  # whole numbers
    engine: Any  # keeps the code

    @classmethod
    def of(cls, code: bytes) -> MachineCode:
        """From what `packed` made; raises Unusable and whatever a wrong file leads to."""
        head, _, machine = code.partition(b"\n")
        told = json.loads(head)
        engine = _engine(machine, told["needs"])
        address = engine.get_function_address(told["entry"])
        if not address:
            raise Unusable(told["entry"])
        return cls(
            ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * told["words"])(address), told["returns"], engine
        )

    def call(self, laid: Laid) -> Any:
        """The function's value."""
        found, fault = (ctypes.c_int64 * max(1, self.returns))(), ctypes.c_void_p()
        status = self.function(ctypes.addressof(found), ctypes.addressof(fault), *laid.words)
        assert status == 0, f"compiled code ended with status {status}"
        return found[0] if self.returns == 1 else tuple(found)


def packed(entry: str, words: int, returns: int, needs: Sequence[str], machine: bytes) -> bytes:
    """A function as it is kept: its name, words that it takes, numbers that it returns, what it calls outside, the object file."""
    return json.dumps({"entry": entry, "words": words, "returns": returns, "needs": list(needs)}).encode() + b"\n" + machine


@lru_cache
def _target() -> Any:
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding


def _engine(machine: bytes, needs: Sequence[str]) -> Any:
    """LLVM's loader with an object file in it; what the file calls must be known, LLVM ends the process where it is not."""
    binding = _target()
    if not all(map(binding.address_of_symbol, needs)):
        _numbas_own()
    missing = [name for name in needs if not binding.address_of_symbol(name)]
    if missing:
        raise Unusable(", ".join(missing))
    made = binding.create_mcjit_compiler(binding.parse_assembly(""), binding.Target.from_default_triple().create_target_machine(jit=True))
    made.add_object_file(binding.ObjectFileRef.from_data(machine))
    made.finalize_object()
    return made


def _numbas_own() -> None:
    """Let numba tell LLVM where its own functions are: on some processors it calls them for what others have an instruction for."""
    from numba.core.registry import cpu_target

    cpu_target.target_context.refresh()
