"""Write a token bitmask into logits on a CUDA device, in Triton; `reference.mask_rows` defines it.

With TRITON_INTERPRET=1 in the environment before this module is imported, the kernels run on CPU tensors: slow, but
without a GPU, which is how they are tested.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

import torch
import triton
import triton.language as tl

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
PROCESSORS = 132  # of an H100 or H200; others have about as many


@triton.jit
def allowed_bits(bitmask, group, words, VEC: tl.constexpr):
    """The bits of VEC adjacent tokens from group * VEC on: int32 [GROUPS]; 0 past the last word."""
    word = (group * VEC) >> 5  # [GROUPS]
    bits = tl.load(bitmask + word, mask=word < words, other=0)  # [GROUPS]
    return (bits >> ((group * VEC) & 31)) & ((1 << VEC) - 1)


@triton.jit
def mask_block(logits, bitmask, start, width, words, BLOCK: tl.constexpr, VEC: tl.constexpr):
    """Store -inf into logits[start : start + BLOCK] of one row wherever the bit is 0.

    Groups of 16 bytes are stored as a whole or not at all, and only those are read that are forbidden in part: memory
    that is written in pieces smaller than its sectors of 32 bytes is read anyway, and one access for each element
    takes six times as long on an H200.
    """
    group = start // VEC + tl.arange(0, BLOCK // VEC)  # [GROUPS]
    bits = allowed_bits(bitmask, group, words, VEC)  # [GROUPS]
    column = group[:, None] * VEC + tl.arange(0, VEC)[None, :]  # [GROUPS, VEC]
    touched = (bits != (1 << VEC) - 1) & (group * VEC + VEC <= width)  # [GROUPS]
    mixed = touched & (bits != 0)  # [GROUPS]
    low = tl.full((BLOCK // VEC, VEC), float("-inf"), logits.dtype.element_ty)
    x = low
    if tl.max(mixed.to(tl.int32), axis=0) != 0:
        x = tl.load(logits + column, mask=tl.broadcast_to(mixed[:, None], (BLOCK // VEC, VEC)), other=float("-inf"))
        x = tl.where(((bits[:, None] >> tl.arange(0, VEC)[None, :]) & 1) != 0, x, low)
    tl.store(logits + column, x, mask=tl.broadcast_to(touched[:, None], (BLOCK // VEC, VEC)))
    if start + BLOCK > width:  # the last group may be a part of one
        forbidden = ((bits[:, None] >> tl.arange(0, VEC)[None, :]) & 1) == 0
        tl.store(logits + column, low, mask=forbidden & (group[:, None] * VEC + VEC > width) & (column < width))


@triton.jit
def apply_kernel(
    logits,
    bitmask,
    rows,
    sources,
    logits_stride,
    bitmask_stride,
    width,
    words,
    BLOCK: tl.constexpr,
    VEC: tl.constexpr,
):
    """One program masks BLOCK logits of logits[rows[i]] by bitmask[sources[i]]; a negative source is skipped.

    Neighbouring programs write neighbouring memory, and rows=None or sources=None means that row i is number i.
    """
    blocks = tl.cdiv(width, BLOCK)
    row = (tl.program_id(0) // blocks).to(tl.int64)
    start = tl.program_id(0) % blocks * BLOCK
    source = row
    if sources is not None:
        source = tl.load(sources + row).to(tl.int64)
    if rows is not None:
        row = tl.load(rows + row).to(tl.int64)
    if source >= 0:
        line, mask = logits + row * logits_stride, bitmask + source * bitmask_stride
        mask_block(line, mask, start, width, words, BLOCK=BLOCK, VEC=VEC)


def apply_bitmask(
    logits: torch.Tensor,
    bitmask: torch.Tensor,
    rows: torch.Tensor | None = None,
    sources: torch.Tensor | None = None,
    block: int | None = None,
) -> None:
    """Set logits[row, token] to -inf wherever bit `token` of bitmask[row] is 0, for the given rows (all by default).

        apply_bitmask(logits, bitmask, rows=torch.tensor([0, 2], dtype=torch.int32, device="cuda"))

    logits: float32, float16 or bfloat16 [batch, width], any row stride, adjacent columns. bitmask: int32 [batch, words]
    on the same device; tokens past its last word are forbidden. rows: int32 [n] on the same device, each in 0..batch-1
    (not checked: that would wait for the device). sources: int32 [n], the row of the bitmask for each of the rows (then
    it may have any number of them); negative: left as it is. block: logits a program, a power of two. Raises
    `ValueError` for any other shape, type or device.
    """
    check_logits(logits)
    count = _check(logits, bitmask, rows, sources)
    width = logits.shape[1]
    if width == 0 or count == 0:
        return
    size = block or block_size(logits)
    with on_device(logits.device):
        apply_kernel[(triton.cdiv(width, size) * count,)](
            logits,
            bitmask,
            rows,
            rows if sources is None else sources,
            logits.stride(0),
            bitmask.stride(0),
            width,
            bitmask.shape[1],
            BLOCK=size,
            VEC=vector(logits),
            num_warps=4,
        )


def vector(logits: torch.Tensor) -> int:
    """Logits in one access of 16 bytes."""
    return 16 // logits.element_size()


def block_size(logits: torch.Tensor) -> int:
    """Logits a program: four accesses of 16 bytes for each of its 128 threads, while that gives all processors work."""
    if INTERPRETED:
        return interpreted_block(logits.shape[1])
    size = 4 * 128 * vector(logits)
    return size if logits.numel() >= PROCESSORS * size else size // 4


def interpreted_block(width: int) -> int:
    """In the interpreter, few and wide programs are fast."""
    return min(16384, max(64, int(triton.next_power_of_2(width))))


def check_logits(logits: torch.Tensor) -> None:
    """Raise `ValueError` unless these are logits that a kernel here can work on."""
    if logits.dtype not in DTYPES:
        raise ValueError(f"logits are {logits.dtype}; use float32, float16 or bfloat16")
    if logits.ndim != 2 or (logits.shape[1] > 1 and logits.stride(1) != 1):
        raise ValueError(f"logits must be [batch, width] with adjacent columns, not {tuple(logits.shape)}")
    if not logits.is_cuda and not INTERPRETED:
        raise ValueError(f"logits lie on {logits.device}; this kernel needs a CUDA device")


def _check(logits: torch.Tensor, bitmask: torch.Tensor, rows: torch.Tensor | None, sources: torch.Tensor | None) -> int:
    """The number of rows to mask."""
    any_number = sources is not None
    if bitmask.dtype != torch.int32 or bitmask.ndim != 2 or not (any_number or bitmask.shape[0] == logits.shape[0]):
        wanted = "masks" if any_number else logits.shape[0]
        raise ValueError(f"the bitmask must be int32 [{wanted}, words], not {bitmask.dtype} {tuple(bitmask.shape)}")
    if bitmask.shape[1] > 1 and bitmask.stride(1) != 1:
        raise ValueError("the words of a bitmask row must be adjacent")
    count = logits.shape[0] if rows is None else rows.numel()
    for name, numbers in (("bitmask", None), ("rows", rows), ("sources", sources)):
        if numbers is not None and (numbers.dtype != torch.int32 or numbers.shape != (count,)):
            raise ValueError(f"{name} must be int32 [{count}], not {numbers.dtype} {tuple(numbers.shape)}")
        if numbers is not None and not numbers.is_contiguous():
            raise ValueError(f"{name} must be contiguous")
        device = bitmask.device if numbers is None else numbers.device
        if device != logits.device:
            raise ValueError(f"logits lie on {logits.device}, {name} on {device}")
    return count


def on_device(device: torch.device) -> Any:
    """Triton launches on the current device, which need not be the tensors'."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
