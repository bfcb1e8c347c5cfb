"""Subtrees that a walk need not enter: an automaton reads every character below a node, in whatever order they come.

Characters are sorted into kinds. A vocabulary's tries say for each node which kinds occur from it on, and how many
characters at most; for a state of an automaton, the kinds whose characters all lead on to one other state, or back to
it, are found when they are asked for. Inside a word of `\\S+`, or in `[a-z0-9-]{1,63}`, a walk over 270,000 nodes then
looks at some thousands of them.
"""

from __future__ import annotations

import numpy as np

from constrain_kernels.jit import kernel
from constrain_kernels.layout import H_SCRATCH, H_TRANS, T_BYTE, WORK_CAP, X_KINDS, X_LOOPS, X_STAMP
from constrain_kernels.loops import main_way, next_phase
from constrain_kernels.memory import g32, g64, p64

ASCII_KINDS = 39  # letters and digits in six kinds, then each other printable character
KIND_BITS = 53
MOST_CHARS = 255
OTHER = 51  # what is no character in a printable text, and the bytes of one whose beginning is further up
LEADS = (0xC2, 0xC3, 0xE0, 0xE1, 0xE2, 0xE3, 0xE4, 0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF4)  # where kinds of leads begin


@kernel
def kind_of(byte):
    """The kind of a character, by its first byte."""
    if byte >= 0x80:
        if byte < LEADS[0] or byte >= LEADS[-1]:
            return OTHER
        kind = 0
        while byte >= LEADS[kind + 1]:
            kind += 1
        return ASCII_KINDS + kind
    if byte < 32 or byte == 127:
        return OTHER
    if 97 <= byte < 123:
        return 0 if byte < 103 else 1
    if 65 <= byte < 91:
        return 2 if byte < 71 else 3
    if 48 <= byte < 58:
        return 4 if byte == 48 else 5
    return 6 + byte - 32 - (10 if byte > 57 else 0) - (26 if byte > 90 else 0) - (26 if byte > 122 else 0)


@kernel
def mark_kinds(nodes, words):
    """words[x] (int64): the kinds of the characters at and below node x, as bits, OTHER as well where x is inside one;
    above them, from KIND_BITS on, how many characters follow one another there at most.

    nodes: int32[n + 1, T_WIDTH], packed.
    """
    n = len(words)
    parent, phase = np.zeros(n, np.int32), np.zeros(n, np.int8)  # the node above; where its byte leads in a character
    inside, chars = np.zeros(n, np.uint8), np.zeros(n, np.int64)
    path = np.zeros(1 << 16, np.int32)
    words[0] = 0
    for x in range(1, n):
        byte, depth = nodes[x, T_BYTE] & 255, nodes[x, T_BYTE] >> 8
        path[depth] = x
        parent[x] = path[depth - 1]
        before = phase[parent[x]]
        following = next_phase(before, byte)
        words[x] = 0 if before != 0 and following >= 0 else 1 << (OTHER if before != 0 else kind_of(byte))
        phase[x] = max(0, following)
        inside[x] = before != 0
    for x in range(n - 1, 0, -1):
        words[parent[x]] |= words[x]
        chars[x] += 1 - inside[x]
        chars[parent[x]] = max(chars[parent[x]], chars[x])
    for x in range(1, n):
        if inside[x]:
            words[x] |= 1 << OTHER
        words[x] |= min(chars[x], MOST_CHARS) << KIND_BITS


@kernel
def begin_kinds(h):
    """Forget the states' ways; the kinds of ASCII characters are noted once per process."""
    scratch = g64(h, H_SCRATCH)
    known = g64(scratch, X_KINDS)
    p64(scratch, X_STAMP, g64(scratch, X_STAMP) + 1)
    if g64(known, 98) == 0:
        for byte in range(32, 127):
            p64(known, byte, 1 << kind_of(byte))


@kernel
def reads_all(h, cmap, start, wide, far, op, word):
    """Whether an automaton reads the characters of a node's word (see `mark_kinds`) in whatever order they come.

    op: the state, as an operation of its block, whose transitions lie at start + op * wide. far: events do not count.
    """
    kinds = word & ((1 << KIND_BITS) - 1)
    if (kinds >> OTHER) & 1:
        return False
    chars = word >> KIND_BITS
    while chars > 0:
        way = way_on(h, cmap, start, wide, far, op)
        if way == 0 or kinds & ~g64(way, 1) != 0:
            return False
        if g64(way, 2) == op:
            return True
        op = g64(way, 2)
        chars -= 1
    return True


@kernel
def way_on(h, cmap, start, wide, far, op):
    """The address of (stamp, kinds, operation): the kinds whose characters lead from a state to one other; or 0."""
    scratch = g64(h, H_SCRATCH)
    way = g64(scratch, X_LOOPS) + 24 * op
    if op < 0 or op >= WORK_CAP:
        return 0
    if g64(way, 0) == g64(scratch, X_STAMP):
        return way
    trans = g64(h, H_TRANS)
    of_byte = g64(scratch, X_KINDS)
    here = start + op * wide
    to = main_way(trans, cmap, here, far, op)
    found = (1 << ASCII_KINDS) - 1
    for byte in range(32, 127):
        at = here + 2 * g32(cmap, byte)
        if g32(trans, at) != to or (not far and g32(trans, at + 1) != 0):
            found &= ~g64(of_byte, byte)
    for kind in range(ASCII_KINDS, OTHER):
        if leads_to(trans, cmap, start, wide, far, op, to, LEADS[kind - ASCII_KINDS], LEADS[kind + 1 - ASCII_KINDS]):
            found |= 1 << kind
    p64(way, 0, g64(scratch, X_STAMP))
    p64(way, 1, found)
    p64(way, 2, to)
    return way


@kernel
def joint(trans, cmap, start, wide, far, op, low, high):
    """The operation that all of the bytes low..high - 1 have in a state, without an event, or 0."""
    found = 0
    for byte in range(low, high):
        at = start + op * wide + 2 * g32(cmap, byte)
        following = g32(trans, at)
        if following <= 0 or (found != 0 and following != found) or (not far and g32(trans, at + 1) != 0):
            return 0
        found = following
    return found


@kernel
def leads_to(trans, cmap, start, wide, far, op, to, first, last):
    """Whether all characters whose first byte is first..last - 1 lead to a state, in the same way."""
    here = joint(trans, cmap, start, wide, far, op, first, last)
    if here == 0:
        return False
    low = 0xA0 if first == 0xE0 else (0x90 if first == 0xF0 else 0x80)
    high = 0xA0 if first == 0xED else 0xC0
    for _ in range(1 if first < 0xE0 else (2 if first < 0xF0 else 3)):
        here = joint(trans, cmap, start, wide, far, here, low, high)
        if here == 0:
            return False
        low, high = 0x80, 0xC0
    return here == to
