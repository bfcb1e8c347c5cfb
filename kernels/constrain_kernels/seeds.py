"""Where the walk for a mask row begins: the first bytes of tokens, or what follows the end of a shared scalar."""

from __future__ import annotations

from constrain_kernels.engine import find, target
from constrain_kernels.entries import add_pair, child_of, emit_subtree, seed, seed_alone, trie_nodes
from constrain_kernels.jit import kernel
from constrain_kernels.layout import (
    ALSO_CAP,
    ALWAYS,
    CALL,
    CLEAR,
    DENSE,
    H_NODES,
    H_POOL,
    H_SCRATCH,
    H_STATES,
    H_TRANS,
    H_VOCAB,
    IN_KEY,
    K_TOUCHED,
    N_NEXT,
    N_PARENT,
    N_RETURNS,
    N_WIDTH,
    PAIR_CAP,
    S_CMAP,
    S_COUNT,
    S_ENTRY,
    S_FALLBACK,
    S_FLAGS,
    S_SLICE,
    S_TRANS,
    S_WIDTH,
    SPACE,
    T_END,
    V_KEY_MASK,
    V_KEY_TRIE,
    V_ROOT,
    V_SPACE_LEN,
    V_SPACE_LIST,
    V_SPACE_ROOT,
    V_SPACE_TRIE,
    X_ALSO,
    X_CLOSURE,
    X_PAIRS,
)
from constrain_kernels.memory import g32, g64, p64
from constrain_kernels.symbolic import condition
from constrain_kernels.walk import close, number_goes_on, read_state, read_transition

QUOTE = 34


@kernel
def seed_transitions(h, state, below, symbol, child, chars):
    """Read the first byte of a token by a state's transitions; where a free key begins, most tokens need no walk."""
    if symbol != QUOTE:
        return read_state(h, seed_alone(h, 0, chars), state, below, child, symbol)
    v = g64(h, H_VOCAB)
    owner, at, count = find(h, state, symbol)
    for i in range(count):
        op = g32(g64(h, H_TRANS), at + 3 * i)
        done = 1
        if op >= CALL and begins_key(h, op):
            cond = condition(h, ALWAYS, g32(g64(h, H_TRANS), at + 3 * i + 1), 0)
            if add_mask(h, g64(v, V_KEY_MASK), cond):
                trie = g64(v, V_KEY_TRIE)
                if g32(trie_nodes(h, trie), T_END) > 1:
                    done = read_transition(h, seed_alone(h, trie, chars), owner, at + 3 * i, below, 1)
                if done < 0:
                    return done
                continue
        done = read_transition(h, seed_alone(h, 0, chars), owner, at + 3 * i, below, child)
        if done < 0:
            return done
    return 1


@kernel
def begins_key(h, op):
    """Whether an operation calls the inside of a key that may be any extra one."""
    row = g64(h, H_STATES) + g32(g64(h, H_POOL), op - CALL) * S_WIDTH * 4
    return g32(row, S_FLAGS) & IN_KEY != 0 and g32(row, S_SLICE) != 0


@kernel
def add_mask(h, mask, cond):
    """Let the row add a whole mask under a condition; False if there are too many already."""
    also = g64(g64(h, H_SCRATCH), X_ALSO)
    count = g64(also, 0)
    for i in range(count):
        if g64(also, 1 + 2 * i) == mask and g64(also, 2 + 2 * i) == cond:
            return True
    if count >= ALSO_CAP:
        return False
    p64(also, 1 + 2 * count, mask)
    p64(also, 2 + 2 * count, cond)
    p64(also, 0, count + 1)
    return True


@kernel
def seed_symbol(h, state, below, symbol, spaces, plain, chars):
    """Read the first byte of a token: by the roots' tables rather than by a search. 1, or a code."""
    v = g64(h, H_VOCAB)
    child = g32(g64(v, V_ROOT), symbol) if plain else 0
    if child != 0:
        done = seed_transitions(h, state, below, symbol, child, chars)
        if done < 0:
            return done
    child = g32(g64(v, V_SPACE_ROOT), symbol) if spaces else 0
    if child != 0:
        return read_state(h, seed_alone(h, g64(v, V_SPACE_TRIE), chars), state, below, child, symbol)
    return 1


@kernel
def seed_state(h, state, below, spaces, plain, chars):
    """Seeds for all first bytes that a state's own transitions can read, at the start of a token (`plain`) and after
    white space (`spaces`): 1, or a code."""
    states = g64(h, H_STATES)
    trans = g64(h, H_TRANS)
    owner = state
    while owner != 0:
        row = owner * S_WIDTH
        start = g32(states, row + S_TRANS)
        count = g32(states, row + S_COUNT)
        before = -1
        for i in range(256 if count == DENSE else count):
            symbol = i
            if count != DENSE:
                symbol = g32(trans, start + 3 * i)
            elif g32(trans, start + 2 * g32(g64(h, H_POOL), g32(states, row + S_CMAP) + i)) == 0:
                continue
            if symbol < 256 and symbol != before:
                done = seed_symbol(h, state, below, symbol, spaces, plain, chars)
                if done < 0:
                    return done
            before = symbol
        owner = g32(states, row + S_FALLBACK)
    return 1


@kernel
def seed_entry(h, number, below):
    """Before a shared scalar: its mask is added whole, and what follows its end walked. False if there are too many."""
    if not add_mask(h, number - 1, ALWAYS):
        return False
    nodes = g64(h, H_NODES)
    while below != 0:
        after = target(h, g32(nodes, below * N_WIDTH + N_RETURNS), 0)
        if after != 0:
            seed(h, number, 0, after, g32(nodes, below * N_WIDTH + N_PARENT), 0)
        below = g32(nodes, below * N_WIDTH + N_NEXT)
    return True


@kernel
def seed_root(h, state, below, spaces, chars):
    """Seeds for the first byte of a token from an item: 1, or a code.

    spaces: white space before the item is known only when a mask is filled; tokens that begin with it come from the
    trie of what follows it.
    """
    out = g64(g64(h, H_SCRATCH), X_CLOSURE)
    count = close(h, out, state, below)
    if count < 0:
        return count
    states = g64(h, H_STATES)
    for i in range(count):
        here, under = g64(out, 3 * i), g64(out, 3 * i + 1)
        entry = g32(states, here * S_WIDTH + S_ENTRY)
        crossed = number_goes_on(h, here, under) if entry > 0 else 0
        if crossed < 0:
            return crossed
        done = 1
        if entry > 0 and crossed == 0 and seed_entry(h, entry, under):
            done = seed_state(h, here, under, True, False, chars) if spaces else 1
        else:
            done = seed_state(h, here, under, spaces, True, chars)
        if done == 1 and not spaces and g32(states, here * S_WIDTH + S_FLAGS) & SPACE:
            for symbol in (9, 10, 13, 32):
                if done == 1:
                    done = seed_symbol(h, here, under, symbol, False, True, chars)
        if done < 0:
            return done
    return 1


@kernel
def add_spaces(h):
    """Add the tokens of white space alone."""
    v = g64(h, H_VOCAB)
    listed = g64(v, V_SPACE_LIST)
    for i in range(g64(v, V_SPACE_LEN)):
        add_pair(h, ALWAYS, g32(listed, i))


@kernel
def seed_returns(h, state, below, trie, cls):
    """Seeds in a trie of suffixes, or in all tokens (trie 0), for what follows the end of a scalar: 1, or a code."""
    nodes = g64(h, H_NODES)
    extra = g32(g64(h, H_STATES), state * S_WIDTH + S_FLAGS) & IN_KEY
    while below != 0:
        after = target(h, g32(nodes, below * N_WIDTH + N_RETURNS), cls)
        parent = g32(nodes, below * N_WIDTH + N_PARENT)
        if after != 0 and trie == 0:
            # no white space stands before a token here, so what begins with it is as good as any other
            spaces = g32(g64(h, H_STATES), after * S_WIDTH + S_FLAGS) & SPACE != 0
            if spaces:
                add_spaces(h)
            done = seed_root(h, after, parent, spaces, 0)
            if done < 0:
                return done
        elif after != 0:
            k = seed(h, trie, 0, after, parent, 0)
            p64(k, K_TOUCHED, 1 if extra else 0)
        below = g32(nodes, below * N_WIDTH + N_NEXT)
    return 1


@kernel
def seed_declared(h, state, below):
    """For a key that may still become a declared one: clear the tokens that end it so, and walk on from there."""
    scratch = g64(h, H_SCRATCH)
    states = g64(h, H_STATES)
    trans = g64(h, H_TRANS)
    work = g64(scratch, X_PAIRS) + 8 * (PAIR_CAP >> 1)  # (trie node, state)
    p64(work, 0, 0)
    p64(work, 1, state)
    count = 1
    while count > 0:
        count -= 1
        node = g64(work, 2 * count)
        here = g64(work, 2 * count + 1)
        start = g32(states, here * S_WIDTH + S_TRANS)
        for i in range(g32(states, here * S_WIDTH + S_COUNT)):
            byte = g32(trans, start + 3 * i)
            child = child_of(h, 0, node, byte)
            if child == 0:
                continue
            if byte == QUOTE:
                emit_subtree(h, CLEAR, 0, child)
                done = read_state(h, seed_alone(h, 0, 0), here, below, child, byte)
                if done < 0:
                    return done
            elif 2 * count + 4 < PAIR_CAP >> 1:
                p64(work, 2 * count, child)
                p64(work, 2 * count + 1, g32(trans, start + 3 * i + 1))
                count += 1
    return 1
