"""Choose a token for each row from the allowed ones alone, in Triton; `reference.sample` defines it.

Temperature sampling is one pass: the largest of logit / temperature + Gumbel noise, the noise a function of (seed,
counter, token) by Philox (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), so the choice does not
depend on the launch. Top-k and top-p are thresholds found by bisection, over weights in integers: sums in any order are
equal.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from constrain_kernels.device_layout import NO_TOKEN, WEIGHT_BITS
from constrain_kernels.gpu_apply import INTERPRETED, allowed_bits, check_logits, interpreted_block, on_device, vector

BLOCK, WARPS = 2048, 8  # logits at a time, and the warps for them
NONE = -(1 << 63)  # no token: less than any packed one
_NONE = tl.constexpr(NONE)
_LEAST = tl.constexpr(-(1 << 31))
_TOKEN = tl.constexpr(0x7FFFFFFF)
_NO_TOKEN = tl.constexpr(NO_TOKEN)
_UNITS = tl.constexpr(float(1 << WEIGHT_BITS))


@triton.jit
def order(x):
    """Integers that compare as the floats do: NaN as -inf, -0 as 0."""
    x = tl.where(x == x, x, float("-inf"))
    x = tl.where(x == 0, 0.0, x)
    bits = x.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def disorder(key):
    """The float that `order` made `key` of."""
    return (key ^ ((key >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def scaled(logit, temperature):
    return logit.to(tl.float32) / tl.where(temperature > 0, temperature, 1.0)


@triton.jit
def gumbel(seed, counter, token):
    """Gumbel noise: -log(-log(u)) with u = 1 - v, exact for small v."""
    r, _, _, _ = tl.philox(seed, token, token * 0 + counter, token * 0, token * 0)
    v = tl.minimum((r.to(tl.float32) + 0.5) * 2.3283064365386963e-10, 0.99999994)
    series = v * (1.0 + v * (0.5 + v * (0.33333334 + v * 0.25)))
    return -tl.log(tl.where(v < 0.015625, series, -tl.log(1.0 - v)))


@triton.jit
def score(z, token, temperature, seed, counter, SAMPLED: tl.constexpr):
    """What the chosen token has most of."""
    if SAMPLED:
        noise = gumbel(seed, counter, token)
        z += tl.where(temperature > 0, noise, 0.0)
    return z


@triton.jit
def pack(key, token):
    """(key, token) as one integer: the largest key, then the smallest token."""
    return (key.to(tl.int64) << 32) | (token ^ _TOKEN).to(tl.int64)


@triton.jit
def unpack(best):
    return tl.where(best == _NONE, _NO_TOKEN, (best.to(tl.int32) & _TOKEN) ^ _TOKEN)


@triton.jit
def block_logits(logits, bitmask, base, width, words, free, BLOCK: tl.constexpr, VEC: tl.constexpr):
    """(logits, tokens, allowed) of one block of a row, [GROUPS, VEC] each; groups that are forbidden are not read."""
    group = base // VEC + tl.arange(0, BLOCK // VEC)  # [GROUPS]
    bits = allowed_bits(bitmask, group, tl.where(free, 0, words), VEC)  # [GROUPS]
    bits = tl.where(free, (1 << VEC) - 1, bits)
    token = group[:, None] * VEC + tl.arange(0, VEC)[None, :]  # [GROUPS, VEC]
    allowed = ((bits[:, None] >> tl.arange(0, VEC)[None, :]) & 1) != 0
    touched = (bits != 0) & (group * VEC + VEC <= width)  # [GROUPS]
    x = tl.load(logits + token, mask=tl.broadcast_to(touched[:, None], (BLOCK // VEC, VEC)), other=float("-inf"))
    if base + BLOCK > width:
        allowed = allowed & (token < width)
        rest = tl.load(logits + token, mask=allowed & (touched[:, None] == 0), other=float("-inf"))
        x = tl.where(touched[:, None], x, rest)
    return x, token, allowed


@triton.jit
def dense_best(
    logits,
    bitmask,
    start,
    end,
    width,
    words,
    free,
    temperature,
    seed,
    counter,
    least,
    BLOCK: tl.constexpr,
    VEC: tl.constexpr,
    SAMPLED: tl.constexpr,
    FILTERED: tl.constexpr,
):
    """The best token among start..end of a row, packed.

    Floats compare in one instruction, NaN with nothing; -inf is no more than what the search begins with, so a row of
    nothing else is searched again.
    """
    best = tl.full((BLOCK // VEC, VEC), float("-inf"), tl.float32)
    where = tl.full((BLOCK // VEC, VEC), -1, tl.int32)  # the block of the best
    for base in range(start, end, BLOCK):
        x, token, allowed = block_logits(logits, bitmask, base, width, words, free, BLOCK=BLOCK, VEC=VEC)
        z = scaled(x, temperature) if SAMPLED or FILTERED else x.to(tl.float32)
        if FILTERED:
            allowed = allowed & (order(z) >= least)
        z = tl.where(allowed, score(z, token, temperature, seed, counter, SAMPLED=SAMPLED), float("-inf"))
        better = z > best
        best = tl.where(better, z, best)
        where = tl.where(better, base, where)
    place = tl.arange(0, BLOCK // VEC)[:, None] * VEC + tl.arange(0, VEC)[None, :]
    packed = tl.max(tl.max(tl.where(where < 0, _NONE, pack(order(best), where + place)), axis=1), axis=0)
    if packed == _NONE:
        packed = first_allowed(
            logits, bitmask, start, end, width, words, free, temperature, least, BLOCK, VEC, FILTERED
        )
    return packed


@triton.jit
def first_allowed(
    logits,
    bitmask,
    start,
    end,
    width,
    words,
    free,
    temperature,
    least,
    BLOCK: tl.constexpr,
    VEC: tl.constexpr,
    FILTERED: tl.constexpr,
):
    """The first allowed token among start..end of a row whose allowed logits are all -inf, packed."""
    found = tl.full((), _TOKEN, tl.int32)
    for base in range(start, end, BLOCK):
        x, token, allowed = block_logits(logits, bitmask, base, width, words, free, BLOCK=BLOCK, VEC=VEC)
        if FILTERED:
            allowed = allowed & (order(scaled(x, temperature)) >= least)
        found = tl.minimum(found, tl.min(tl.min(tl.where(allowed, token, _TOKEN), axis=1), axis=0))
    low = order(tl.full((), float("-inf"), tl.float32))
    return tl.where(found == _TOKEN, _NONE, pack(low, found))


@triton.jit
def list_best(
    logits,
    tokens,
    count,
    width,
    temperature,
    seed,
    counter,
    least,
    LIST: tl.constexpr,
    SAMPLED: tl.constexpr,
    FILTERED: tl.constexpr,
):
    """The best token of a list, packed."""
    best = tl.full((LIST,), _NONE, tl.int64)
    for base in range(0, count, LIST):
        at = base + tl.arange(0, LIST)  # [LIST]
        token = tl.load(tokens + at, mask=at < count, other=0)
        allowed = (at < count) & (token < width)
        x = tl.load(logits + token, mask=allowed, other=0.0)
        z = scaled(x, temperature) if SAMPLED or FILTERED else x.to(tl.float32)
        if FILTERED:
            allowed = allowed & (order(z) >= least)
        key = order(score(z, token, temperature, seed, counter, SAMPLED=SAMPLED))
        best = tl.maximum(best, tl.where(allowed, pack(key, token), _NONE))
    return tl.max(best, axis=0)


@triton.jit
def weight(z, largest):
    """A token's share before dividing by the sum, in units of 2**-WEIGHT_BITS of the largest."""
    share = tl.where(z == largest, 1.0, tl.exp(z - largest))
    return (share * _UNITS).to(tl.int64)


@triton.jit
def share_needed(top_p, total):
    """The weight that the kept tokens must have at least."""
    needed = (top_p.to(tl.float64) * total.to(tl.float64)).to(tl.int64)
    return tl.maximum(needed, tl.full((), 1, tl.int64))


@triton.jit
def list_threshold(logits, tokens, count, width, temperature, top_k, top_p, MOST: tl.constexpr):
    """The least key (`order` of the scaled logit) that top-k and then top-p keep."""
    at = tl.arange(0, MOST)
    token = tl.load(tokens + at, mask=at < count, other=0)
    allowed = (at < count) & (token < width)
    z = scaled(tl.load(logits + token, mask=allowed, other=0.0), temperature)
    key = tl.where(allowed, order(z), _LEAST)  # [MOST]
    least = tl.full((), _LEAST + 1, tl.int64)
    if top_k > 0:
        if top_k < count:
            least = bisect_list(key, allowed.to(tl.int64), top_k.to(tl.int64), least)
    if top_p < 1:
        kept = allowed & (key >= least)
        largest = disorder(tl.max(key, axis=0))
        shares = tl.where(kept, weight(tl.where(kept, disorder(key), largest), largest), 0)
        least = bisect_list(key, shares, share_needed(top_p, tl.sum(shares, axis=0)), least)
    return least


@triton.jit
def bisect_list(key, shares, needed, least):
    """The largest key of which all that have it or a larger one weigh at least `needed`; not below `least`."""
    found = tl.full((), _LEAST, tl.int64)
    for bit in range(32):
        probe = found + (tl.full((), 1, tl.int64) << (31 - bit))
        mass = tl.sum(tl.where(key >= probe, shares, 0), axis=0)
        found = tl.where(mass >= needed, probe, found)
    return tl.maximum(found, least)


@triton.jit
def dense_mass(
    logits,
    bitmask,
    width,
    words,
    free,
    temperature,
    largest,
    least,
    BLOCK: tl.constexpr,
    VEC: tl.constexpr,
    COUNT: tl.constexpr,
):
    """The weight (or number) of the allowed tokens with a key from `least` on."""
    total = tl.full((BLOCK // VEC, VEC), 0, tl.int64)
    for base in range(0, width, BLOCK):
        x, _, allowed = block_logits(logits, bitmask, base, width, words, free, BLOCK=BLOCK, VEC=VEC)
        key = order(scaled(x, temperature))
        shares = tl.full((BLOCK // VEC, VEC), 1, tl.int64) if COUNT else weight(disorder(key), largest)
        total += tl.where(allowed & (key >= least), shares, 0)
    return tl.sum(tl.sum(total, axis=1), axis=0)


@triton.jit
def dense_bisect(
    logits,
    bitmask,
    width,
    words,
    free,
    temperature,
    largest,
    needed,
    least,
    BLOCK: tl.constexpr,
    VEC: tl.constexpr,
    COUNT: tl.constexpr,
):
    """As `bisect_list`, over a row of logits."""
    found = tl.full((), _LEAST, tl.int64)
    for bit in range(32):
        probe = found + (tl.full((), 1, tl.int64) << (31 - bit))
        mass = dense_mass(
            logits, bitmask, width, words, free, temperature, largest, tl.maximum(probe, least), BLOCK, VEC, COUNT
        )
        found = tl.where(mass >= needed, probe, found)
    return tl.maximum(found, least)


@triton.jit
def dense_threshold(
    logits, bitmask, width, words, free, temperature, top_k, top_p, BLOCK: tl.constexpr, VEC: tl.constexpr
):
    """As `list_threshold`, over a row of logits."""
    least = tl.full((), _LEAST + 1, tl.int64)
    if top_k > 0:
        found = dense_bisect(
            logits, bitmask, width, words, free, temperature, 0.0, top_k.to(tl.int64), least, BLOCK, VEC, True
        )
        least = found
    if top_p < 1:
        best = dense_best(
            logits, bitmask, 0, width, width, words, free, temperature, 0, 0, least, BLOCK, VEC, False, True
        )
        largest = disorder((best >> 32).to(tl.int32))
        total = dense_mass(logits, bitmask, width, words, free, temperature, largest, least, BLOCK, VEC, False)
        needed = share_needed(top_p, total)
        found = dense_bisect(
            logits, bitmask, width, words, free, temperature, largest, needed, least, BLOCK, VEC, False
        )
        least = found
    return least


@triton.jit
def combine(scratch, tickets, row, best, SPLITS: tl.constexpr):
    """(best of all parts of a row, whether this part came last); scratch and tickets are as before afterwards."""
    last = best == best
    if SPLITS > 1:
        tl.atomic_max(scratch + row, best, sem="acq_rel")
        last = tl.atomic_add(tickets + row, 1, sem="acq_rel") == SPLITS - 1
        if last:
            best = tl.atomic_xchg(scratch + row, tl.full((), _NONE, tl.int64), sem="acq_rel")
            tl.atomic_xchg(tickets + row, 0, sem="acq_rel")
    return best, last


@triton.jit
def part_best(
    logits,
    bitmask,
    part,
    free,
    width,
    words,
    temperature,
    top_k,
    top_p,
    seed,
    counter,
    BLOCK: tl.constexpr,
    VEC: tl.constexpr,
    SPLITS: tl.constexpr,
    SAMPLED: tl.constexpr,
    FILTERED: tl.constexpr,
):
    """The best token of this program's part of a row, packed."""
    each = tl.cdiv(tl.cdiv(width, BLOCK), SPLITS) * BLOCK
    start = part * each
    least = tl.full((), _LEAST, tl.int64)
    if FILTERED:  # then one program has the whole row
        if temperature > 0:
            found = dense_threshold(logits, bitmask, width, words, free, temperature, top_k, top_p, BLOCK, VEC)
            least = found
    return dense_best(
        logits,
        bitmask,
        start,
        tl.minimum(start + each, width),
        width,
        words,
        free,
        temperature,
        seed,
        counter,
        least,
        BLOCK,
        VEC,
        SAMPLED,
        FILTERED,
    )


@triton.jit
def sample_kernel(
    logits,
    bitmask,
    sources,
    ids,
    temperatures,
    top_ks,
    top_ps,
    seeds,
    counters,
    scratch,
    tickets,
    logits_stride,
    bitmask_stride,
    width,
    words,
    BLOCK: tl.constexpr,
    VEC: tl.constexpr,
    SPLITS: tl.constexpr,
    SAMPLED: tl.constexpr,
    FILTERED: tl.constexpr,
):
    """SPLITS programs choose a token of one row; the last to come writes it."""
    row = (tl.program_id(0) // SPLITS).to(tl.int64)
    source = tl.load(sources + row).to(tl.int64)
    best = part_best(
        logits + row * logits_stride,
        bitmask + tl.maximum(source, 0) * bitmask_stride,
        tl.program_id(0) % SPLITS,
        source < 0,
        width,
        words,
        tl.load(temperatures + row),
        tl.load(top_ks + row),
        tl.load(top_ps + row),
        tl.load(seeds + row),
        tl.load(counters + row),
        BLOCK,
        VEC,
        SPLITS,
        SAMPLED,
        FILTERED,
    )
    best, last = combine(scratch, tickets, row, best, SPLITS)
    if last:
        tl.store(ids + row, unpack(best))


def splits(rows: int, width: int, block: int) -> int:
    """Programs for a row: several while that is what fills the device's 132 processors."""
    if INTERPRETED:
        return 2 if width > block else 1
    most = triton.cdiv(width, block)
    return max(1, min(most, 8 * 132 // max(rows, 1)))


def sample(
    logits: torch.Tensor,
    bitmask: torch.Tensor,
    sources: torch.Tensor,
    ids: torch.Tensor,
    temperatures: torch.Tensor,
    top_ks: torch.Tensor,
    top_ps: torch.Tensor,
    seeds: torch.Tensor,
    counters: torch.Tensor,
    *,
    sampled: bool = True,
    filtered: bool = True,
    block: int | None = None,
) -> None:
    """ids[row] = the token that a row of logits chooses among those that its mask allows; -1 where it allows none.

        sample(logits, bitmask, sources, ids, temperatures, top_ks, top_ps, seeds, counters)

    logits: float32, float16 or bfloat16 [batch, width]. bitmask: int32 [masks, words]; sources: int32 [batch], the row
    of the bitmask, negative: everything is allowed. ids: int32 [batch], written. temperatures: float32 [batch], 0: the
    largest logit, of equal ones the first. top_ks: int32 [batch], 0: off; ties are kept. top_ps: float32 [batch], 1:
    off. seeds: int64, counters: int32 [batch]. sampled=False, filtered=False: no temperature, no top-k or top-p is set,
    which saves their work. Raises `ValueError` for logits of another kind.
    """
    check_logits(logits)
    batch, width = logits.shape
    if batch == 0:
        return
    size = block or (interpreted_block(width) if INTERPRETED else BLOCK)
    parts = 1 if filtered else splits(batch, width, size)
    scratch = torch.full((batch,), NONE, dtype=torch.int64, device=logits.device)
    tickets = torch.zeros(batch, dtype=torch.int32, device=logits.device)
    with on_device(logits.device):
        sample_kernel[(batch * parts,)](
            logits,
            bitmask,
            sources,
            ids,
            temperatures,
            top_ks,
            top_ps,
            seeds,
            counters,
            scratch,
            tickets,
            logits.stride(0),
            bitmask.stride(0),
            width,
            bitmask.shape[1],
            BLOCK=size,
            VEC=vector(logits),
            SPLITS=parts,
            SAMPLED=sampled,
            FILTERED=filtered,
            num_warps=WARPS,
        )
