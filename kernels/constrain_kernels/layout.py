"""The array formats of the engine: what each column of each table means.

A grammar is a table of **states**. A state has transitions on symbols (bytes 0..255; 256 + id for a token that is
matched as such), may call other states without reading anything, and may return to its caller with a class. An **item**
is a state with a stack; a **configuration** is a set of items, interned to an integer. Everything that never recurs
(which keys were seen, how many items, how long a string is) lives in **registers** outside the configuration;
transitions name **events** that test and change them.
"""

from __future__ import annotations

# --- header of a grammar's tables (int64 each): addresses, lengths, capacities -------------------------------------
# The program: states, transitions, pool, events. The memory, which an epoch drops: nodes, configurations, data, hash.
H_STATES, H_TRANS, H_POOL, H_EVENTS, H_NODES, H_CONFIGS, H_HASH, H_DATA = range(8)
H_LEN = 8  # lengths in rows (pool, transitions: in int32), same order as the addresses; hash: entries in use
H_CAP = 16  # capacities, same order
H_ARG = 24  # what a code below refers to
H_SCRATCH = 25  # address of the process-wide scratch header
H_VOCAB = 26  # address of the vocabulary's header
H_FLAGS = 27
H_STAMP = 28  # number of the row being built
H_NEED = 29  # rows that GROW asks for beyond the usual room
H_EPOCH = 30
H_RESULTS = 31  # the same for what a step leads to: configurations, joins and lists
H_SIZE = 32

# H_FLAGS
NO_REGISTERS = 1  # no event in the whole grammar, items with equal states may merge
COMPOSED = 2  # more than one JSON schema: nothing need tell where one part ends and the next begins

# --- codes returned instead of a result ----------------------------------------------------------------------------
GROW = -1  # a table is nearly full
BUILD = -2  # state H_ARG must be built first
OVERFLOW = -3  # more simultaneous items than the scratch holds
STALE = -4  # the matcher's configurations are of an epoch that is over
LINK = -5  # the address of a kernel (X_BUILD_ROW) must be written first
CODES = -(1 << 40)  # added to a code where other negative numbers are results

# --- states: int32 rows --------------------------------------------------------------------------------------------
S_FLAGS, S_TRANS, S_COUNT, S_CMAP, S_EPS, S_CALLS, S_BASE, S_PARAM, S_FALLBACK, S_SLICE, S_DIST, S_ENTRY = range(12)
S_WIDTH = 12
UNBUILT = 1  # transitions unknown yet
SPACE = 2  # white space may stand here
PURE = 4  # does nothing but return class 0: calls that would come back here push nothing
IN_KEY = 8  # inside an extra key that may repeat an earlier one
OPEN_KEY = 16  # inside a key that may still become a declared one
BOUNDED = 32  # inside a string whose length is bounded
COUNTED = 64  # of these, one with a pattern: S_PARAM is the event that holds as long as the bound is far, and the bound
FRESH = 128  # of these, a state between characters
LOOSE = 256  # of an automaton in which a text may end or go on
DENSE = -1  # S_COUNT: transitions are a row over byte classes; otherwise sparse triples (symbol, op, event)

# Operations: 0 dead; 1..CALL-1 go to S_BASE + op; >= CALL call the (state, returns) at pool[op - CALL];
# < 0 return class -op - 1
CALL = 1 << 28

# --- stack nodes (int32 rows): edges (returns, parent), `next` chains further edges of the same node ----------------
N_RETURNS, N_PARENT, N_NEXT, N_EDGE = range(4)
N_WIDTH = 4

# --- configurations (int32 rows) -----------------------------------------------------------------------------------
G_STATE, G_NODE, G_COUNT, G_PREV, G_LAST, G_ROW, G_ACCEPT, G_FIRST = range(8)
G_WIDTH = 8

# --- hash table: pairs of int64 (key, value); the key's top bits say what it is -------------------------------------
TAG = 60
TAG_STEP, TAG_ITEM, TAG_NODE, TAG_SET, TAG_NODES, TAG_CONDITION, TAG_SECTION, TAG_LIKE, TAG_AFTER = range(1, 10)

# --- events (int32 rows): kind and up to three arguments -----------------------------------------------------------
E_WIDTH = 4
EV_SPACE = 1  # white space: 0 blank, 1 \n, 2 \r
EV_PUSH = 2  # a container opens: class
EV_POP = 3  # it closes, if complete
EV_DROP = 4  # it closes, whatever it holds
EV_KEY = 5  # a declared key ends: its index
EV_ALIVE = 6  # some key of a list can still come: pool offset
EV_COMMA = 7  # a further member can come
EV_EXTRA = 8  # an extra key ends
EV_OPEN = 9  # a key begins where extra keys are legal
EV_CLOSED = 10  # a key begins where only declared ones are: pool offset of all keys
EV_CHAR = 11  # a code point of a bounded string: maximum
EV_END = 12  # such a string ends: minimum, maximum
EV_STRING = 13  # such a string begins
EV_ITEM = 14  # a further array item can come
EV_FITS = 15  # inside a character of a counted string: maximum of code points so far
# Of arrays whose items differ:
EV_NUMBER = 16  # the byte after a number: the event that the byte causes, what must hold (EV_KEY, or EV_FITS of 0)
EV_DIGIT = 17  # a byte of a number: 1: whatever follows, the value stays; at the first byte, an EV_OPEN
EV_LAST = 18  # a byte after which a string can end in one way: pool offset of [EV_EXTRA, n, bytes to come]
EV_SHUT = 19  # an item that is an object or array closes; 1: complete in any case

# --- classes of containers, in the pool ----------------------------------------------------------------------------
C_KIND, C_KEYS, C_WORDS, C_EXTRA, C_MIN, C_MAX, C_NEXT, C_REQUIRED, C_ALL = range(9)
C_WIDTH = 9
ORDERED, ANY_ORDER, ARRAY = range(3)

# --- cells: one version of one open container's register (int32), followed by C_WORDS words of seen bits -------------
# L_ENTRY: the newest extra key, or string among items that differ: entries (older entry, start in the text, size).
# L_OTHER: the newest number, object or array among such items: entries (older entry, two halves of a hash).
# L_START: where the container begins in the text.
L_PARENT, L_CLASS, L_LAST, L_COUNT, L_ENTRY, L_OTHER, L_START = range(7)
L_WIDTH = 7

# --- stack entries of the walk over a trie (int64) -----------------------------------------------------------------

K_NODE, K_TRIE, K_STATE, K_BELOW, K_CELL, K_CONDITION, K_TOUCHED, K_MARK = range(8)
K_CHARS, K_BLANKS, K_TOP, K_EVENT, K_LENGTH = range(8, 13)
K_WIDTH = 13

# --- registers of an item (int64) ----------------------------------------------------------------------------------
R_CELL, R_MARK, R_CHARS, R_BLANKS = range(4)
R_WIDTH = 4

# R_CHARS: code points of a bounded string; in a number among items that differ, whether it would repeat one of them
# White space so far (R_BLANKS): 0..64 blanks, 65 after \r, 66 + j: a line break and j blanks
BLANKS = 64
AFTER_CR = 65
AFTER_LF = 66

# --- header of a matcher (int64) -----------------------------------------------------------------------------------
M_CONFIG, M_COUNT, M_REGS, M_NEXT_REGS, M_REGS_CAP = range(5)
M_TEXT, M_TEXT_LEN, M_TEXT_CAP = 5, 6, 7
M_CELLS, M_CELLS_LEN, M_CELLS_CAP = 8, 9, 10
M_ENTRIES, M_ENTRIES_LEN, M_ENTRIES_CAP = 11, 12, 13
M_HISTORY, M_HISTORY_LEN, M_HISTORY_CAP = 14, 15, 16  # int32 records, one per accepted token
M_STEPS = 17  # tokens accepted since the start
M_DONE = 18  # a stop token was accepted
M_TOP = 19  # offset of the newest record
M_EPOCH = 20
M_SIZE = 21

# history record: offset of the record before, then these, then R_WIDTH ints per item
Y_PREV, Y_CONFIG, Y_COUNT, Y_TEXT, Y_CELLS, Y_ENTRIES, Y_DONE = range(7)
Y_WIDTH = 7

# --- header of a vocabulary (int64) --------------------------------------------------------------------------------
V_WORDS, V_DATA, V_OFFSETS, V_WIDTH, V_STOPS, V_STOP_COUNT, V_MASKS = range(7)
V_SPACE_MASK, V_SPACE_LIST, V_SPACE_LEN = range(7, 10)
V_SPACE_TRIE, V_SPACE_ROOT = 10, 11  # the trie of what follows white space in a token; child of its root for each byte
V_CHARS, V_CHARS_MAX = 12, 13  # cumulative masks: tokens of at most n code points that stay inside a string
V_ROOT = 14  # child of the trie's root for each byte, or 0
V_PLAIN = 15  # masks: number 0 the plain tokens, number 1 + g those of them that contain group g
V_KEY_TRIE, V_KEY_MASK = 16, 17  # trie number of the tokens that begin and end a key; mask of those that only begin
V_GROUP_TRIES = 18  # number of the trie of all tokens that are not plain; from it, at 1 + g, those of group g
V_LONG_MASKS = 19  # masks: number i the tokens of more than LONG[i] bytes; their tries follow number V_KEY_TRIE
V_TRIES = (
    20  # from here, of each trie: nodes, order, kinds, fans, their index; trie 0 holds all tokens, others suffixes
)
V_TRIE_WIDTH = 5

# Trie nodes (int32 rows, one more than there are nodes), so that a visit touches one cache line: one past the subtree;
# the byte, with the depth above it; where its tokens begin in `order`; the first of them.
T_END, T_BYTE, T_TOKENS, T_FIRST = range(4)
T_WIDTH = 4
# Fans (int32) list the children of a node that has many: how many, then for each its byte << 24 | its number. The index
# (int32 for each node) says where a node's fan lies, 0: it has none.
FAN_NODES, FAN_CHILDREN = 64, 12  # what a subtree with a fan has at least

# Plain tokens are made of whole characters other than quote, backslash and control characters. Groups of characters:
# punctuation and the blank, in byte order, then what begins with byte 0xE2 (among it U+2028 and U+2029), small letters,
# capital letters, digits, what begins with any other byte from 127 on.
GROUPS = 36
SMALL, CAPITAL, DIGITS, HIGH = 32, 33, 34, 35
LONG = (8, 12, 16, 24, 48)
MOST_GROUPS = 6  # whose tokens are walked before a walk over all tokens is cheaper

# A slice is a state of a scalar that many grammars share. S_SLICE: 0, or 1 + its number: mask number - 1 holds the
# tokens that stay inside the scalar, trie `number` what follows its end inside a token. S_ENTRY: the same, before the
# first byte.

# --- rows in the data: [base, section or 0, second section or 0, n, then n times (mask number, condition) to add] -----
# a section: [groups, then groups]; a group: [condition, size, entries]
# conditions in the data: [previous, event, frame, stamp, group]
D_WIDTH = 5
# Reserved condition ids (data offsets); REPEAT: slow if there are extra keys.
ALWAYS, SLOW, CLEAR, REPEAT = 5, 10, 15, 20
DATA_START = 25
BASE_NONE = -1
BASE_BOUNDED = -2  # masks by code points left
BASE_SPACE = -3  # tokens of white space alone
BASE_OWN = -4  # less its data offset: a mask of its own
ENTRY_BITS = 20  # an entry is a token id with 8 bits above: white space before it, or code points before a quote

# --- process-wide scratch (int64 addresses and capacities) ---------------------------------------------------------
X_WORK, X_RESULTS, X_STACK, X_CELLS, X_PAIRS, X_MASK, X_PAIR_LEN, X_STACK_LEN = range(8)
X_LENGTH_EVENT, X_PATH, X_OWN, X_CLOSURE, X_ALSO, X_STAMP, X_KINDS, X_LOOPS, X_BUILD_ROW = range(8, 17)
ALSO_CAP = 64
X_SIZE = 17
WORK_CAP = 1 << 15  # worklist entries of one step
STACK_CAP = 1 << 15
PAIR_CAP = 1 << 19
CELL_CAP = 1 << 16
PATH_CAP = 1 << 16
