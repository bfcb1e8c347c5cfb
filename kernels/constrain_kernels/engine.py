"""Stepping: configurations interned to integers, each step computed once and remembered."""

from __future__ import annotations

from constrain_kernels.jit import kernel
from constrain_kernels.layout import (
    BUILD,
    CALL,
    DENSE,
    G_ACCEPT,
    G_COUNT,
    G_FIRST,
    G_LAST,
    G_NODE,
    G_PREV,
    G_ROW,
    G_STATE,
    G_WIDTH,
    GROW,
    H_ARG,
    H_CAP,
    H_CONFIGS,
    H_DATA,
    H_FLAGS,
    H_HASH,
    H_LEN,
    H_NODES,
    H_POOL,
    H_RESULTS,
    H_SCRATCH,
    H_STATES,
    H_TRANS,
    N_EDGE,
    N_NEXT,
    N_PARENT,
    N_RETURNS,
    N_WIDTH,
    NO_REGISTERS,
    OVERFLOW,
    PURE,
    S_BASE,
    S_CALLS,
    S_CMAP,
    S_COUNT,
    S_EPS,
    S_FALLBACK,
    S_FLAGS,
    S_PARAM,
    S_TRANS,
    S_WIDTH,
    SPACE,
    TAG,
    TAG_ITEM,
    TAG_NODE,
    TAG_NODES,
    TAG_SET,
    TAG_STEP,
    UNBUILT,
    WORK_CAP,
    X_RESULTS,
    X_WORK,
)
from constrain_kernels.memory import copy, g32, g64, p32, p64


@kernel
def lookup(h, key):
    """The value stored under `key`, or -1."""
    table = g64(h, H_HASH)
    mask = g64(h, H_CAP + H_HASH) - 1
    i = ((key * -7046029254386353131) >> 20) & mask
    while True:
        found = g64(table, 2 * i)
        if found == key:
            return g64(table, 2 * i + 1)
        if found == 0:
            return -1
        i = (i + 1) & mask


@kernel
def store(h, key, value):
    """Add a key that is not there yet."""
    table = g64(h, H_HASH)
    mask = g64(h, H_CAP + H_HASH) - 1
    i = ((key * -7046029254386353131) >> 20) & mask
    while g64(table, 2 * i) != 0:
        i = (i + 1) & mask
    p64(table, 2 * i + 1, value)
    p64(table, 2 * i, key)
    p64(h, H_LEN + H_HASH, g64(h, H_LEN + H_HASH) + 1)


@kernel
def rehash(h, table, cap):
    """Move all pairs into a larger hash table, all zero, and make it the one in use: one step for other threads."""
    old = g64(h, H_HASH)
    old_cap = g64(h, H_CAP + H_HASH)
    p64(h, H_HASH, table)
    p64(h, H_CAP + H_HASH, cap)
    p64(h, H_LEN + H_HASH, 0)
    for i in range(old_cap):
        key = g64(old, 2 * i)
        if key != 0:
            store(h, key, g64(old, 2 * i + 1))


@kernel
def enlarge(h, table, address, cap, width):
    """Move a table's rows (`width` bytes each) to a larger array and make it the one in use: one step for others."""
    copy(address, g64(h, table), g64(h, H_LEN + table) * width)
    p64(h, table, address)
    p64(h, H_CAP + table, cap)


@kernel
def roomy(h):
    """Whether every table has room for one more step's results."""
    if 2 * g64(h, H_LEN + H_HASH) + 512 > g64(h, H_CAP + H_HASH):
        return False
    if g64(h, H_LEN + H_DATA) + 4096 > g64(h, H_CAP + H_DATA):
        return False
    if g64(h, H_LEN + H_NODES) + 256 > g64(h, H_CAP + H_NODES):
        return False
    return g64(h, H_LEN + H_CONFIGS) + 256 <= g64(h, H_CAP + H_CONFIGS)


@kernel
def new_node(h, key, returns, parent, following, edge):
    nodes = g64(h, H_NODES)
    node = g64(h, H_LEN + H_NODES)
    if node >= g64(h, H_CAP + H_NODES) or 2 * g64(h, H_LEN + H_HASH) >= g64(h, H_CAP + H_HASH):
        return 0  # there is no room, and `roomy` is false: the caller drops what it has and asks for room
    p64(h, H_LEN + H_NODES, node + 1)
    row = node * N_WIDTH
    p32(nodes, row + N_RETURNS, returns)
    p32(nodes, row + N_PARENT, parent)
    p32(nodes, row + N_NEXT, following)
    p32(nodes, row + N_EDGE, node if edge == 0 else edge)
    store(h, key, node)
    return node


@kernel
def push(h, returns, parent):
    """The stack `parent` with one return on top; a return that would only return again is left out."""
    if returns > 0 and g32(g64(h, H_STATES), returns * S_WIDTH + S_FLAGS) & PURE:
        return parent
    key = (TAG_NODE << TAG) | ((returns & 0x3FFFFFFF) << 30) | parent
    node = lookup(h, key)
    if node >= 0:
        return node
    return new_node(h, key, returns, parent, 0, 0)


@kernel
def chain(h, node, edge):
    """The stack with the edges of `node` and the single edge of `edge`, which sorts after them."""
    key = (TAG_NODES << TAG) | (node << 30) | edge
    found = lookup(h, key)
    if found >= 0:
        return found
    nodes = g64(h, H_NODES)
    row = edge * N_WIDTH
    return new_node(h, key, g32(nodes, row + N_RETURNS), g32(nodes, row + N_PARENT), node, edge)


@kernel
def edge_of(h, node):
    return 0 if node == 0 else g32(g64(h, H_NODES), node * N_WIDTH + N_EDGE)


@kernel
def merge(h, a, b):
    """The stack with the edges of both (chains run from the largest edge down, so this recurses on the tails)."""
    if a == b or b == 0:
        return a
    if a == 0:
        return b
    nodes = g64(h, H_NODES)
    x = edge_of(h, a)
    y = edge_of(h, b)
    rest_a = g32(nodes, a * N_WIDTH + N_NEXT)
    rest_b = g32(nodes, b * N_WIDTH + N_NEXT)
    if x == y:
        rest, edge = merge(h, rest_a, rest_b), x
    elif x > y:
        rest, edge = merge(h, rest_a, b), x
    else:
        rest, edge = merge(h, a, rest_b), y
    return edge if rest == 0 else chain(h, rest, edge)


@kernel
def target(h, returns, cls):
    """Where a return of class `cls` goes: a state, or 0."""
    if returns >= 0:
        return returns if cls == 0 else 0
    pool = g64(h, H_POOL)
    return g32(pool, cls + 1 - returns) if cls < g32(pool, -returns) else 0


@kernel
def new_config(h, key, state, node, count, prev, last):
    configs = g64(h, H_CONFIGS)
    config = g64(h, H_LEN + H_CONFIGS)
    p64(h, H_LEN + H_CONFIGS, config + 1)
    row = config * G_WIDTH
    p32(configs, row + G_STATE, state)
    p32(configs, row + G_NODE, node)
    p32(configs, row + G_COUNT, count)
    p32(configs, row + G_PREV, prev)
    p32(configs, row + G_LAST, config if last == 0 else last)
    p32(configs, row + G_ROW, 0)
    p32(configs, row + G_ACCEPT, -1)
    p32(configs, row + G_FIRST, 0)
    store(h, key, config)
    return config


@kernel
def single(h, state, node):
    """The configuration of one item."""
    key = (TAG_ITEM << TAG) | (state << 30) | node
    config = lookup(h, key)
    if config >= 0:
        return config
    return new_config(h, key, state, node, 1, 0, 0)


@kernel
def join(h, config, item):
    """The configuration `config` (0: empty) with one more item, given as its own configuration."""
    if config == 0:
        return item
    key = (TAG_SET << TAG) | (config << 30) | item
    found = lookup(h, key)
    if found >= 0:
        return found
    count = g32(g64(h, H_CONFIGS), config * G_WIDTH + G_COUNT)
    return new_config(h, key, -1, 0, count + 1, config, item)


@kernel
def find(h, state, symbol):
    """(address index, how many) of the transitions on `symbol`; the first state of the fallback chain that has any."""
    states = g64(h, H_STATES)
    trans = g64(h, H_TRANS)
    while state != 0:
        row = state * S_WIDTH
        count = g32(states, row + S_COUNT)
        start = g32(states, row + S_TRANS)
        if count == DENSE:
            if symbol < 256:
                at = start + 2 * g32(g64(h, H_POOL), g32(states, row + S_CMAP) + symbol)
                if g32(trans, at) != 0:
                    return state, at, 1
        else:
            low, high = 0, count
            while low < high:
                middle = (low + high) >> 1
                if g32(trans, start + 3 * middle) < symbol:
                    low = middle + 1
                else:
                    high = middle
            high = low
            while high < count and g32(trans, start + 3 * high) == symbol:
                high += 1
            if high > low:
                return state, start + 3 * low + 1, high - low
        state = g32(states, row + S_FALLBACK)
    return 0, 0, 0


@kernel
def add_work(work, count, state, node, source):
    for i in range(count):
        if g64(work, 3 * i) == state and g64(work, 3 * i + 1) == node and g64(work, 3 * i + 2) == source:
            return count
    if count < WORK_CAP:
        p64(work, 3 * count, state)
        p64(work, 3 * count + 1, node)
        p64(work, 3 * count + 2, source)
    return count + 1


@kernel
def add_result(h, results, count, state, node, source, event):
    """Add a target item; without registers, items with equal states merge their stacks."""
    if g64(h, H_FLAGS) & NO_REGISTERS:
        source = 0
        for i in range(count):
            if g64(results, 4 * i) == state:
                p64(results, 4 * i + 1, merge(h, g64(results, 4 * i + 1), node))
                return count
    for i in range(count):
        at = 4 * i
        if g64(results, at) == state and g64(results, at + 1) == node and g64(results, at + 2) == source:
            if g64(results, at + 3) == event:
                return count
    if count < WORK_CAP:
        p64(results, 4 * count, state)
        p64(results, 4 * count + 1, node)
        p64(results, 4 * count + 2, source)
        p64(results, 4 * count + 3, event)
    return count + 1


@kernel
def leave(h, add_to_work, buffer, count, node, cls, source, event):
    """Return with class `cls` to every caller of `node`; the new items go to the worklist or to the results."""
    nodes = g64(h, H_NODES)
    while node != 0:
        row = node * N_WIDTH
        state = target(h, g32(nodes, row + N_RETURNS), cls)
        if state != 0:
            parent = g32(nodes, row + N_PARENT)
            if add_to_work:
                count = add_work(buffer, count, state, parent, source)
            else:
                count = add_result(h, buffer, count, state, parent, source, event)
        node = g32(nodes, row + N_NEXT)
    return count


@kernel
def read(h, state, node, source, symbol, results, count):
    """The items that `symbol` leads to by the state's own transitions."""
    owner, at, n = find(h, state, symbol)
    trans = g64(h, H_TRANS)
    row = owner * S_WIDTH
    states = g64(h, H_STATES)
    for i in range(n):
        op = g32(trans, at + 3 * i)
        event = g32(trans, at + 3 * i + 1)
        if event < 0:
            event = g32(states, row + S_PARAM) - event - 1
        if op < 0:
            count = leave(h, False, results, count, node, -op - 1, source, event)
        elif op >= CALL:
            pool = g64(h, H_POOL)
            down = push(h, g32(pool, op - CALL + 1), node)
            count = add_result(h, results, count, g32(pool, op - CALL), down, source, event)
        elif op > 0:
            count = add_result(h, results, count, g32(states, row + S_BASE) + op, node, source, event)
    return count


@kernel
def expand(h, state, node, source, work, count):
    """Put on the worklist what can be reached from an item without reading: its calls and its return."""
    states = g64(h, H_STATES)
    row = state * S_WIDTH
    calls = g32(states, row + S_CALLS)
    if calls != 0:
        pool = g64(h, H_POOL)
        for i in range(g32(pool, calls)):
            down = push(h, g32(pool, calls + 2 * i + 2), node)
            count = add_work(work, count, g32(pool, calls + 2 * i + 1), down, source)
    eps = g32(states, row + S_EPS)
    if eps >= 0:
        count = leave(h, True, work, count, node, eps, source, 0)
    return count


@kernel
def start_work(h, config, work):
    """Fill the worklist with the configuration's items; item 0 first."""
    configs = g64(h, H_CONFIGS)
    count = g32(configs, config * G_WIDTH + G_COUNT)
    for i in range(count):
        item = g32(configs, config * G_WIDTH + G_LAST)
        at = 3 * (count - 1 - i)
        p64(work, at, g32(configs, item * G_WIDTH + G_STATE))
        p64(work, at + 1, g32(configs, item * G_WIDTH + G_NODE))
        p64(work, at + 2, count - 1 - i)
        config = g32(configs, config * G_WIDTH + G_PREV)
    return count


@kernel
def is_space(symbol):
    return symbol == 32 or symbol == 10 or symbol == 9 or symbol == 13


@kernel
def space_event(symbol):
    """The fixed event ids 1..3 of white space: blank, line feed, carriage return."""
    return 2 if symbol == 10 else (3 if symbol == 13 else 1)


@kernel
def targets(h, config, symbol):
    """Compute the items that `symbol` leads to, into the scratch results; returns how many, or a code."""
    scratch = g64(h, H_SCRATCH)
    work = g64(scratch, X_WORK)
    results = g64(scratch, X_RESULTS)
    states = g64(h, H_STATES)
    pending = start_work(h, config, work)
    count = 0
    done = 0
    while done < pending:
        state = g64(work, 3 * done)
        node = g64(work, 3 * done + 1)
        source = g64(work, 3 * done + 2)
        done += 1
        flags = g32(states, state * S_WIDTH + S_FLAGS)
        if flags & UNBUILT:
            p64(h, H_ARG, state)
            return BUILD
        if flags & SPACE and is_space(symbol):
            count = add_result(h, results, count, state, node, source, space_event(symbol))
            continue
        count = read(h, state, node, source, symbol, results, count)
        pending = expand(h, state, node, source, work, pending)
        if pending >= WORK_CAP or count >= WORK_CAP:
            return OVERFLOW
        if not roomy(h):
            return GROW
    return count


@kernel
def sort_results(h, results, count):
    """Order the targets by (configuration, source): equal sets get equal ids. Column 0 becomes the configuration."""
    for i in range(count):
        p64(results, 4 * i, single(h, g64(results, 4 * i), g64(results, 4 * i + 1)))
    for i in range(1, count):
        a, b, c = g64(results, 4 * i), g64(results, 4 * i + 2), g64(results, 4 * i + 3)
        j = i - 1
        while j >= 0 and (g64(results, 4 * j) > a or (g64(results, 4 * j) == a and g64(results, 4 * j + 2) > b)):
            p64(results, 4 * j + 4, g64(results, 4 * j))
            p64(results, 4 * j + 6, g64(results, 4 * j + 2))
            p64(results, 4 * j + 7, g64(results, 4 * j + 3))
            j -= 1
        p64(results, 4 * j + 4, a)
        p64(results, 4 * j + 6, b)
        p64(results, 4 * j + 7, c)


@kernel
def write_list(h, results, count):
    """Write the targets as a list [count, (configuration, source, event)...]; returns (joint target, offset)."""
    data = g64(h, H_DATA)
    offset = g64(h, H_LEN + H_DATA)
    p64(h, H_LEN + H_DATA, offset + 1 + 3 * count)
    p32(data, offset, count)
    config = 0
    for i in range(count):
        item = g64(results, 4 * i)
        p32(data, offset + 1 + 3 * i, item)
        p32(data, offset + 2 + 3 * i, g64(results, 4 * i + 2))
        p32(data, offset + 3 + 3 * i, g64(results, 4 * i + 3))
        config = join(h, config, item)
    return config, offset


@kernel
def fits_results(h, count):
    """Whether a step's results can be interned: a configuration for each and for each join, a list."""
    data = g64(h, H_LEN + H_DATA) + 3 * count + 4096 <= g64(h, H_CAP + H_DATA)
    configs = g64(h, H_LEN + H_CONFIGS) + 2 * count + 256 <= g64(h, H_CAP + H_CONFIGS)
    return data and configs and 2 * (g64(h, H_LEN + H_HASH) + 2 * count) + 512 <= g64(h, H_CAP + H_HASH)


@kernel
def step(h, config, symbol):
    """What `symbol` leads to: target << 32 | detail, remembered; 0 is dead, negative a code.

    detail: 0 plain; an event > 0; or, as a negative number, minus the data offset of a list of targets.
    """
    key = (TAG_STEP << TAG) | (config << 21) | symbol
    value = lookup(h, key)
    if value >= 0:
        return value
    if not roomy(h):
        return GROW
    count = targets(h, config, symbol)
    if count < 0:
        return count
    if not fits_results(h, count):
        p64(h, H_RESULTS, 4 * count)
        return GROW
    results = g64(g64(h, H_SCRATCH), X_RESULTS)
    value = 0
    if count > 0:
        sort_results(h, results, count)
        if count == 1 and g32(g64(h, H_CONFIGS), config * G_WIDTH + G_COUNT) == 1:
            value = (g64(results, 0) << 32) | g64(results, 3)
        else:
            joint, offset = write_list(h, results, count)
            value = (joint << 32) | ((-offset) & 0xFFFFFFFF)
    store(h, key, value)
    return value


@kernel
def detail(value):
    """The signed low half of a step's value."""
    low = value & 0xFFFFFFFF
    return low - (1 << 32) if low >= (1 << 31) else low


@kernel
def accepts(h, config):
    """1 if the text may end here, 0 if not, or a code: some item returns through an empty stack."""
    configs = g64(h, H_CONFIGS)
    known = g32(configs, config * G_WIDTH + G_ACCEPT)
    if known >= 0:
        return known
    if not roomy(h):
        return GROW
    work = g64(g64(h, H_SCRATCH), X_WORK)
    states = g64(h, H_STATES)
    pending = start_work(h, config, work)
    done = 0
    found = 0
    while done < pending and found == 0:
        state, node = g64(work, 3 * done), g64(work, 3 * done + 1)
        done += 1
        if g32(states, state * S_WIDTH + S_FLAGS) & UNBUILT:
            p64(h, H_ARG, state)
            return BUILD
        if node == 0 and g32(states, state * S_WIDTH + S_EPS) == 0:
            found = 1
        pending = expand(h, state, node, 0, work, pending)
        if pending >= WORK_CAP:
            return OVERFLOW
        if not roomy(h):
            return GROW
    p32(configs, config * G_WIDTH + G_ACCEPT, found)
    return found
