"""The walk over a trie of tokens: which of them an item (or a configuration) can read.

An entry of the stack is a trie node with an item and its symbolic registers. Grammars with registers are walked item by
item, straight from the states, so that nothing is interned on the way; without registers, whole configurations are
walked by remembered steps, because there ambiguity may double the items at each byte.
"""

from __future__ import annotations

from constrain_kernels.engine import (
    detail,
    expand,
    find,
    is_space,
    lookup,
    push,
    roomy,
    single,
    space_event,
    start_work,
    step,
    store,
    target,
)
from constrain_kernels.entries import (
    arrive,
    emit,
    enter,
    fan_child,
    fan_of,
    own_subtree,
    trie_nodes,
)
from constrain_kernels.jit import kernel
from constrain_kernels.kinds import begin_kinds, reads_all
from constrain_kernels.layout import (
    ALWAYS,
    BOUNDED,
    BUILD,
    CALL,
    COMPOSED,
    COUNTED,
    DENSE,
    ENTRY_BITS,
    G_FIRST,
    G_NODE,
    G_STATE,
    G_WIDTH,
    GROW,
    H_ARG,
    H_CONFIGS,
    H_DATA,
    H_FLAGS,
    H_LEN,
    H_NODES,
    H_POOL,
    H_SCRATCH,
    H_STATES,
    H_TRANS,
    H_VOCAB,
    K_BELOW,
    K_CONDITION,
    K_EVENT,
    K_NODE,
    K_STATE,
    K_TRIE,
    K_WIDTH,
    LOOSE,
    N_NEXT,
    N_PARENT,
    N_RETURNS,
    N_WIDTH,
    OVERFLOW,
    S_BASE,
    S_CMAP,
    S_COUNT,
    S_EPS,
    S_FALLBACK,
    S_FLAGS,
    S_PARAM,
    S_TRANS,
    S_WIDTH,
    SPACE,
    T_BYTE,
    T_END,
    T_FIRST,
    T_TOKENS,
    T_WIDTH,
    TAG,
    TAG_AFTER,
    UNBUILT,
    V_TRIE_WIDTH,
    V_TRIES,
    WORK_CAP,
    X_CLOSURE,
    X_OWN,
    X_PATH,
    X_STACK,
    X_STACK_LEN,
    X_WORK,
)
from constrain_kernels.memory import g32, g64, p32, p64

TOKEN = (1 << ENTRY_BITS) - 1
WORTH = 6  # nodes of a subtree that is looked at as a whole first
FEW = 16  # transitions that are looked up one by one among many children
WHOLE = -1  # K_BELOW of an entry whose K_STATE is a configuration


# --- item by item ----------------------------------------------------------------------------------------------------


@kernel
def close(h, out, state, below):
    """Write what an item can become without reading, itself first, as worklist rows: how many, or a code."""
    p64(out, 0, state)
    p64(out, 1, below)
    p64(out, 2, 0)
    states = g64(h, H_STATES)
    count = 1
    done = 0
    while done < count:
        here = g64(out, 3 * done)
        if g32(states, here * S_WIDTH + S_FLAGS) & UNBUILT:
            p64(h, H_ARG, here)
            return BUILD
        count = expand(h, here, g64(out, 3 * done + 1), 0, out, count)
        done += 1
        if count >= WORK_CAP:
            return OVERFLOW
        if not roomy(h):
            return GROW
    return count


@kernel
def read_state(h, k, state, below, child, byte):
    """Read one byte of the trie by an item's own transitions: 1, or a code."""
    states = g64(h, H_STATES)
    if is_space(byte) and g32(states, state * S_WIDTH + S_FLAGS) & SPACE:
        return enter(h, k, child, state, below, space_event(byte))
    owner, at, count = find(h, state, byte)
    for i in range(count):
        done = read_transition(h, k, owner, at + 3 * i, below, child)
        if done < 0:
            return done
    return 1


@kernel
def read_transition(h, k, owner, at, below, child):
    """Follow one transition of a state to a node of the trie: 1, or a code."""
    states = g64(h, H_STATES)
    op = g32(g64(h, H_TRANS), at)
    event = g32(g64(h, H_TRANS), at + 1)
    if event < 0:
        event = g32(states, owner * S_WIDTH + S_PARAM) - event - 1
    if op < 0:
        return read_return(h, k, below, -op - 1, child, event)
    if op >= CALL:
        pool = g64(h, H_POOL)
        return enter(h, k, child, g32(pool, op - CALL), push(h, g32(pool, op - CALL + 1), below), event)
    if op > 0:
        return enter(h, k, child, g32(states, owner * S_WIDTH + S_BASE) + op, below, event)
    return 1


@kernel
def read_return(h, k, below, cls, child, event):
    """Return to every caller with the byte just read: 1, or a code."""
    nodes = g64(h, H_NODES)
    while below != 0:
        state = target(h, g32(nodes, below * N_WIDTH + N_RETURNS), cls)
        if state != 0:
            done = enter(h, k, child, state, g32(nodes, below * N_WIDTH + N_PARENT), event)
            if done < 0:
                return done
        below = g32(nodes, below * N_WIDTH + N_NEXT)
    return 1


@kernel
def read_after(h, k, below, cls, child, byte):
    """Return to every caller without reading, then read a byte there: 1, or a code."""
    nodes = g64(h, H_NODES)
    work = g64(g64(h, H_SCRATCH), X_WORK)
    while below != 0:
        state = target(h, g32(nodes, below * N_WIDTH + N_RETURNS), cls)
        if state != 0:
            count = close(h, work, state, g32(nodes, below * N_WIDTH + N_PARENT))
            if count < 0:
                return count
            for i in range(count):
                done = read_state(h, k, g64(work, 3 * i), g64(work, 3 * i + 1), child, byte)
                if done < 0:
                    return done
        below = g32(nodes, below * N_WIDTH + N_NEXT)
    return 1


@kernel
def dives(h, state, node):
    """Whether the walk from a state is a dive: transitions over byte classes, without events inside.

    At the root of a trie (node 0) the events of counted strings are left out: rows are computed as if the bound were
    far (see `bounds`).
    """
    states = g64(h, H_STATES)
    flags = g32(states, state * S_WIDTH + S_FLAGS)
    dense = g32(states, state * S_WIDTH + S_COUNT) == DENSE
    return dense and (flags & BOUNDED == 0 or (node == 0 and flags & COUNTED != 0))


@kernel
def stride(h, state):
    """How far apart the transitions of a dense block's states lie."""
    states = g64(h, H_STATES)
    row = state * S_WIDTH
    first = (g32(states, row + S_BASE) + 1) * S_WIDTH
    if first == row:
        return g32(states, row + S_WIDTH + S_TRANS) - g32(states, row + S_TRANS)
    return (g32(states, row + S_TRANS) - g32(states, first + S_TRANS)) // (state - g32(states, row + S_BASE) - 1)


@kernel
def dive(h, k, nodes, state, below, alone):
    """Walk a subtree inside one automaton: table look-ups alone, in the order of memory. 1, or a code.

    Where a byte leaves the automaton, or may, the walk by items (or configurations) takes over. alone: nobody else
    reads on from here after the end of the text.
    """
    states = g64(h, H_STATES)
    scratch = g64(h, H_SCRATCH)
    path = g64(scratch, X_PATH)  # the states by depth, as operations
    loose = is_loose(h, state, below)
    known, bits = -1, 0  # the bytes that may come after an end of a class
    cmap = g64(h, H_POOL) + 4 * g32(states, state * S_WIDTH + S_CMAP)
    base = g32(states, state * S_WIDTH + S_BASE)
    wide = stride(h, state)
    start = (
        g32(states, (base + 1) * S_WIDTH + S_TRANS) - wide
    )  # operation op leads to the transitions at start + op * wide
    trans = g64(h, H_TRANS)
    own = g64(scratch, X_OWN) if g64(k, K_CONDITION) == ALWAYS else 0
    words = g64(g64(h, H_VOCAB), V_TRIES + g64(k, K_TRIE) * V_TRIE_WIDTH + 2)  # of `mark_kinds`
    far = g32(states, state * S_WIDTH + S_FLAGS) & COUNTED != 0
    node = g64(k, K_NODE)
    end = g32(nodes, node * T_WIDTH + T_END)
    top = g32(nodes, node * T_WIDTH + T_BYTE) >> 8
    ends = top if alone else top + 1  # below this depth a text may have ended
    p64(path, top, state - base)
    if own != 0:
        begin_kinds(h)
    node += 1
    while node < end:
        letter = g32(nodes, node * T_WIDTH + T_BYTE)
        depth = letter >> 8
        from_op = g64(path, depth - 1)
        after = g32(nodes, node * T_WIDTH + T_END)
        if own != 0 and after - node >= WORTH and reads_all(h, cmap, start, wide, far, from_op, g64(words, node)):
            own_subtree(h, own, g64(k, K_TRIE), node, after)
            node = after
            continue
        at = start + from_op * wide + 2 * g32(cmap, letter & 255)
        op = g32(trans, at)
        follows = not loose
        from_state = base + from_op
        if loose and depth > ends:
            eps = g32(states, from_state * S_WIDTH + S_EPS)
            if eps >= 0 and eps != known:
                bits = first_after(h, below, eps)
                if bits < 0:
                    return bits
                known = eps
            follows = eps >= 0 and has_bit(h, bits, letter & 255)
        if op > 0 and (far or g32(trans, at + 1) == 0):
            if loose and follows:
                done = fork_dive(h, k, from_state, base + op, below, node, letter & 255)
                if done < 0:
                    return done
                node = after
                continue
            p64(path, depth, op)
            count = g32(nodes, (node + 1) * T_WIDTH + T_TOKENS) - g32(nodes, node * T_WIDTH + T_TOKENS)
            if own != 0 and count == 1:
                token = g32(nodes, node * T_WIDTH + T_FIRST) & TOKEN
                p32(own, token >> 5, g32(own, token >> 5) | (1 << (token & 31)))
            elif count > 0:
                emit(h, k, nodes, node)
            node += 1
            continue
        eps = g32(states, from_state * S_WIDTH + S_EPS)
        if op != 0 or (eps >= 0 and depth > ends and follows):
            if not roomy(h):
                return GROW
            done = leave_dive(h, k, from_state, below, node, letter & 255)
            if done < 0:
                return done
        node = after
    return 1


@kernel
def is_loose(h, state, below):
    """Whether a text may end inside an automaton where it may also go on, and something may follow it there."""
    if below == 0 or g64(h, H_FLAGS) & COMPOSED == 0:
        return False
    return g32(g64(h, H_STATES), state * S_WIDTH + S_FLAGS) & LOOSE != 0


@kernel
def number_goes_on(h, state, below):
    """Whether what follows a shared number may begin like the rest of one, so that tokens have many ways: 1, 0 or a
    code."""
    if not is_loose(h, state, below):
        return 0
    bits = first_after(h, below, 0)
    if bits < 0:
        return bits
    data = g64(h, H_DATA) + 4 * bits
    signs_and_digits = g32(data, 1) & (0x03FF << 16 | 1 << 11 | 1 << 13 | 1 << 14)
    return 1 if signs_and_digits | (g32(data, 2) | g32(data, 3)) & 1 << 5 else 0  # E and e


@kernel
def fork_dive(h, k, state, inside, below, child, byte):
    """Read a byte both inside an automaton, where it leads to a state, and after the end of its text: 1, or a code."""
    if not roomy(h):
        return GROW
    if g64(k, K_BELOW) == WHOLE:
        return leave_dive(h, k, state, below, child, byte)
    before = g64(g64(h, H_SCRATCH), X_STACK_LEN)
    done = enter(h, k, child, inside, below, 0)
    if done == 1:
        done = read_after(h, k, below, g32(g64(h, H_STATES), state * S_WIDTH + S_EPS), child, byte)
    unite(h, before)
    return done


@kernel
def unite(h, before):
    """Drop from the newest entries of the stack, all for one byte, those that are there twice."""
    scratch = g64(h, H_SCRATCH)
    stack = g64(scratch, X_STACK)
    count = before
    for entry in range(before, g64(scratch, X_STACK_LEN)):
        at = entry * K_WIDTH
        known = False
        for other in range(before, count):
            same = g64(stack, other * K_WIDTH + K_STATE) == g64(stack, at + K_STATE)
            same = same and g64(stack, other * K_WIDTH + K_BELOW) == g64(stack, at + K_BELOW)
            known = known or (same and g64(stack, other * K_WIDTH + K_EVENT) == g64(stack, at + K_EVENT))
        if not known:
            for i in range(K_WIDTH):
                p64(stack, count * K_WIDTH + i, g64(stack, at + i))
            count += 1
    p64(scratch, X_STACK_LEN, count)


@kernel
def has_bit(h, bits, byte):
    """Whether a byte is in a 256-bit map in the data."""
    return (g32(g64(h, H_DATA), bits + (byte >> 5)) >> (byte & 31)) & 1 != 0


@kernel
def first_after(h, below, cls):
    """The bytes that callers may read after a return, not counting registers: data offset of 256 bits, or a code."""
    key = (TAG_AFTER << TAG) | (cls << 30) | below
    known = lookup(h, key)
    if known > 0:
        return known
    if not roomy(h):
        return GROW
    bits = g64(h, H_LEN + H_DATA)
    p64(h, H_LEN + H_DATA, bits + 8)
    for i in range(8):
        p32(g64(h, H_DATA), bits + i, 0)
    nodes = g64(h, H_NODES)
    work = g64(g64(h, H_SCRATCH), X_WORK)
    while below != 0:
        state = target(h, g32(nodes, below * N_WIDTH + N_RETURNS), cls)
        if state != 0:
            count = close(h, work, state, g32(nodes, below * N_WIDTH + N_PARENT))
            if count < 0:
                return count
            for i in range(count):
                add_first(h, g64(work, 3 * i), bits)
        below = g32(nodes, below * N_WIDTH + N_NEXT)
    store(h, key, bits)
    return bits


@kernel
def leave_dive(h, k, state, below, child, byte):
    """Read a byte that leads out of a dive: 1, or a code."""
    if g64(k, K_BELOW) == WHOLE:
        p64(k, K_STATE, single(h, state, below))
        return read_byte(h, k, child, byte)
    done = read_state(h, k, state, below, child, byte)
    eps = g32(g64(h, H_STATES), state * S_WIDTH + S_EPS)
    if done == 1 and eps >= 0:
        return read_after(h, k, below, eps, child, byte)
    return done


@kernel
def read_children(h, k, nodes, node, state, below):
    """Read each byte below a node by an item's own transitions: 1, or a code."""
    row = g64(h, H_STATES) + state * S_WIDTH * 4
    count = g32(row, S_COUNT)
    if g32(row, S_FALLBACK) == 0 and count != DENSE:
        if count == 0 and g32(row, S_FLAGS) & SPACE == 0:
            return 1
        fan = fan_of(h, g64(k, K_TRIE), node) if count <= FEW else 0
        if fan != 0:
            return read_few(h, k, fan, state, below)
    end = g32(nodes, node * T_WIDTH + T_END)
    child = node + 1
    while child < end:
        done = read_state(h, k, state, below, child, g32(nodes, child * T_WIDTH + T_BYTE) & 255)
        if done < 0:
            return done
        child = g32(nodes, child * T_WIDTH + T_END)
    return 1


@kernel
def read_few(h, k, fan, state, below):
    """Read those bytes below a node with many children that a state's few transitions name: 1, or a code."""
    states, trans = g64(h, H_STATES), g64(h, H_TRANS)
    spaces = g32(states, state * S_WIDTH + S_FLAGS) & SPACE != 0
    start = g32(states, state * S_WIDTH + S_TRANS)
    count = g32(states, state * S_WIDTH + S_COUNT)
    before = -1
    for i in range(count + 4 if spaces else count):
        byte = g32(trans, start + 3 * i) if i < count else (9, 10, 13, 32)[i - count]
        if byte != before and byte < 256 and not (spaces and i < count and is_space(byte)):
            child = fan_child(fan, byte)
            if child != 0:
                done = read_state(h, k, state, below, child, byte)
                if done < 0:
                    return done
        before = byte
    return 1


@kernel
def follow_item(h, k, nodes, node):
    """Walk on from an entry with one item: 1, or a code."""
    state, below = g64(k, K_STATE), g64(k, K_BELOW)
    if is_loose(h, state, below) and dives(h, state, node):
        return dive(h, k, nodes, state, below, True)
    out = g64(g64(h, H_SCRATCH), X_CLOSURE)
    count = close(h, out, state, below)
    if count < 0:
        return count
    for i in range(count):
        state, below = g64(out, 3 * i), g64(out, 3 * i + 1)
        if dives(h, state, node):
            done = dive(h, k, nodes, state, below, False)
        else:
            done = read_children(h, k, nodes, node, state, below)
        if done < 0:
            return done
    return 1


# --- configuration by configuration ----------------------------------------------------------------------------------


@kernel
def add_first(h, state, bits):
    """Add the bytes that a state's own transitions can read to a bitmap in the data."""
    states = g64(h, H_STATES)
    trans = g64(h, H_TRANS)
    pool = g64(h, H_POOL)
    data = g64(h, H_DATA)
    while state != 0:
        row = state * S_WIDTH
        start = g32(states, row + S_TRANS)
        count = g32(states, row + S_COUNT)
        if count == DENSE:
            cmap = g32(states, row + S_CMAP)
            for byte in range(256):
                if g32(trans, start + 2 * g32(pool, cmap + byte)) != 0:
                    p32(data, bits + (byte >> 5), g32(data, bits + (byte >> 5)) | (1 << (byte & 31)))
        else:
            for i in range(count):
                byte = g32(trans, start + 3 * i)
                if byte < 256:
                    p32(data, bits + (byte >> 5), g32(data, bits + (byte >> 5)) | (1 << (byte & 31)))
        if g32(states, row + S_FLAGS) & SPACE:
            p32(data, bits, g32(data, bits) | (1 << 9) | (1 << 10) | (1 << 13))
            p32(data, bits + 1, g32(data, bits + 1) | 1)
        state = g32(states, row + S_FALLBACK)


@kernel
def first(h, config):
    """The bytes that may follow, not counting registers: data offset of a 256-bit map, or a code."""
    configs = g64(h, H_CONFIGS)
    known = g32(configs, config * G_WIDTH + G_FIRST)
    if known != 0:
        return known
    if not roomy(h):
        return GROW
    bits = g64(h, H_LEN + H_DATA)
    p64(h, H_LEN + H_DATA, bits + 8)
    for i in range(8):
        p32(g64(h, H_DATA), bits + i, 0)
    work = g64(g64(h, H_SCRATCH), X_WORK)
    states = g64(h, H_STATES)
    pending = start_work(h, config, work)
    done = 0
    while done < pending:
        state, node = g64(work, 3 * done), g64(work, 3 * done + 1)
        done += 1
        if g32(states, state * S_WIDTH + S_FLAGS) & UNBUILT:
            p64(h, H_ARG, state)
            return BUILD
        add_first(h, state, bits)
        pending = expand(h, state, node, 0, work, pending)
        if pending >= WORK_CAP:
            return OVERFLOW
        if not roomy(h):
            return GROW
    p32(configs, config * G_WIDTH + G_FIRST, bits)
    return bits


@kernel
def read_byte(h, k, node, byte):
    """Follow one byte of the trie from an entry with a whole configuration: 1, or a code."""
    value = step(h, g64(k, K_STATE), byte)
    if value <= 0:
        return 1 if value == 0 else value
    event = detail(value)
    if event >= 0:
        return enter(h, k, node, value >> 32, WHOLE, event)
    return enter(h, k, node, value >> 32, WHOLE, 0)


@kernel
def follow_config(h, k, nodes, node):
    """Walk on from an entry with a whole configuration: 1, or a code."""
    config = g64(k, K_STATE)
    configs = g64(h, H_CONFIGS)
    state = g32(configs, config * G_WIDTH + G_STATE)
    if state > 0 and dives(h, state, node):
        done = dive(h, k, nodes, state, g32(configs, config * G_WIDTH + G_NODE), True)
        p64(k, K_STATE, config)
        return done
    bits = first(h, config)
    if bits < 0:
        return bits
    end = g32(nodes, node * T_WIDTH + T_END)
    child = node + 1
    while child < end:
        byte = g32(nodes, child * T_WIDTH + T_BYTE) & 255
        if has_bit(h, bits, byte):
            done = read_byte(h, k, child, byte)
            if done < 0:
                return done
        child = g32(nodes, child * T_WIDTH + T_END)
    return 1


@kernel
def run(h):
    """Walk until the stack is empty: 1, or a code."""
    scratch = g64(h, H_SCRATCH)
    k = g64(scratch, X_STACK)  # the top entry is moved here, below the stack proper
    while g64(scratch, X_STACK_LEN) > 1:
        if not roomy(h):
            return GROW
        count = g64(scratch, X_STACK_LEN) - 1
        p64(scratch, X_STACK_LEN, count)
        for i in range(K_WIDTH):
            p64(k, i, g64(k, count * K_WIDTH + i))
        if not arrive(h, k):
            continue
        nodes = trie_nodes(h, g64(k, K_TRIE))
        node = g64(k, K_NODE)
        emit(h, k, nodes, node)
        if node + 1 == g32(nodes, node * T_WIDTH + T_END):
            continue
        if g64(k, K_BELOW) == WHOLE:
            done = follow_config(h, k, nodes, node)
        else:
            done = follow_item(h, k, nodes, node)
        if done < 0:
            return done
    return 1
