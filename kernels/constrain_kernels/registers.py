"""Registers: what a text has used up, kept out of the configurations so that those recur.

A container that needs it has a cell: the last declared key or the bits of all seen ones, a count, a list of extra keys.
Cells are never changed, a new version is appended instead; taking back a token is forgetting the newest ones.
"""

from __future__ import annotations

from constrain_kernels.distinct import container_hash, number_hash
from constrain_kernels.jit import kernel
from constrain_kernels.layout import (
    AFTER_CR,
    AFTER_LF,
    ANY_ORDER,
    ARRAY,
    BLANKS,
    C_ALL,
    C_EXTRA,
    C_KEYS,
    C_KIND,
    C_MAX,
    C_MIN,
    C_NEXT,
    C_REQUIRED,
    C_WORDS,
    E_WIDTH,
    EV_ALIVE,
    EV_CHAR,
    EV_CLOSED,
    EV_COMMA,
    EV_DIGIT,
    EV_DROP,
    EV_END,
    EV_EXTRA,
    EV_FITS,
    EV_ITEM,
    EV_KEY,
    EV_LAST,
    EV_NUMBER,
    EV_OPEN,
    EV_POP,
    EV_PUSH,
    EV_SHUT,
    EV_SPACE,
    EV_STRING,
    GROW,
    H_EVENTS,
    H_POOL,
    L_CLASS,
    L_COUNT,
    L_ENTRY,
    L_LAST,
    L_OTHER,
    L_PARENT,
    L_START,
    L_WIDTH,
    M_CELLS,
    M_CELLS_CAP,
    M_CELLS_LEN,
    M_ENTRIES,
    M_ENTRIES_CAP,
    M_ENTRIES_LEN,
    M_TEXT,
    M_TEXT_LEN,
    ORDERED,
    R_BLANKS,
    R_CELL,
    R_CHARS,
    R_MARK,
)
from constrain_kernels.memory import g8, g32, g64, p32, p64


@kernel
def next_space(blanks, kind):
    """White space so far after one more character of it, or -1: one line break, then at most 64 blanks."""
    if kind == 0:
        if blanks == AFTER_CR:
            return AFTER_LF + 1
        return -1 if blanks == BLANKS or blanks == AFTER_LF + BLANKS else blanks + 1
    if kind == 1:
        return AFTER_LF if blanks == 0 or blanks == AFTER_CR else -1
    return AFTER_CR if blanks == 0 else -1


@kernel
def missing(pool, cells, cell, cls, key):
    """How many required keys are missing once `key` has come too (-1: an extra key)."""
    found = 0
    if g32(pool, cls + C_KIND) == ORDERED:
        n, following = g32(pool, cls + C_KEYS), g32(pool, cls + C_NEXT)
        after = g32(pool, following + max(key, g32(cells, cell + L_LAST)) + 1)
        while after < n:
            found += 1
            after = g32(pool, following + after + 1)
        return found
    required = g32(pool, cls + C_REQUIRED)
    for i in range(g32(pool, cls + C_WORDS)):
        left = (g32(pool, required + i) & ~g32(cells, cell + L_WIDTH + i)) & 0xFFFFFFFF
        if key >> 5 == i:
            left &= ~(1 << (key & 31))
        while left != 0:
            left &= left - 1
            found += 1
    return found


@kernel
def fits_count(pool, cells, cell, cls, key):
    """Whether one more member (-1: an extra key) leaves room for the required keys, and keys enough for the minimum."""
    most, least = g32(pool, cls + C_MAX), g32(pool, cls + C_MIN)
    members = g32(cells, cell + L_COUNT) + 1
    if most != 0 and members + missing(pool, cells, cell, cls, key) > most:
        return False
    if least > members and key >= 0 and g32(pool, cls + C_EXTRA) == 0 and g32(pool, cls + C_KIND) == ORDERED:
        listed = g32(pool, cls + C_ALL)
        for i in range(g32(pool, listed), 0, -1):
            if members >= least or g32(pool, listed + i) <= key:
                break
            members += 1
        return members >= least
    return True


@kernel
def is_free(pool, cells, cell, cls, key):
    """Whether the declared key may come now: not seen; in schema order, nothing required is skipped."""
    if g32(pool, cls + C_KIND) == ORDERED:
        last = g32(cells, cell + L_LAST)
        free = key > last and g32(pool, g32(pool, cls + C_NEXT) + last + 1) >= key
    else:
        free = (g32(cells, cell + L_WIDTH + (key >> 5)) >> (key & 31)) & 1 == 0
    return free and fits_count(pool, cells, cell, cls, key)


@kernel
def any_free(pool, cells, cell, cls, keys):
    """Whether some key of a pool list [n, keys...] may come now."""
    for i in range(g32(pool, keys)):
        if is_free(pool, cells, cell, cls, g32(pool, keys + 1 + i)):
            return True
    return False


@kernel
def required_met(pool, cells, cell, cls):
    """Whether no required key is missing."""
    if g32(pool, cls + C_KIND) == ORDERED:
        after = g32(cells, cell + L_LAST) + 1
        return g32(pool, g32(pool, cls + C_NEXT) + after) == g32(pool, cls + C_KEYS)
    required = g32(pool, cls + C_REQUIRED)
    for i in range(g32(pool, cls + C_WORDS)):
        if g32(pool, required + i) & ~g32(cells, cell + L_WIDTH + i):
            return False
    return True


@kernel
def extra_legal(pool, cells, cell, cls):
    """Whether an extra key may come now; in schema order they come after every required one."""
    if g32(pool, cls + C_EXTRA) == 0:
        return False
    if g32(pool, cls + C_KIND) == ORDERED and not required_met(pool, cells, cell, cls):
        return False
    return fits_count(pool, cells, cell, cls, -1)


@kernel
def guard(h, cells, cell, event):
    """Whether an event that looks at the innermost container may happen, given that container's cell."""
    row = event * E_WIDTH
    events = g64(h, H_EVENTS)
    kind = g32(events, row)
    pool = g64(h, H_POOL)
    cls = g32(events, row + 2)
    if cls == 0:
        cls = g32(cells, cell + L_CLASS)
    if kind == EV_KEY:
        return is_free(pool, cells, cell, cls, g32(events, row + 1))
    if kind == EV_ALIVE:
        return any_free(pool, cells, cell, cls, g32(events, row + 1))
    if kind == EV_OPEN:
        return extra_legal(pool, cells, cell, cls)
    if kind == EV_CLOSED:
        if extra_legal(pool, cells, cell, cls):
            return False
        return any_free(pool, cells, cell, cls, g32(events, row + 1))
    count = g32(cells, cell + L_COUNT)
    if kind == EV_ITEM:
        return count + 2 <= g32(pool, cls + C_MAX)
    if kind == EV_COMMA:
        return extra_legal(pool, cells, cell, cls) or any_free(pool, cells, cell, cls, g32(pool, cls + C_ALL))
    if kind == EV_POP or kind == EV_SHUT:
        if g32(pool, cls + C_KIND) == ARRAY:
            return count + 1 >= g32(pool, cls + C_MIN)
        return count >= g32(pool, cls + C_MIN) and required_met(pool, cells, cell, cls)
    return True


@kernel
def new_cell(pool, cells, top, parent, cls):
    """Append the cell of a container that opens at `top`; returns the length after it."""
    p32(cells, top + L_PARENT, parent)
    p32(cells, top + L_CLASS, cls)
    p32(cells, top + L_LAST, -1)
    p32(cells, top + L_COUNT, 0)
    p32(cells, top + L_ENTRY, 0)
    p32(cells, top + L_OTHER, 0)
    p32(cells, top + L_START, 0)
    words = g32(pool, cls + C_WORDS)
    for i in range(words):
        p32(cells, top + L_WIDTH + i, 0)
    return top + L_WIDTH + words


@kernel
def changed_cell(h, cells, top, cell, event):
    """Append the version of `cell` that a KEY, ITEM or EXTRA event makes; returns the length after it."""
    pool = g64(h, H_POOL)
    events = g64(h, H_EVENTS)
    kind = g32(events, event * E_WIDTH)
    cls = g32(cells, cell + L_CLASS)
    size = L_WIDTH + g32(pool, cls + C_WORDS)
    for i in range(size):
        p32(cells, top + i, g32(cells, cell + i))
    if kind == EV_KEY:
        key = g32(events, event * E_WIDTH + 1)
        p32(cells, top + L_LAST, key)
        if g32(pool, cls + C_KIND) == ANY_ORDER:
            word = L_WIDTH + (key >> 5)
            p32(cells, top + word, g32(cells, top + word) | (1 << (key & 31)))
    elif kind == EV_EXTRA:
        p32(cells, top + L_LAST, g32(pool, cls + C_KEYS) - 1)
    p32(cells, top + L_COUNT, g32(cells, cell + L_COUNT) + 1)
    return top + size


@kernel
def changes(kind):
    """Whether an event of this kind changes the innermost container's cell."""
    return kind == EV_KEY or kind == EV_EXTRA or kind == EV_ITEM


@kernel
def repeats(m, cell, mark):
    """Whether the extra key text[mark:] already stands in the container."""
    text = g64(m, M_TEXT)
    size = g64(m, M_TEXT_LEN) - mark
    entries = g64(m, M_ENTRIES)
    entry = g32(g64(m, M_CELLS), cell + L_ENTRY)
    while entry != 0:
        if g32(entries, entry + 2) == size:
            start = g32(entries, entry + 1)
            i = 0
            while i < size and g8(text, start + i) == g8(text, mark + i):
                i += 1
            if i == size:
                return True
        entry = g32(entries, entry)
    return False


@kernel
def remember(m, cell, mark):
    """Append the extra key text[mark:] to the entries of the (new) cell."""
    entries = g64(m, M_ENTRIES)
    top = g64(m, M_ENTRIES_LEN)
    p32(entries, top, g32(g64(m, M_CELLS), cell + L_ENTRY))
    p32(entries, top + 1, mark)
    p32(entries, top + 2, g64(m, M_TEXT_LEN) - mark)
    p64(m, M_ENTRIES_LEN, top + 3)
    p32(g64(m, M_CELLS), cell + L_ENTRY, top)


@kernel
def apply_text(h, event, regs):
    """Events that look at the text's position rather than at a container: 1 done, 0 refused, -1 none of these."""
    row = event * E_WIDTH
    events = g64(h, H_EVENTS)
    kind = g32(events, row)
    if kind == EV_SPACE:
        blanks = next_space(g64(regs, R_BLANKS), g32(events, row + 1))
        p64(regs, R_BLANKS, blanks)
        return 1 if blanks >= 0 else 0
    p64(regs, R_BLANKS, 0)
    if kind == EV_CHAR:
        chars = g64(regs, R_CHARS) + 1
        p64(regs, R_CHARS, chars)
        return 1 if chars <= g32(events, row + 1) else 0
    if kind == EV_FITS:
        return 1 if g64(regs, R_CHARS) <= g32(events, row + 1) else 0
    if kind == EV_END:
        return 1 if g64(regs, R_CHARS) >= g32(events, row + 1) else 0
    if kind == EV_STRING:
        p64(regs, R_CHARS, 0)
        return 1
    return -1


@kernel
def known(m, cell, value):
    """Whether a number, object or array with this hash is among the container's items."""
    entries = g64(m, M_ENTRIES)
    entry = g32(g64(m, M_CELLS), cell + L_OTHER)
    while entry != 0:
        low = g32(entries, entry + 1) & 0xFFFFFFFF
        if (g32(entries, entry + 2) << 32) | low == value:
            return True
        entry = g32(entries, entry)
    return False


@kernel
def room_for_cell(h, m, cell):
    """Whether a new version of a cell and one entry fit."""
    size = L_WIDTH + g32(g64(h, H_POOL), g32(g64(m, M_CELLS), cell + L_CLASS) + C_WORDS)
    cells_fit = g64(m, M_CELLS_LEN) + size <= g64(m, M_CELLS_CAP)
    return cells_fit and g64(m, M_ENTRIES_LEN) + 3 <= g64(m, M_ENTRIES_CAP)


@kernel
def keep_item(h, m, event, regs, cell, value):
    """Let a container have one more item, with this hash: 1, or GROW."""
    if not room_for_cell(h, m, cell):
        return GROW
    cells, entries = g64(m, M_CELLS), g64(m, M_ENTRIES)
    top, entry = g64(m, M_CELLS_LEN), g64(m, M_ENTRIES_LEN)
    p64(m, M_CELLS_LEN, changed_cell(h, cells, top, cell, event))
    p64(m, M_ENTRIES_LEN, entry + 3)
    p32(entries, entry, g32(cells, cell + L_OTHER))
    p32(entries, entry + 1, value)
    p32(entries, entry + 2, value >> 32)
    p32(cells, top + L_OTHER, entry)
    p64(regs, R_CELL, top)
    return 1


@kernel
def end_number(h, m, event, regs):
    """A number among items that differ is complete: 1, 0 if it repeats one, or GROW."""
    test = g32(g64(h, H_EVENTS), event * E_WIDTH + 2)
    cells, cell = g64(m, M_CELLS), g64(regs, R_CELL)
    if g32(g64(h, H_EVENTS), test * E_WIDTH) == EV_KEY:
        if not guard(h, cells, cell, test):
            return 0
        if not room_for_cell(h, m, cell):
            return GROW
        top = g64(m, M_CELLS_LEN)
        p64(m, M_CELLS_LEN, changed_cell(h, cells, top, cell, test))
        p64(regs, R_CELL, top)
        return 1
    if g64(regs, R_CHARS) != 0:
        return 0
    value = number_hash(g64(m, M_TEXT), g64(regs, R_MARK) - 1, g64(m, M_TEXT_LEN))
    return keep_item(h, m, event, regs, cell, value)


@kernel
def read_digit(h, m, event, regs):
    """A byte of a number among items that differ: 1, or 0 if only a repeated one could follow."""
    events = g64(h, H_EVENTS)
    opening, cell = g32(events, event * E_WIDTH + 2), g64(regs, R_CELL)
    if opening != 0:
        if not guard(h, g64(m, M_CELLS), cell, opening):
            return 0
        p64(regs, R_MARK, g64(m, M_TEXT_LEN) + 1)
    repeated = known(m, cell, number_hash(g64(m, M_TEXT), g64(regs, R_MARK) - 1, g64(m, M_TEXT_LEN) + 1))
    p64(regs, R_CHARS, 1 if repeated else 0)
    return 0 if repeated and g32(events, event * E_WIDTH + 1) else 1


@kernel
def leads_to_repeat(h, m, event, regs):
    """Whether a string among items that differ can, after this byte, only become one of them."""
    pool, text, entries = g64(h, H_POOL), g64(m, M_TEXT), g64(m, M_ENTRIES)
    listed = g32(g64(h, H_EVENTS), event * E_WIDTH + 1)
    mark = g64(regs, R_MARK)
    typed = g64(m, M_TEXT_LEN) + 1 - mark
    more = g32(pool, listed + 1)
    entry = g32(g64(m, M_CELLS), g64(regs, R_CELL) + L_ENTRY)
    while entry != 0:
        start = g32(entries, entry + 1)
        if g32(entries, entry + 2) == typed + more:
            i = 0
            while i < typed and g8(text, start + i) == g8(text, mark + i):
                i += 1
            j = 0
            while i == typed and j < more and g8(text, start + typed + j) == g32(pool, listed + 2 + j):
                j += 1
            if i == typed and j == more:
                return True
        entry = g32(entries, entry)
    return False


@kernel
def shut(h, m, event, regs):
    """An object or array among items that differ closes: 1, 0 if it is not complete or repeats one, or GROW."""
    cells, cell = g64(m, M_CELLS), g64(regs, R_CELL)
    if g32(g64(h, H_EVENTS), event * E_WIDTH + 1) == 0 and not guard(h, cells, cell, event):
        return 0
    value = container_hash(g64(m, M_TEXT), g32(cells, cell + L_START), g64(m, M_TEXT_LEN))
    parent = g32(cells, cell + L_PARENT)
    return 0 if known(m, parent, value) else keep_item(h, m, event, regs, parent, value)


@kernel
def apply(h, m, event, regs):
    """Test an event against a matcher's registers and change them: 1 done, 0 refused, or a code.

    `M_TEXT_LEN` is the length of the text before the byte that causes the event, which stands after it already.
    """
    events = g64(h, H_EVENTS)
    if g32(events, event * E_WIDTH) == EV_NUMBER:
        p64(regs, R_BLANKS, 0)
        done = end_number(h, m, event, regs)
        if done <= 0:
            return done
        event = g32(events, event * E_WIDTH + 1)
    done = apply_text(h, event, regs)
    if done >= 0:
        return done
    kind = g32(events, event * E_WIDTH)
    if kind == EV_DIGIT:
        return read_digit(h, m, event, regs)
    if kind == EV_LAST:
        return 0 if leads_to_repeat(h, m, event, regs) else 1
    if kind == EV_SHUT:
        return shut(h, m, event, regs)
    return apply_container(h, m, event, kind, regs)


@kernel
def apply_container(h, m, event, kind, regs):
    """Events of the innermost container alone: 1 done, 0 refused, or a code."""
    cells = g64(m, M_CELLS)
    cell = g64(regs, R_CELL)
    top = g64(m, M_CELLS_LEN)
    if kind == EV_PUSH:
        cls = g32(g64(h, H_EVENTS), event * E_WIDTH + 1)
        if top + L_WIDTH + g32(g64(h, H_POOL), cls + C_WORDS) > g64(m, M_CELLS_CAP):
            return GROW
        p64(m, M_CELLS_LEN, new_cell(g64(h, H_POOL), cells, top, cell, cls))
        p32(cells, top + L_START, g64(m, M_TEXT_LEN))
        p64(regs, R_CELL, top)
        return 1
    if kind == EV_EXTRA and repeats(m, cell, g64(regs, R_MARK)):
        return 0
    if kind != EV_DROP and not guard(h, cells, cell, event):
        return 0
    if kind == EV_POP or kind == EV_DROP:
        p64(regs, R_CELL, g32(cells, cell + L_PARENT))
        p64(regs, R_MARK, 0)  # of what is over: items that differ in nothing else become one
        p64(regs, R_CHARS, 0)
    elif kind == EV_OPEN:
        p64(regs, R_MARK, g64(m, M_TEXT_LEN) + 1)
        p64(regs, R_CHARS, 0)
    elif changes(kind):
        if not room_for_cell(h, m, cell):
            return GROW
        p64(m, M_CELLS_LEN, changed_cell(h, cells, top, cell, event))
        p64(regs, R_CELL, top)
        if kind == EV_EXTRA:
            remember(m, top, g64(regs, R_MARK))
    return 1
