"""Mask rows: which tokens an item allows, collected by one walk over the vocabulary and grouped by condition."""

from __future__ import annotations

from constrain_kernels.engine import expand, lookup, roomy, start_work, store
from constrain_kernels.entries import add_pair, seed
from constrain_kernels.jit import callback, kernel
from constrain_kernels.layout import (
    ALWAYS,
    BASE_BOUNDED,
    BASE_NONE,
    BASE_OWN,
    BASE_SPACE,
    BOUNDED,
    BUILD,
    CLEAR,
    CODES,
    COMPOSED,
    G_NODE,
    G_ROW,
    G_STATE,
    G_WIDTH,
    GROUPS,
    GROW,
    H_ARG,
    H_CAP,
    H_CONFIGS,
    H_DATA,
    H_FLAGS,
    H_LEN,
    H_NEED,
    H_SCRATCH,
    H_STAMP,
    H_STATES,
    H_TRANS,
    H_VOCAB,
    IN_KEY,
    LINK,
    MOST_GROUPS,
    NO_REGISTERS,
    OPEN_KEY,
    OVERFLOW,
    PAIR_CAP,
    S_COUNT,
    S_EPS,
    S_FALLBACK,
    S_FLAGS,
    S_PARAM,
    S_SLICE,
    S_TRANS,
    S_WIDTH,
    SLOW,
    SPACE,
    TAG,
    TAG_SECTION,
    UNBUILT,
    V_GROUP_TRIES,
    V_KEY_TRIE,
    V_WORDS,
    WORK_CAP,
    X_ALSO,
    X_BUILD_ROW,
    X_LENGTH_EVENT,
    X_OWN,
    X_PAIR_LEN,
    X_PAIRS,
    X_STACK_LEN,
    X_WORK,
)
from constrain_kernels.likeness import copy_row, find_like, remember_row
from constrain_kernels.loops import LETTERS, bounded_run, left_out, plain_mask, shorten
from constrain_kernels.memory import clear, g32, g64, invoke, p32, p64
from constrain_kernels.seeds import seed_declared, seed_returns, seed_root
from constrain_kernels.walk import WHOLE, dives, number_goes_on, run


@kernel
def flush(h):
    """Write the collected pairs as one section, grouped by condition; returns its data offset, or GROW."""
    scratch = g64(h, H_SCRATCH)
    count = g64(scratch, X_PAIR_LEN)
    if count > PAIR_CAP >> 1:
        return OVERFLOW
    if g64(h, H_LEN + H_DATA) + 4 * count + 4096 > g64(h, H_CAP + H_DATA):
        p64(h, H_NEED, 4 * count)
        return GROW
    stamp = g64(h, H_STAMP) + 1
    p64(h, H_STAMP, stamp)
    data = g64(h, H_DATA)
    pairs = g64(scratch, X_PAIRS)
    groups = g64(scratch, X_WORK)  # (condition, size), then the write position
    n = 0
    for order in range(2):  # CLEAR comes first: it undoes what earlier sections set
        for i in range(count):
            cond = g64(pairs, i) >> 32
            if (cond == CLEAR) != (order == 0):
                continue
            if g32(data, cond + 3) != stamp:
                p32(data, cond + 3, stamp)
                p32(data, cond + 4, n)
                p64(groups, 2 * n, cond)
                p64(groups, 2 * n + 1, 0)
                n += 1
                if 2 * n + 2 > WORK_CAP:
                    return OVERFLOW
            group = g32(data, cond + 4)
            p64(groups, 2 * group + 1, g64(groups, 2 * group + 1) + 1)
    section = g64(h, H_LEN + H_DATA)
    p32(data, section, n)
    at = section + 1
    for group in range(n):
        size = g64(groups, 2 * group + 1)
        p32(data, at, g64(groups, 2 * group))
        p32(data, at + 1, size)
        p64(groups, 2 * group + 1, at + 2)
        at += 2 + size
    for i in range(count):
        group = g32(data, (g64(pairs, i) >> 32) + 4)
        p32(data, g64(groups, 2 * group + 1), g64(pairs, i) & 0xFFFFFFFF)
        p64(groups, 2 * group + 1, g64(groups, 2 * group + 1) + 1)
    p64(h, H_LEN + H_DATA, at)
    p64(scratch, X_PAIR_LEN, 0)
    return section


@kernel
def add_tokens(h, config):
    """Tokens matched as such (symbols from 256 on): 1, or a code."""
    work = g64(g64(h, H_SCRATCH), X_WORK)
    states = g64(h, H_STATES)
    trans = g64(h, H_TRANS)
    pending = start_work(h, config, work)
    done = 0
    while done < pending:
        state, node = g64(work, 3 * done), g64(work, 3 * done + 1)
        done += 1
        pending = expand(h, state, node, 0, work, pending)
        if pending >= WORK_CAP:
            return OVERFLOW
        if not roomy(h):
            return GROW
        while state != 0:
            start = g32(states, state * S_WIDTH + S_TRANS)
            for i in range(g32(states, state * S_WIDTH + S_COUNT)):
                symbol = g32(trans, start + 3 * i)
                if symbol >= 256:
                    plain = g32(trans, start + 3 * i + 2) == 0
                    add_pair(h, ALWAYS if plain else SLOW, symbol - 256)
            state = g32(states, state * S_WIDTH + S_FALLBACK)
    return 1


@kernel
def begin_walk(h):
    scratch = g64(h, H_SCRATCH)
    p64(scratch, X_STACK_LEN, 1)
    p64(scratch, X_PAIR_LEN, 0)
    p64(scratch, X_LENGTH_EVENT, 0)
    p64(scratch, X_OWN, 0)
    p64(g64(scratch, X_ALSO), 0, 0)


@kernel
def walk_plain(h, config, state, below):
    """The walk from an item that no slice covers: 1, or a code."""
    flags = g32(g64(h, H_STATES), state * S_WIDTH + S_FLAGS)
    done = add_tokens(h, config)
    if done < 0:
        return done
    if g64(h, H_FLAGS) & NO_REGISTERS:
        seed(h, 0, 0, config, WHOLE, 0)
        return run(h)
    if flags & BOUNDED:
        p64(g64(h, H_SCRATCH), X_LENGTH_EVENT, g32(g64(h, H_STATES), state * S_WIDTH + S_PARAM))
    done = seed_root(h, state, below, flags & SPACE != 0, -1 if flags & BOUNDED else 0)
    return run(h) if done == 1 else done


@kernel
def walk_slice(h, number, state, below):
    """The walk from an item inside a shared scalar: only what follows its end. 1, or a code."""
    states = g64(h, H_STATES)
    if g32(states, state * S_WIDTH + S_FLAGS) & BOUNDED:
        p64(g64(h, H_SCRATCH), X_LENGTH_EVENT, g32(states, state * S_WIDTH + S_PARAM))
    done = seed_returns(h, state, below, number, 0)
    if done == 1:
        done = run(h)
    eps = g32(states, state * S_WIDTH + S_EPS)
    if done == 1 and eps >= 0:
        done = seed_returns(h, state, below, 0, eps)
        if done == 1:
            done = run(h)
    return done


@kernel
def own_mask(h):
    """Begin a mask of the row's own in the data, for walks that may allow very many tokens; its offset, or GROW."""
    size = g64(g64(h, H_VOCAB), V_WORDS)
    if g64(h, H_LEN + H_DATA) + size + 4096 > g64(h, H_CAP + H_DATA):
        p64(h, H_NEED, size)
        return GROW
    start = g64(h, H_LEN + H_DATA)
    p64(h, H_LEN + H_DATA, start + size)
    clear(g64(h, H_DATA) + 4 * start, 4 * size)
    p64(g64(h, H_SCRATCH), X_OWN, g64(h, H_DATA) + 4 * start)
    return start


@kernel
def by_masks(dead, partly):
    """Whether the masks of groups save more than they cost: they allow many tokens, and few are left to be walked."""
    return partly >= 0 and dead & LETTERS != LETTERS and few(partly)


@kernel
def few(groups):
    """Whether the tokens of some groups are so few that walking them apart saves time."""
    if groups & LETTERS:
        return False
    count = 0
    while groups:
        groups &= groups - 1
        count += 1
    return count <= MOST_GROUPS


@kernel
def walk_automaton(h, config, state, below):
    """The walk inside an automaton: over all tokens, or only over those that a like state's row, or plain text, leaves.
    1 or a code."""
    whole = g64(h, H_FLAGS) & NO_REGISTERS
    here = config if whole else state
    under = WHOLE if whole else below
    like, length = find_like(h, state, below)
    if length >= 0:
        copy_row(h, like, length)
        seed(h, g64(g64(h, H_VOCAB), V_KEY_TRIE) + 1 + length, 0, here, under, 0)
        return run(h)
    done = add_tokens(h, config)
    if done < 0:
        return done
    walked = masked(h, state, below)
    if walked < 0:
        seed(h, 0, 0, here, under, 0)
        return run(h)
    first = g64(g64(h, H_VOCAB), V_GROUP_TRIES)
    seed(h, first, 0, here, under, 0)
    for group in range(GROUPS):
        if (walked >> group) & 1:
            seed(h, first + 1 + group, 0, here, under, 0)
    return run(h)


@kernel
def masked(h, state, below):
    """Begin the row's own mask with plain tokens that are allowed; the groups whose tokens must be walked, or -1: all
    tokens, there being no such beginning."""
    own = g64(g64(h, H_SCRATCH), X_OWN)
    dead, partly = left_out(h, state, below)
    if by_masks(dead, partly):
        plain_mask(h, dead | partly, own)
        return partly
    if partly < 0 or (below != 0 and g64(h, H_FLAGS) & COMPOSED):
        return -1
    groups, length = bounded_run(h, state)
    others = ((1 << GROUPS) - 1) & ~groups
    if groups == 0 or not few(others & ~dead):
        return -1
    plain_mask(h, others, own)
    shorten(h, length, own)
    return others & ~dead


@kernel
def walk_item(h, config, state, below):
    """The walk for an item of any kind: the base that its row starts from, or CODES + a code, to tell them apart."""
    row = state * S_WIDTH
    flags = g32(g64(h, H_STATES), row + S_FLAGS)
    number = g32(g64(h, H_STATES), row + S_SLICE)
    crossed = number_goes_on(h, state, below) if number > 0 else 0
    if crossed < 0:
        return CODES + crossed
    if number > 0 and crossed == 0 and g64(h, H_FLAGS) & NO_REGISTERS == 0:
        done = 1
        if shared_section(h, state, below) == 0:
            done = walk_slice(h, number, state, below)
        base = BASE_BOUNDED if flags & BOUNDED else number - 1
    elif dives(h, state, 0):
        base = own_mask(h)
        if base < 0:
            return CODES + base
        base = BASE_OWN - base
        done = walk_automaton(h, config, state, below)
    else:
        done = walk_plain(h, config, state, below)
        base = BASE_SPACE if flags & SPACE else BASE_NONE
        if done == 1 and base == BASE_NONE and g64(g64(h, H_SCRATCH), X_PAIR_LEN) > PAIR_CAP >> 1:
            begin_walk(h)  # text of any kind lies before it: too much for a list
            base = own_mask(h)
            if base < 0:
                return CODES + base
            base = BASE_OWN - base
            done = walk_plain(h, config, state, below)
    return base if done == 1 else CODES + done


@callback
def build_row(h, config):
    """Compute the mask row of a configuration of one item: its data offset, or a code."""
    if not roomy(h):
        return GROW
    begin_walk(h)
    state = g32(g64(h, H_CONFIGS), config * G_WIDTH + G_STATE)
    below = g32(g64(h, H_CONFIGS), config * G_WIDTH + G_NODE)
    flags = g32(g64(h, H_STATES), state * S_WIDTH + S_FLAGS)
    if flags & UNBUILT:
        p64(h, H_ARG, state)
        return BUILD
    base = walk_item(h, config, state, below)
    if base <= CODES:
        return base - CODES
    section = shared_section(h, state, below)
    if section == 0:
        section = flush(h)
        if section < 0:
            return section
        share_section(h, state, below, section)
    second = 0
    if flags & OPEN_KEY:
        begin_walk(h)
        done = seed_declared(h, state, below)
        if done == 1:
            done = run(h)
        if done == 1:
            second = done = flush(h)
        if done < 0:
            return done
    row = write_row(h, base, section, second)
    p32(g64(h, H_CONFIGS), config * G_WIDTH + G_ROW, row)
    if base <= BASE_OWN and dives(h, state, 0):
        remember_row(h, config, state, below)
    return row


@kernel
def find_row(h, item):
    """The mask row of an item, computed on first use: its data offset, or a code."""
    row = g32(g64(h, H_CONFIGS), item * G_WIDTH + G_ROW)
    if row != 0:
        return row
    builder = g64(g64(h, H_SCRATCH), X_BUILD_ROW)
    return invoke(builder, h, item) if builder != 0 else LINK


@kernel
def section_key(h, state, below):
    """The key of what all states of a free key share that end in the same place; 0 for other states."""
    row = state * S_WIDTH
    states = g64(h, H_STATES)
    number = g32(states, row + S_SLICE)
    if number == 0 or g32(states, row + S_FLAGS) & IN_KEY == 0:
        return 0
    return (TAG_SECTION << TAG) | (number << 30) | below


@kernel
def shared_section(h, state, below):
    key = section_key(h, state, below)
    return 0 if key == 0 else max(0, lookup(h, key))


@kernel
def share_section(h, state, below, section):
    key = section_key(h, state, below)
    if key != 0:
        store(h, key, section)


@kernel
def write_row(h, base, section, second):
    """Write a row; returns its data offset."""
    data = g64(h, H_DATA)
    offset = g64(h, H_LEN + H_DATA)
    also = g64(g64(h, H_SCRATCH), X_ALSO)
    count = g64(also, 0)
    p64(h, H_LEN + H_DATA, offset + 4 + 2 * count)
    p32(data, offset, base)
    p32(data, offset + 1, section)
    p32(data, offset + 2, second)
    p32(data, offset + 3, count)
    for i in range(2 * count):
        p32(data, offset + 4 + i, g64(also, 1 + i))
    return offset
