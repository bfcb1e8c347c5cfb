"""The one place where numba's flags stand.

Compiled code is cached on disk (`NUMBA_CACHE_DIR` moves the cache, `CONSTRAIN_JIT_CACHE=0` switches it off); where no
folder can be written, kernels are compiled anew in each process.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba import types
from numba.core.ccallback import CFunc

F = TypeVar("F", bound=Callable[..., Any])

# The GIL is kept: each call is then one atomic step on tables that many threads share.
_FLAGS: dict[str, Any] = {"nogil": False, "error_model": "numpy", "boundscheck": False}


@cache
def _sources() -> str:
    """A digest of all kernels' sources: a kernel is compiled into those that call it, across files.

    Triton's files and the plain definitions are never compiled here, so they leave what is cached as it is.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.name != "reference.py" and not path.name.startswith("gpu"):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _general(kind: Any) -> Any:
    kind = types.unliteral(kind)
    return types.int64 if isinstance(kind, types.Integer) and kind.bitwidth < 64 else kind


def _compiled_once(dispatcher: Any) -> Any:
    """Have calls from other kernels share one version: else numba compiles one for each literal and width of integers.

    What a literal would have saved, LLVM finds again when it inlines the call.
    """
    find = dispatcher.get_call_template

    def get_call_template(args: tuple[Any, ...], kws: dict[str, Any]) -> Any:
        return find(tuple(map(_general, args)), {name: _general(kind) for name, kind in kws.items()})

    dispatcher.get_call_template = get_call_template
    return dispatcher


def _stamped(dispatcher: Any) -> Any:
    """Tie the disk cache to all sources; by itself numba looks only at the file of the function."""
    index: Any = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
    if hasattr(index, "_source_stamp"):
        index._source_stamp = _sources()
    return dispatcher


def callback(function: Callable[[int, int], int]) -> Callable[[], int]:
    """Compile a loop that others call by its address: not into each of them, which would all take as long to compile.

    >>> @callback
    ... def add(x, y):
    ...     return x + y
    >>> add() > 0  # the address, for `memory.invoke`
    True
    """

    @cache
    def address() -> int:
        word = types.int64
        compiled = CFunc(function, ((word, word), word), {}, {"nopython": True, **_FLAGS, "nogil": True})
        if os.environ.get("CONSTRAIN_JIT_CACHE", "1") != "0":
            try:
                compiled.enable_caching()
                _stamped(compiled)
            except RuntimeError:
                pass
        compiled.compile()
        _kept.append(compiled)
        return int(compiled.address)

    return address


_kept: list[CFunc] = []  # code is freed with its object


def kernel(function: F) -> F:
    """Compile a bare loop over arrays with numba, on its first call.

    >>> @kernel
    ... def double(x):
    ...     return 2 * x
    >>> double(21)
    42
    """
    if os.environ.get("CONSTRAIN_JIT_CACHE", "1") != "0":
        try:
            return _compiled_once(_stamped(numba.njit(cache=True, **_FLAGS)(function)))
        except RuntimeError:  # numba: "cannot cache function: no locator available"
            pass
    return _compiled_once(numba.njit(**_FLAGS)(function))  # type: ignore[no-any-return]
