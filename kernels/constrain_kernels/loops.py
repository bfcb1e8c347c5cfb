"""States that nearly any text leaves alive, as those of `.*`, `[^/]*` and unanchored patterns do: masks without a walk.

Most tokens are plain text. Where plain characters, apart from some groups of them, never lead to a dead end, the plain
tokens without those groups are allowed, by a few precomputed masks. Tokens with a character of a group that is dead
wherever it may come are not; only those with one that is dead in some places, or that are not plain, have to be walked.
So it is inside `[A-Za-z0-9]{8}`, where plain tokens of letters and digits are allowed by their length alone.
"""

from __future__ import annotations

from constrain_kernels.jit import kernel
from constrain_kernels.layout import (
    CAPITAL,
    COMPOSED,
    COUNTED,
    GROUPS,
    H_FLAGS,
    H_POOL,
    H_SCRATCH,
    H_STATES,
    H_TRANS,
    H_VOCAB,
    HIGH,
    S_BASE,
    S_CMAP,
    S_EPS,
    S_FLAGS,
    S_TRANS,
    S_WIDTH,
    SMALL,
    V_CHARS,
    V_CHARS_MAX,
    V_PLAIN,
    V_WORDS,
    WORK_CAP,
    X_RESULTS,
    X_STAMP,
    X_WORK,
)
from constrain_kernels.memory import copy, g32, g64, p32, p64
from constrain_kernels.slices import group_of

PHASES = 10
LETTERS = 1 << SMALL | 1 << CAPITAL
LONGEST_RUN = 64
MOST_PLACES = 400


@kernel
def after(h, state, byte):
    """The state that a byte leads to inside a dense block, or 0."""
    states = g64(h, H_STATES)
    row = state * S_WIDTH
    cmap = g32(states, row + S_CMAP)
    op = g32(g64(h, H_TRANS), g32(states, row + S_TRANS) + 2 * g32(g64(h, H_POOL), cmap + byte))
    return g32(states, row + S_BASE) + op if op > 0 else 0


@kernel
def leaves(h, state, byte, below):
    """Whether a byte that leads nowhere inside the dense block may lead on outside: it ends the text, or follows it."""
    row = state * S_WIDTH
    states = g64(h, H_STATES)
    if below != 0 and g64(h, H_FLAGS) & COMPOSED and g32(states, row + S_EPS) >= 0:
        return True
    cmap = g32(states, row + S_CMAP)
    return g32(g64(h, H_TRANS), g32(states, row + S_TRANS) + 2 * g32(g64(h, H_POOL), cmap + byte)) < 0


@kernel
def next_phase(phase, byte):
    """Where a byte leads inside a UTF-8 character (RFC 3629), or -1: 0 between characters; 8 and 9 after 0xE2."""
    if phase == 0:
        if byte < 128:
            return 0 if byte >= 32 and byte != 34 and byte != 92 else -1
        if byte < 0xE0:
            return 1 if byte >= 0xC2 else -1
        if byte < 0xF0:
            return 4 if byte == 0xE0 else (5 if byte == 0xED else (8 if byte == 0xE2 else 2))
        return 6 if byte == 0xF0 else (3 if byte < 0xF4 else (7 if byte == 0xF4 else -1))
    low = 0xA0 if phase == 4 else (0x90 if phase == 6 else 0x80)
    high = 0x9F if phase == 5 else (0x8F if phase == 7 else 0xBF)
    if byte < low or byte > high:
        return -1
    if phase == 1 or phase == 9:
        return 0
    return 9 if phase == 8 else (1 if phase == 2 or phase == 4 or phase == 5 else 2)


@kernel
def excused(phase, byte):
    """The group whose leaving out excuses that a byte is dead."""
    return 31 if phase >= 8 else (group_of(byte) if phase == 0 else HIGH)


@kernel
def left_out(h, state, below):
    """(the groups of plain characters that are dead wherever they may come, those that are in some places), as bits.

    Text of the other groups never dies. A search over (state, place in a character): all of them are live, so what it
    reaches is allowed whatever follows. (0, -1): there are too many of them.
    """
    scratch = g64(h, H_SCRATCH)
    work = g64(scratch, X_WORK)
    seen = g64(scratch, X_RESULTS)
    first = g32(g64(h, H_STATES), state * S_WIDTH + S_BASE) + 1
    stamp = g64(scratch, X_STAMP) + 1  # of the process: the marks of all grammars lie in one place
    p64(scratch, X_STAMP, stamp)
    p64(work, 0, state * PHASES)
    pending = 1
    dead, live = 0, 0
    for done in range(MOST_PLACES):
        if done == pending:
            return dead & ~live, dead & live
        here, phase = g64(work, done) // PHASES, g64(work, done) % PHASES
        for byte in range(32, 0xF5):
            following = next_phase(phase, byte)
            if following < 0:
                continue
            target = after(h, here, byte)
            if target == 0:
                dead |= 1 << excused(phase, byte)
                if leaves(h, here, byte, below):  # what follows is walked
                    live |= 1 << excused(phase, byte)
                continue
            if phase == 0:
                live |= 1 << group_of(byte)
            place = (target - first) * PHASES + following
            if place >= WORK_CAP or pending >= MOST_PLACES:
                return 0, -1
            if g64(seen, place) != -stamp:
                p64(seen, place, -stamp)
                p64(work, pending, target * PHASES + following)
                pending += 1
    return 0, -1


@kernel
def bounded_run(h, state):
    """(groups, length): any characters of these groups are read, up to so many and no more; (0, 0) if there is no such
    run, or one without letters, for which a walk is short."""
    groups, following = read_groups(h, state)
    length = 1
    while groups & LETTERS != 0 and length <= LONGEST_RUN:
        here = following
        alive, following = read_groups(h, here)
        if alive & groups == 0 and dies(h, here, groups):
            return groups, length
        if alive & groups != groups or following == here:
            return 0, 0
        length += 1
    return 0, 0


@kernel
def read_groups(h, state):
    """(groups, target): the groups of ASCII characters that all lead from a state to one other, most of them at least;
    (0, 0) if none does."""
    states, trans = g64(h, H_STATES), g64(h, H_TRANS)
    row = state * S_WIDTH
    cmap = g64(h, H_POOL) + 4 * g32(states, row + S_CMAP)
    start = g32(states, row + S_TRANS)
    far = g32(states, row + S_FLAGS) & COUNTED != 0
    to = main_way(trans, cmap, start, far, 0)
    if to == 0:
        return 0, 0
    groups = 0
    for byte in range(32, 127):
        at = start + 2 * g32(cmap, byte)
        if group_of(byte) >= 0 and g32(trans, at) == to and (far or g32(trans, at + 1) == 0):
            groups |= 1 << group_of(byte)
    for byte in range(32, 127):
        at = start + 2 * g32(cmap, byte)
        if group_of(byte) >= 0 and (g32(trans, at) != to or (not far and g32(trans, at + 1) != 0)):
            groups &= ~(1 << group_of(byte))
    return groups, g32(states, row + S_BASE) + to


@kernel
def dies(h, state, groups):
    """Whether a state reads no ASCII character of some groups, be it to end the text."""
    states, trans = g64(h, H_STATES), g64(h, H_TRANS)
    cmap = g64(h, H_POOL) + 4 * g32(states, state * S_WIDTH + S_CMAP)
    start = g32(states, state * S_WIDTH + S_TRANS)
    for byte in range(32, 127):
        if group_of(byte) >= 0 and (groups >> group_of(byte)) & 1 and g32(trans, start + 2 * g32(cmap, byte)) != 0:
            return False
    return True


@kernel
def main_way(trans, cmap, here, far, otherwise):
    """The operation that most printable ASCII characters have at a state, without an event.

    The majority vote of Boyer and Moore: where there is no majority, any of them; `otherwise` if none leads on.
    """
    found, votes = otherwise, 0
    for byte in range(32, 127):
        at = here + 2 * g32(cmap, byte)
        to = g32(trans, at)
        if to > 0 and (far or g32(trans, at + 1) == 0):
            if votes == 0:
                found = to
            votes += 1 if to == found else -1
    return found


@kernel
def plain_mask(h, groups, out):
    """Write the plain tokens without some groups."""
    v = g64(h, H_VOCAB)
    words = g64(v, V_WORDS)
    masks = g64(v, V_PLAIN)
    copy(out, masks, 4 * words)
    for group in range(GROUPS):
        if (groups >> group) & 1:
            mask = masks + 4 * words * (1 + group)
            for w in range(words):
                p32(out, w, g32(out, w) & ~g32(mask, w))


@kernel
def shorten(h, length, out):
    """Keep of a mask of plain tokens those of at most so many characters."""
    v = g64(h, H_VOCAB)
    words = g64(v, V_WORDS)
    if length < g64(v, V_CHARS_MAX):
        mask = g64(v, V_CHARS) + 4 * words * length
        for w in range(words):
            p32(out, w, g32(out, w) & g32(mask, w))
