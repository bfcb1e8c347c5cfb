"""One request's state: reading tokens and bytes, history, rollback."""

from __future__ import annotations

from constrain_kernels.engine import accepts, detail, fits_results, join, step
from constrain_kernels.jit import kernel
from constrain_kernels.layout import (
    G_COUNT,
    G_WIDTH,
    GROW,
    H_CONFIGS,
    H_DATA,
    H_EPOCH,
    H_RESULTS,
    H_VOCAB,
    L_WIDTH,
    M_CELLS_LEN,
    M_CONFIG,
    M_COUNT,
    M_DONE,
    M_ENTRIES_LEN,
    M_EPOCH,
    M_HISTORY,
    M_HISTORY_CAP,
    M_HISTORY_LEN,
    M_NEXT_REGS,
    M_REGS,
    M_REGS_CAP,
    M_STEPS,
    M_TEXT,
    M_TEXT_CAP,
    M_TEXT_LEN,
    M_TOP,
    R_BLANKS,
    R_WIDTH,
    STALE,
    V_DATA,
    V_OFFSETS,
    V_STOP_COUNT,
    V_STOPS,
    V_WIDTH,
    Y_CELLS,
    Y_CONFIG,
    Y_COUNT,
    Y_DONE,
    Y_ENTRIES,
    Y_PREV,
    Y_TEXT,
    Y_WIDTH,
)
from constrain_kernels.memory import g8, g32, g64, p8, p32, p64
from constrain_kernels.registers import apply


@kernel
def copy_regs(source, i, target, j):
    for r in range(R_WIDTH):
        p64(target, j * R_WIDTH + r, g64(source, i * R_WIDTH + r))


@kernel
def is_known(regs, start, count):
    """Whether registers are those of an item from `start` on: then the two have become one, whatever comes."""
    for i in range(start, count):
        same = True
        for j in range(R_WIDTH):
            if g64(regs, i * R_WIDTH + j) != g64(regs, count * R_WIDTH + j):
                same = False
                break
        if same:
            return True
    return False


@kernel
def filter_targets(h, m, offset):
    """Go to those targets of a list whose events succeed: 1, or 0 if none does, or a code."""
    data = g64(h, H_DATA)
    regs = g64(m, M_REGS)
    following = g64(m, M_NEXT_REGS)
    config = 0
    count = 0
    last = -1
    alike = 0  # where the targets with the state and stack of the last one begin
    if not fits_results(h, g32(data, offset)):
        p64(h, H_RESULTS, 4 * g32(data, offset))
        return GROW
    for i in range(g32(data, offset)):
        if count + 1 >= g64(m, M_REGS_CAP):
            return GROW
        at = offset + 1 + 3 * i
        copy_regs(regs, g32(data, at + 1), following, count)
        event = g32(data, at + 2)
        if event != 0:
            done = apply(h, m, event, following + count * R_WIDTH * 8)
            if done < 0:
                return done
            if done == 0:
                continue
        else:
            p64(following, count * R_WIDTH + R_BLANKS, 0)
        item = g32(data, at)
        if item != last:
            last, alike = item, count
        if is_known(following, alike, count):
            continue
        config = join(h, config, item)
        count += 1
    if count == 0:
        return 0
    p64(m, M_REGS, following)
    p64(m, M_NEXT_REGS, regs)
    p64(m, M_CONFIG, config)
    p64(m, M_COUNT, count)
    return 1


@kernel
def advance(h, m, symbol):
    """Read one symbol: 1, or 0 if it is not allowed, or a code; the text buffer is the caller's."""
    value = step(h, g64(m, M_CONFIG), symbol)
    if value <= 0:
        return value
    event = detail(value)
    if event < 0:
        return filter_targets(h, m, -event)
    regs = g64(m, M_REGS)
    if event > 0:
        done = apply(h, m, event, regs)
        if done <= 0:
            return done
    else:
        p64(regs, R_BLANKS, 0)
    p64(m, M_CONFIG, value >> 32)
    return 1


@kernel
def advance_bytes(h, m, address, size):
    """Read bytes, appending them to the text: 1, or 0, or a code; on 0 and codes the state is half-way: restore it."""
    text = g64(m, M_TEXT)
    length = g64(m, M_TEXT_LEN)
    if length + size > g64(m, M_TEXT_CAP):
        return GROW
    for i in range(size):
        byte = g8(address, i)
        p8(text, length + i, byte)  # events may look at it
        done = advance(h, m, byte)
        if done <= 0:
            return done
        p64(m, M_TEXT_LEN, length + i + 1)
    return 1


@kernel
def record(m):
    """Append the state to the history: 1, or GROW."""
    history = g64(m, M_HISTORY)
    top = g64(m, M_HISTORY_LEN)
    count = g64(m, M_COUNT)
    size = Y_WIDTH + count * R_WIDTH
    if top + size > g64(m, M_HISTORY_CAP):
        return GROW
    p32(history, top + Y_PREV, g64(m, M_TOP))
    p32(history, top + Y_CONFIG, g64(m, M_CONFIG))
    p32(history, top + Y_COUNT, count)
    p32(history, top + Y_TEXT, g64(m, M_TEXT_LEN))
    p32(history, top + Y_CELLS, g64(m, M_CELLS_LEN))
    p32(history, top + Y_ENTRIES, g64(m, M_ENTRIES_LEN))
    p32(history, top + Y_DONE, g64(m, M_DONE))
    regs = g64(m, M_REGS)
    for i in range(count * R_WIDTH):
        p32(history, top + Y_WIDTH + i, g64(regs, i))
    p64(m, M_TOP, top)
    p64(m, M_HISTORY_LEN, top + size)
    return 1


@kernel
def restore(m):
    """Go back to the newest record."""
    history = g64(m, M_HISTORY)
    top = g64(m, M_TOP)
    count = g32(history, top + Y_COUNT)
    p64(m, M_CONFIG, g32(history, top + Y_CONFIG))
    p64(m, M_COUNT, count)
    p64(m, M_TEXT_LEN, g32(history, top + Y_TEXT))
    p64(m, M_CELLS_LEN, g32(history, top + Y_CELLS))
    p64(m, M_ENTRIES_LEN, g32(history, top + Y_ENTRIES))
    p64(m, M_DONE, g32(history, top + Y_DONE))
    regs = g64(m, M_REGS)
    for i in range(count * R_WIDTH):
        p64(regs, i, g32(history, top + Y_WIDTH + i))
    p64(m, M_HISTORY_LEN, top + Y_WIDTH + count * R_WIDTH)


@kernel
def begin(h, m, config):
    """Start a matcher at a configuration; its buffers are set up already."""
    p64(m, M_EPOCH, g64(h, H_EPOCH))
    p64(m, M_CONFIG, config)
    p64(m, M_COUNT, g32(g64(h, H_CONFIGS), config * G_WIDTH + G_COUNT))
    p64(m, M_TEXT_LEN, 0)
    p64(m, M_CELLS_LEN, L_WIDTH)
    p64(m, M_ENTRIES_LEN, 3)
    p64(m, M_HISTORY_LEN, 0)
    p64(m, M_STEPS, 0)
    p64(m, M_DONE, 0)
    p64(m, M_TOP, 0)
    regs = g64(m, M_REGS)
    for i in range(g64(m, M_COUNT) * R_WIDTH):
        p64(regs, i, 0)
    return record(m)


@kernel
def finish_step(h, m, done):
    """Close an attempt: keep the new state (1), or go back to the old one (anything else)."""
    if done == 1:
        done = record(m)
        if done == 1:
            p64(m, M_STEPS, g64(m, M_STEPS) + 1)
            return 1
    restore(m)
    return done


@kernel
def is_stop(v, token):
    stops = g64(v, V_STOPS)
    for i in range(g64(v, V_STOP_COUNT)):
        if g64(stops, i) == token:
            return True
    return False


@kernel
def accept_token(h, m, token):
    """Read a token: 1, or 0 if it is not allowed (nothing changed), or a code (nothing changed; try again after it)."""
    if g64(h, H_EPOCH) != g64(m, M_EPOCH):
        return STALE
    v = g64(h, H_VOCAB)
    if is_stop(v, token):
        if g64(m, M_DONE) == 0:
            done = accepts(h, g64(m, M_CONFIG))
            if done < 0:
                return done
            if done == 0:  # a grammar may name a stop token as one of its own
                return finish_step(h, m, advance(h, m, 256 + token))
            p64(m, M_DONE, 1)
        return finish_step(h, m, 1)
    if g64(m, M_DONE) != 0 or token >= g64(v, V_WIDTH):
        return 0
    offsets = g64(v, V_OFFSETS)
    start = g64(offsets, token)
    size = g64(offsets, token + 1) - start
    if size == 0:
        return finish_step(h, m, advance(h, m, 256 + token))
    return finish_step(h, m, advance_bytes(h, m, g64(v, V_DATA) + start, size))


@kernel
def accept_bytes(h, m, address, size):
    """Read bytes as one step of the history, as `accept_token`."""
    if g64(h, H_EPOCH) != g64(m, M_EPOCH):
        return STALE
    if g64(m, M_DONE) != 0:
        return 0
    return finish_step(h, m, advance_bytes(h, m, address, size))


@kernel
def rollback(m, steps):
    """Take back the last `steps` tokens; the caller checks that there are as many."""
    history = g64(m, M_HISTORY)
    top = g64(m, M_TOP)
    for _ in range(steps):
        top = g32(history, top + Y_PREV)
    p64(m, M_TOP, top)
    p64(m, M_STEPS, g64(m, M_STEPS) - steps)
    restore(m)


@kernel
def allowed_bytes(h, m, out):
    """Set out[b] = 1 for each byte that may come next, 0 otherwise: 1, or a code."""
    if g64(h, H_EPOCH) != g64(m, M_EPOCH):
        return STALE
    if g64(m, M_TEXT_LEN) >= g64(m, M_TEXT_CAP):
        return GROW
    for byte in range(256):
        p8(g64(m, M_TEXT), g64(m, M_TEXT_LEN), byte)
        done = advance(h, m, byte)
        restore(m)
        if done < 0:
            return done
        p8(out, byte, done)
    return 1


@kernel
def accepting(h, m):
    """Whether the text may end here: 1, 0, or a code."""
    if g64(h, H_EPOCH) != g64(m, M_EPOCH):
        return STALE
    return accepts(h, g64(m, M_CONFIG))
