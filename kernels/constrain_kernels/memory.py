"""Raw loads and stores: every table is an address, so a call passes one integer instead of thirty arrays.

Unboxing thirty arrays costs 1.5 us a call, one integer 0.1 us; a mask is filled in 0.5 us. Whoever owns the numpy
arrays (`constrain.automaton`) keeps them alive for as long as their addresses are in use.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


def _pointer(builder: Any, address: Any, index: Any, width: int) -> Any:
    return builder.gep(builder.inttoptr(address, ir.IntType(width).as_pointer()), [index])


def _loader(width: int, signed: bool) -> Any:
    def load(typingctx: Any, address: Any, index: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            value = builder.load(_pointer(builder, args[0], args[1], width))
            if width == 64:
                return value
            return (builder.sext if signed else builder.zext)(value, ir.IntType(64))

        return types.int64(types.int64, types.int64), codegen

    return intrinsic(load)


def _storer(width: int) -> Any:
    def store(typingctx: Any, address: Any, index: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            value = args[2] if width == 64 else builder.trunc(args[2], ir.IntType(width))
            builder.store(value, _pointer(builder, args[0], args[1], width))
            return context.get_dummy_value()

        return types.none(types.int64, types.int64, types.int64), codegen

    return intrinsic(store)


@intrinsic
def _copy(typingctx: Any, target: Any, source: Any, size: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        function = builder.module.declare_intrinsic("llvm.memcpy", [byte, byte, ir.IntType(64)])
        pointers = [builder.inttoptr(args[0], byte), builder.inttoptr(args[1], byte)]
        builder.call(function, [*pointers, args[2], ir.Constant(ir.IntType(1), 0)])
        return context.get_dummy_value()

    return types.none(types.int64, types.int64, types.int64), codegen


@intrinsic
def _clear(typingctx: Any, target: Any, size: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        function = builder.module.declare_intrinsic("llvm.memset", [byte, ir.IntType(64)])
        pointer = builder.inttoptr(args[0], byte)
        builder.call(function, [pointer, ir.Constant(ir.IntType(8), 0), args[1], ir.Constant(ir.IntType(1), 0)])
        return context.get_dummy_value()

    return types.none(types.int64, types.int64), codegen


@intrinsic
def _invoke(typingctx: Any, function: Any, first: Any, second: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        kind = ir.FunctionType(word, [word, word])
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])

    return types.int64(types.int64, types.int64, types.int64), codegen


g8 = _loader(8, signed=False)
g32 = _loader(32, signed=True)
g64 = _loader(64, signed=True)
p8 = _storer(8)
p32 = _storer(32)
p64 = _storer(64)
copy = _copy
clear = _clear
invoke = _invoke  # the function at an address, of two integers
