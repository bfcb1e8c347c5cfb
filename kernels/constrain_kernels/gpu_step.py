"""Follow requests through a device's tables, in Triton: advance, step and build; `reference.py` defines them.

`step` is one launch without a word from the host: choose a token for each row among those its state allows, and walk
its bytes to the next state. A row whose next state is not in the tables freezes until the host has learnt it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from constrain_kernels.device_layout import (
    DEAD,
    DONE,
    FREE,
    FROZEN,
    LIST_MOST,
    NO_TOKEN,
    STOP,
    TEXT,
    UNKNOWN,
    Rows,
    Tables,
)
from constrain_kernels.gpu_apply import INTERPRETED, check_logits, interpreted_block, mask_block, on_device, vector
from constrain_kernels.gpu_sample import (
    BLOCK,
    NONE,
    WARPS,
    combine,
    list_best,
    list_threshold,
    part_best,
    splits,
    unpack,
)

_FREE, _FROZEN = tl.constexpr(FREE), tl.constexpr(FROZEN)
_DEAD, _UNKNOWN, _DONE = tl.constexpr(DEAD), tl.constexpr(UNKNOWN), tl.constexpr(DONE)
_TEXT, _STOP, _NO_TOKEN = tl.constexpr(TEXT), tl.constexpr(STOP), tl.constexpr(NO_TOKEN)
_LEAST, _NONE = tl.constexpr(-(1 << 31)), tl.constexpr(NONE)


@triton.jit
def walk_token(token, state, next_states, accepts, token_bytes, token_offsets, token_kinds):
    """The state after a token, UNKNOWN or DEAD."""
    kind = tl.load(token_kinds + token)
    if kind == _TEXT:
        at = tl.load(token_offsets + token).to(tl.int64)
        end = tl.load(token_offsets + token + 1).to(tl.int64)
        byte = tl.load(token_bytes + at).to(tl.int64)
        while (at < end) & (state >= 0):
            at += 1
            following = tl.load(token_bytes + at).to(tl.int64)  # before the state is waited for
            state = tl.load(next_states + state.to(tl.int64) * 256 + byte)
            byte = following
    else:
        accepting = (kind == _STOP) & (tl.load(accepts + state) != 0)
        state = tl.where(accepting, _DONE, _UNKNOWN)
    return state


@triton.jit
def advance_kernel(
    states, tokens, out, next_states, mask_rows, accepts, token_bytes, token_offsets, token_kinds, width
):
    """One program follows one row; a state without a mask is as unknown as none."""
    row = tl.program_id(0).to(tl.int64)
    state = tl.load(states + row)
    token = tl.load(tokens + row)
    if state >= 0:
        if (token >= 0) & (token < width):
            state = walk_token(token, state, next_states, accepts, token_bytes, token_offsets, token_kinds)
        else:
            state = tl.full((), _DEAD, tl.int32)
        if state >= 0:
            state = tl.where(tl.load(mask_rows + state) < 0, _UNKNOWN, state)
        tl.store(out + row, state)
    else:
        tl.store(out + row, state)


@triton.jit
def settle(
    row,
    state,
    token,
    width,
    states,
    ids,
    log,
    logged,
    misses,
    counters,
    room,
    next_states,
    mask_rows,
    accepts,
    token_bytes,
    token_offsets,
    token_kinds,
):
    """Write a row's token and its next state, or freeze it."""
    tl.store(ids + row, token)
    if token >= 0:
        tl.store(counters + row, tl.load(counters + row) + 1)
    if state >= 0:
        following = tl.full((), _UNKNOWN, tl.int32)
        if token >= 0:
            count = tl.load(logged + row)
            tl.store(log + row * room + count, token)
            tl.store(logged + row, count + 1)
            if token < width:
                following = walk_token(token, state, next_states, accepts, token_bytes, token_offsets, token_kinds)
            if following >= 0:
                following = tl.where(tl.load(mask_rows + following) < 0, _UNKNOWN, following)
            following = tl.where(count + 1 < room, following, _UNKNOWN)
        if following < 0:
            tl.store(states + row, _FROZEN)
            tl.store(misses + row, tl.load(misses + row) + 1)
        else:
            tl.store(states + row, following)


@triton.jit
def step_kernel(
    logits,
    states,
    ids,
    log,
    logged,
    misses,
    temperatures,
    top_ks,
    top_ps,
    seeds,
    counters,
    scratch,
    tickets,
    next_states,
    mask_rows,
    accepts,
    pool,
    list_starts,
    list_counts,
    lists,
    token_bytes,
    token_offsets,
    token_kinds,
    logits_stride,
    pool_stride,
    width,
    words,
    vocabulary,
    room,
    BLOCK: tl.constexpr,
    VEC: tl.constexpr,
    LIST: tl.constexpr,
    MOST: tl.constexpr,
    SPLITS: tl.constexpr,
    SAMPLED: tl.constexpr,
    FILTERED: tl.constexpr,
    APPLY: tl.constexpr,
):
    """SPLITS programs choose a token of one row, the last to come settles it; a listed mask is read by one of them."""
    row = (tl.program_id(0) // SPLITS).to(tl.int64)
    part = tl.program_id(0) % SPLITS
    state = tl.load(states + row)
    if state == _FROZEN:
        if part == 0:
            tl.store(ids + row, _NO_TOKEN)
    else:
        free = state < 0
        line = logits + row * logits_stride
        source = tl.where(free, 0, tl.load(mask_rows + tl.maximum(state, 0))).to(tl.int64)
        mask = pool + source * pool_stride
        start = tl.where(free, -1, tl.load(list_starts + source))
        count = tl.load(list_counts + source)
        temperature = tl.load(temperatures + row)
        seed = tl.load(seeds + row)
        counter = tl.load(counters + row)
        top_k = tl.load(top_ks + row)
        top_p = tl.load(top_ps + row)
        if APPLY:
            if state >= 0:
                for base in range(part * BLOCK, width, SPLITS * BLOCK):
                    mask_block(line, mask, base, width, words, BLOCK=BLOCK, VEC=VEC)
        best = tl.full((), _NONE, tl.int64)
        if start >= 0:
            if part == 0:
                least = tl.full((), _LEAST, tl.int64)
                if FILTERED:
                    if temperature > 0:
                        found = list_threshold(line, lists + start, count, width, temperature, top_k, top_p, MOST)
                        least = found
                best = list_best(
                    line, lists + start, count, width, temperature, seed, counter, least, LIST, SAMPLED, FILTERED
                )
        else:
            best = part_best(
                line,
                mask,
                part,
                free,
                width,
                words,
                temperature,
                top_k,
                top_p,
                seed,
                counter,
                BLOCK,
                VEC,
                SPLITS,
                SAMPLED,
                FILTERED,
            )
        best, last = combine(scratch, tickets, row, best, SPLITS)  # by then every part has read what `settle` changes
        if last:
            settle(
                row,
                state,
                unpack(best),
                vocabulary,
                states,
                ids,
                log,
                logged,
                misses,
                counters,
                room,
                next_states,
                mask_rows,
                accepts,
                token_bytes,
                token_offsets,
                token_kinds,
            )


@triton.jit
def build_kernel(
    states,
    pool,
    sources,
    incomplete,
    next_states,
    accepts,
    token_bytes,
    token_offsets,
    token_kinds,
    pool_stride,
    words,
    width,
    WORDS: tl.constexpr,
):
    """One program walks WORDS * 32 tokens from one state and writes their bits; whatever is UNKNOWN is reported."""
    number = tl.program_id(0).to(tl.int64)
    state = tl.load(states + number)
    source = tl.load(sources + number).to(tl.int64)
    word = tl.program_id(1) * WORDS + tl.arange(0, WORDS)  # [WORDS]
    token = word[:, None] * 32 + tl.arange(0, 32)[None, :]  # [WORDS, 32]
    real = token < width
    kind = tl.load(token_kinds + token, mask=real, other=2)
    text = kind == _TEXT
    at = tl.load(token_offsets + token, mask=text, other=0).to(tl.int64)
    end = tl.load(token_offsets + token + 1, mask=text, other=0).to(tl.int64)
    here = tl.where(text, state, _DEAD)  # [WORDS, 32]
    while tl.max(tl.max(((at < end) & (here >= 0)).to(tl.int32), axis=1), axis=0) > 0:
        going = (at < end) & (here >= 0)
        byte = tl.load(token_bytes + at, mask=going, other=0).to(tl.int64)
        here = tl.where(going, tl.load(next_states + here.to(tl.int64) * 256 + byte, mask=going, other=0), here)
        at += 1
    stops = (kind == _STOP) & (tl.load(accepts + state) != 0)
    bits = tl.where((here >= 0) | stops, 1, 0) << tl.arange(0, 32)[None, :]
    tl.store(pool + source * pool_stride + word, tl.sum(bits, axis=1), mask=word < words)
    unknown = tl.max(tl.max((here == _UNKNOWN).to(tl.int32), axis=1), axis=0)
    if unknown != 0:
        tl.store(incomplete + number, 1)


def advance(states: torch.Tensor, tokens: torch.Tensor, tables: Tables, out: torch.Tensor) -> None:
    """out[row] = the state after tokens[row], UNKNOWN where the tables do not hold it, DEAD where there is none.

        advance(states, tokens, tables, states)

    states, tokens, out: int32 [batch]. Rows that are FREE or FROZEN stay so.
    """
    if states.numel() == 0:
        return
    with on_device(states.device):
        advance_kernel[(states.numel(),)](
            states,
            tokens,
            out,
            tables.next_states,
            tables.mask_rows,
            tables.accepts,
            *tables[-3:],
            tables.token_kinds.numel(),
            num_warps=1,
        )


def step(
    logits: torch.Tensor,
    rows: Rows,
    tables: Tables,
    *,
    sampled: bool = True,
    filtered: bool = True,
    apply: bool = False,
    block: int | None = None,
) -> None:
    """Choose a token for every row and follow it, in one launch: `rows` is changed in place.

        step(logits, rows, tables)

    logits: float32, float16 or bfloat16 [batch, width]; apply=True writes -inf to those that are forbidden, too.
    sampled, filtered: as for `sample`. Everything stays where it is, so a CUDA graph may capture it.
    """
    check_logits(logits)
    batch, width = logits.shape
    if batch == 0:
        return
    size = block or (interpreted_block(width) if INTERPRETED else BLOCK)
    parts = 1 if filtered else splits(batch, width, size)
    with on_device(logits.device):
        step_kernel[(batch * parts,)](
            logits,
            rows.states,
            rows.ids,
            rows.log,
            rows.logged,
            rows.misses,
            rows.temperatures,
            rows.top_ks,
            rows.top_ps,
            rows.seeds,
            rows.counters,
            rows.scratch,
            rows.tickets,
            *tables,
            logits.stride(0),
            tables.pool.stride(0),
            width,
            tables.pool.shape[1],
            tables.token_kinds.numel(),
            rows.log.shape[1],
            BLOCK=size,
            VEC=vector(logits),
            LIST=1024,
            MOST=LIST_MOST,
            SPLITS=parts,
            SAMPLED=sampled,
            FILTERED=filtered,
            APPLY=apply,
            num_warps=WARPS,
        )


def build(
    states: torch.Tensor, sources: torch.Tensor, tables: Tables, incomplete: torch.Tensor, words_each: int = 64
) -> None:
    """Write the masks of some states into rows of the pool by walking the whole vocabulary.

        build(states, sources, tables, incomplete)

    states, sources, incomplete: int32 [n]. incomplete[i] becomes 1 if the tables do not hold all that the walk needs
    (it is never set to 0); the mask is then of no use. Special tokens are forbidden: only the host knows them.
    """
    if states.numel() == 0:
        return
    words = tables.pool.shape[1]
    with on_device(states.device):
        build_kernel[(states.numel(), triton.cdiv(words, words_each))](
            states,
            tables.pool,
            sources,
            incomplete,
            tables.next_states,
            tables.accepts,
            *tables[-3:],
            tables.pool.stride(0),
            words,
            tables.token_kinds.numel(),
            WORDS=words_each,
            num_warps=4,
        )
