"""Formats as automata against the official suite, against the oracle's checks, and against their own definitions."""

from __future__ import annotations

import functools
import ipaddress
import json
import os
import random
import re
import shutil
import subprocess
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle_formats
from constrain.dfa import Dfa, intersect, length_dfa
from constrain.regex import compile_regex
from constrain.schema import formats
from constrain.schema.formats import format_dfa, format_matches, format_parts, idn

NAMES = [
    "date", "time", "date-time", "duration", "email", "idn-email", "hostname", "idn-hostname", "ipv4", "ipv6", "uri",
    "uri-reference", "iri", "iri-reference", "uuid", "uri-template", "json-pointer", "relative-json-pointer", "regex",
]  # fmt: skip
SHORT = {8: "\\b", 9: "\\t", 10: "\\n", 12: "\\f", 13: "\\r", 34: '\\"', 92: "\\\\"}
EXCLUSIONS = Path(__file__).parent / "data" / "format_exclusions.json"


def spell(text: str) -> bytes:
    """The JSON spelling, by its definition."""
    return "".join(SHORT.get(ord(c), f"\\u{ord(c):04x}" if c < " " else c) for c in text).encode(
        "utf-8", "surrogatepass"
    )


@functools.cache
def dfa_of(name: str) -> Dfa:
    """The cheap half of a format where the other half is a length, which `accepts` adds."""
    parts = format_parts(name)
    assert parts is not None
    return parts[0]


def accepts(name: str, text: str) -> bool:
    most = (format_parts(name) or (None, None))[1]
    return (most is None or len(text) <= most) and dfa_of(name).matches(spell(text))


def suite_cases(root: Path) -> Iterator[tuple[str, str, bool]]:
    for draft in ("draft4", "draft6", "draft7", "draft2019-09", "draft2020-12"):
        for path in sorted(root.rglob(f"tests/{draft}/optional/format/*.json")):
            for group in json.loads(path.read_text(encoding="utf-8")):
                schema = group["schema"]
                if isinstance(schema, dict) and set(schema) <= {"$schema", "format"} and "format" in schema:
                    for test in group["tests"]:
                        if isinstance(test["data"], str):
                            yield schema["format"], test["data"], test["valid"]


def test_official_suite(unpacked: Callable[[str], Path]) -> None:
    cases = list(suite_cases(unpacked("data/json-schema-test-suite.tar.xz")))
    assert len(cases) > 2000
    excluded = {(name, text) for reason in json.loads(EXCLUSIONS.read_text("utf-8")) for name, text in reason["cases"]}
    known = {name for name, _, _ in cases if format_dfa(name) is not None}
    assert known == set(NAMES)
    wrong = {(name, text, valid) for name, text, valid in cases if name in known and accepts(name, text) != valid}
    assert [case for case in wrong if not case[2]] == []  # nothing invalid passes
    assert {(name, text) for name, text, _ in wrong} == excluded
    given = [(name, text) for name, text, valid in cases if format_matches(name, text) != valid and name in known]
    assert set(given) == {(name, text) for name, text in excluded if "xn--" not in text}
    assert len(given) < 0.01 * len(cases)


def distances(dfa: Dfa) -> np.ndarray:
    found = np.where(dfa.accepting, 0, 1 << 30)
    while True:
        nearer = np.minimum(found, 1 + np.where(dfa.next < 0, 1 << 30, found[dfa.next]).min(axis=1))
        if (nearer == found).all():
            return found
        found = nearer


class Walker:
    """Random accepted texts: wherever a walk likes, then straight to an end."""

    def __init__(self, dfa: Dfa) -> None:
        self.dfa, self.distance = dfa, distances(dfa)
        self.bytes_of = [np.flatnonzero(dfa.classes == c).tolist() for c in range(dfa.next.shape[1])]

    def walk(self, rng: random.Random) -> str:
        state, out, enough = 0, bytearray(), rng.choice([3, 10, 30, 80])
        while not (self.dfa.accepting[state] and (len(out) >= enough or rng.random() < 0.05)):
            row = self.dfa.next[state].tolist()
            ways = [c for c, to in enumerate(row) if to >= 0]
            if len(out) >= enough:
                ways = [c for c in ways if self.distance[row[c]] < self.distance[state]]
            if not ways:
                break
            beyond = [c for c in ways if self.bytes_of[c][0] > 127]
            way = rng.choice(beyond if beyond and rng.random() < 0.5 else ways)
            out.append(rng.choice(self.bytes_of[way]))
            state = row[way]
        text: str = json.loads(f'"{out.decode()}"')
        assert spell(text) == bytes(out)  # raw, and only the escapes that JSON requires
        return text


@functools.cache
def walks(name: str) -> list[str]:
    walker, rng = Walker(dfa_of(name)), random.Random(name)
    return [walker.walk(rng) for _ in range(400)]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_valid(name: str) -> None:
    most = (format_parts(name) or (None, None))[1]
    texts = [text for text in walks(name) if most is None or len(text) <= most]
    assert len(set(texts)) > 100
    assert [text for text in texts if not oracle_formats.FORMATS[name](text)] == []


def quarter(text: str) -> bool:
    """Leap seconds are written at offsets of whole quarters of an hour."""
    match = re.search(r":60(?:\.\d+)?[+-]\d\d:(\d\d)$", text)
    return match is None or int(match[1]) % 15 == 0


def without_a_labels(text: str) -> bool:
    return not re.search(r"(?i)(^|\.)xn--", text.rpartition("@")[2])


WRITTEN: dict[str, Callable[[str], bool]] = {  # what is valid and left out, by the documented rules
    "time": quarter,
    "date-time": quarter,
    "hostname": without_a_labels,
    "email": without_a_labels,
}
ALPHABETS = {
    "date": "0123456789-/T",
    "time": "0123456789:.+-zZtT",
    "date-time": "0123456789:.+-zZtT",
    "duration": "0123456789PTWYMDHS.-",
    "ipv4": "0123456789.",
    "ipv6": "0123456789abF:.%",
    "email": '@.a-"\\[]:é x',
    "hostname": "a.-Z0_xn\u212a",
    "uri": ":/?#[]@%20aF.é1v",
    "uri-reference": ":/?#[]@%20aF.é1v",
    "iri": ":/?#[]@%20aF.é1v\ue000\ufffe",
    "iri-reference": ":/?#[]@%20aF.é1v\ue000\ufffe",
    "uuid": "0123456789abF-g",
    "uri-template": "{}+#./;?&=,!@|a%20:*1é'\" ",
    "json-pointer": '/~01a"\\é\n',
    "relative-json-pointer": "/~01a#é9",
}
VALID: dict[str, st.SearchStrategy[str]] = {
    "date": st.dates().map(str),
    "time": st.builds(
        "{:02}:{:02}:{}{}{}".format,
        st.integers(0, 23),
        st.integers(0, 59),
        st.sampled_from(["00", "59", "60"]),
        st.sampled_from(["", ".5"]),
        st.builds("{}{:02}:{:02}".format, st.sampled_from("+-"), st.integers(0, 23), st.integers(0, 59)),
    ),
    "date-time": st.datetimes(timezones=st.timezones()).map(lambda moment: moment.isoformat()),
    "ipv4": st.ip_addresses(v=4).map(str),
    "ipv6": st.ip_addresses(v=6).map(str) | st.ip_addresses(v=6).map(lambda ip: ip.exploded),
    "uuid": st.uuids().map(str),
    "email": st.emails(),
}


@pytest.mark.parametrize("name", sorted(ALPHABETS))
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_mutated_texts_agree_both_ways(name: str, data: st.DataObject) -> None:
    text = data.draw(VALID.get(name, st.nothing()) | st.sampled_from(walks(name)))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(text)))
        char = data.draw(st.sampled_from(["", *ALPHABETS[name]]))
        text = text[:at] + char + text[at + data.draw(st.integers(0, 1)) :]
    expected = oracle_formats.FORMATS[name](text) and WRITTEN.get(name, lambda _: True)(text)
    assert accepts(name, text) == expected, text


def test_every_day_of_four_centuries() -> None:
    """Leap years with the rule of centuries, month by month."""
    dfa = format_dfa("date")
    for year in [*range(410), 1900, 2000, 2023, 2024, 9999]:
        for month in range(14):
            for day in (0, 1, 28, 29, 30, 31, 32):
                text = f"{year:04}-{month:02}-{day:02}"
                assert dfa.matches(text.encode()) == oracle_formats.date(text), text


def test_every_leap_second() -> None:
    dfa, day = format_dfa("time"), range(1440)
    clocks = [f"{minute // 60:02}:{minute % 60:02}" for minute in day]
    for offset in range(0, 1440, 45):
        for sign, signed in (("+", offset), ("-", -offset)):
            accepted = [m for m in day if dfa.matches(f"{clocks[m]}:60.25{sign}{clocks[offset]}".encode())]
            assert accepted == [(1439 + signed) % 1440]


def test_lengths_of_names_and_addresses() -> None:
    label = "a" * 63
    longest = f"{label}.{label}.{label}.{'b' * 61}"
    for name, text, valid in [
        ("hostname", longest, True),
        ("hostname", longest + "b", False),
        ("hostname", "a." * 126 + "a", True),
        ("hostname", "a." * 127 + "a", False),
        ("email", f"{'a' * 64}@{label}.{label}.{'b' * 61}", True),
        ("email", f"{'a' * 64}@{label}.{label}.{'b' * 62}", False),
        ("email", f"{'a' * 65}@b", False),
        ("idn-email", f"{'é' * 32}@{label}.{label}.{'b' * 61}", True),
        ("idn-email", f"{'é' * 32}a@b", False),
        ("idn-hostname", longest, True),
        ("idn-hostname", longest + "b", False),
    ]:
        assert format_dfa(name).matches(text.encode()) == valid, text
        assert accepts(name, text) == valid, text
        assert oracle_formats.FORMATS[name](text) == valid, text


@pytest.mark.parametrize("name", ["hostname", "email"])
def test_parts_and_limit_are_the_format(name: str) -> None:
    dfa, most = format_parts(name)
    assert intersect(dfa, length_dfa(0, most, "json")) == formats.build(name, limited=True) == format_dfa(name)
    assert dfa.n_states < 1000


@pytest.mark.parametrize(
    ("name", "pattern", "least", "most"),
    [("date", "-02-29$", 0, 10), ("uri", "^https://[^/]+/$", 12, 20), ("email", r'^"|\.org$', 5, 15),
     ("json-pointer", r"\\|é", 2, 4), ("date-time", r"\.\d{3}Z$", 0, 24), ("uri-template", r"\{", 3, 8)],
)  # fmt: skip
def test_with_patterns_and_lengths(name: str, pattern: str, least: int, most: int) -> None:
    looked_for = compile_regex(pattern, dialect="ecma", spelling="json", search=True)
    both = intersect(dfa_of(name), looked_for, length_dfa(least, most, "json"))
    walker, rng = Walker(both), random.Random(pattern)
    found = {walker.walk(rng) for _ in range(100)}
    assert len(found) > 3
    for text in [*found, *walks(name)]:
        expected = oracle_formats.FORMATS[name](text) and least <= len(text) <= most and re.search(pattern, text)
        assert both.matches(spell(text)) == bool(expected), text


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("idn")])
def test_automata_are_least_and_trimmed(name: str) -> None:
    dfa = dfa_of(name)
    assert (distances(dfa) < 1 << 30).all()
    block = dfa.accepting.astype(np.int64)
    for _ in range(dfa.n_states):
        rows = np.column_stack([block, np.where(dfa.next < 0, -1, block[dfa.next])]).astype(np.int32)
        keys = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1])))
        finer = np.unique(keys, return_inverse=True)[1].reshape(-1)
        if finer.max() == block.max():
            break
        block = finer
    assert block.max() + 1 == dfa.n_states


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["hostname", "idn-hostname", "email", "idn-email"]), st.data())
def test_given_names_with_a_labels(name: str, data: st.DataObject) -> None:
    """Wherever a given text passes, the oracle passes it; what is refused in U-labels is refused in A-labels."""
    address = data.draw(st.sampled_from(walks("idn-email" if "email" in name else "idn-hostname")))
    local, at, domain = address.rpartition("@")
    coded = [label if label.isascii() else "xn--" + label.encode("punycode").decode() for label in idn.labels(domain)]
    text = local + at + ".".join(coded)
    if name == "email" and not text.isascii():
        text = "a" + at + ".".join(coded)
    assert format_matches(name, text)
    assert oracle_formats.FORMATS[name](text)
    place = data.draw(st.integers(0, len(text) - 1))
    broken = text[:place] + data.draw(st.sampled_from("abz09-.")) + text[place + 1 :]
    assert not format_matches(name, broken) or oracle_formats.FORMATS[name](broken), broken


def test_given_long_names() -> None:
    """A name that is short in characters and too long on the wire."""
    for labels in (31, 32):
        text = ".".join(["ü"] * labels)
        assert format_matches("idn-hostname", text) == oracle_formats.idn_hostname(text) == (labels == 31)
        assert not format_matches("hostname", text)


def test_given_leap_seconds() -> None:
    assert format_matches("time", "00:00:60+00:01")
    assert format_matches("date-time", "2016-12-31T00:00:60.5+00:01")
    assert not format_matches("date-time", "2016-12-31T00:00:60+00:02")
    assert not format_matches("date-time", "2016-12-32T00:00:60+00:01")
    assert not format_matches("time", "2016-12-31T00:00:60+00:01")
    assert format_matches("color", "anything")
    assert not format_matches("uri", "http://a/\ud800")
    assert not format_matches("hostname", "xn--\ud800")


def test_unknown_names_assert_nothing() -> None:
    for name in ("unknown", "ip-address", "host-name", "color", "Date", "", "url"):
        assert format_dfa(name) is None
        assert format_parts(name) is None


@pytest.mark.parametrize("name", formats.STORED)
def test_stored_automata_are_what_is_built(name: str) -> None:
    with np.load(Path(formats.__file__).with_name("stored.npz")) as stored:
        version = str(stored["unicode"])
    if name.startswith("idn") and version != unicodedata.unidata_version:
        pytest.skip(f"stored by Unicode {version}, not {unicodedata.unidata_version}")
    assert formats.build(name) == dfa_of(name)


def test_what_is_left_out_is_named_for_formats_there_are() -> None:
    assert set(formats.LEFT_OUT) <= set(NAMES)
    assert set(WRITTEN) <= set(formats.LEFT_OUT)


REGEXES = [
    "^(a|[b-d]+)*$", "((((a))))", "(?=a)b", "a{12,30}?", "a{1234,}", "[a-z0-9_-]", "[]", "[^]", "[!-~]", r"[A-\]]",
    r"\u{10ffff}", r"\0", r"\p{Lu}\P{M}", r"[\u4e00-\u9fa5]", "(?<name>x)", "(?<=a+)b", "(?<!(a))b", r"\cA\/", "[a-é]",
    r"(?<y>\d{4})-(\d\d)$", "a|b|", "", r"[\x20-\x7e\-\b]", "^((?!mode).)*$",
    "(a(?<=(b(c)))d)+", "(?=(a)b)", "^[^\\s@]+@[^\\s@]+$", "x*?y+?z??", "a{0}b{0,}c{5,5}",
]  # fmt: skip
NO_REGEXES = [
    "(a", "a)", "(?=a)*", "a**", "a{2,1}", "a{30,4}", "a{9,10}{2}", "[z-a]", r"[\d-x]", r"[\u9e00-\u4fa5]", "a(?",
    r"\u{110000}", r"\01", r"\p{Foo}", r"\a", "(?P<n>x)", r"[\ud83d\ude00-\uf000]", "(?=a(?=b))",
    "((?=a)*)", "a(?!)(b", "(?i)abc", "}", "]", "{1}", "*", r"[a-\d]", "[a", "\\", "^*",
]  # fmt: skip


def test_patterns_of_patterns() -> None:
    dfa = format_dfa("regex")
    assert [text for text in REGEXES if not dfa.matches(spell(text))] == []
    assert [text for text in NO_REGEXES if dfa.matches(spell(text))] == []
    assert [text for text in REGEXES if not oracle_formats.is_regex(text)] == []


def test_patterns_of_patterns_against_javascript() -> None:
    """What is written is a pattern for the engine that defines them, mutated or not, with the flag u."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node to ask")
    rng, texts = random.Random(262), list(walks("regex")) + REGEXES + NO_REGEXES
    for text in texts[:]:
        at = rng.randint(0, len(text))
        texts.append(text[:at] + rng.choice(["", *"()[]{}|*+?^$\\.-,:=!<>019abdupk"]) + text[at + rng.randrange(2) :])
    code = """
        const valid = text => { try { new RegExp(text, "u"); return true } catch { return false } };
        const texts = JSON.parse(require("fs").readFileSync(0, "utf-8"));
        console.log(JSON.stringify(texts.map(valid)));
    """
    done = subprocess.run([node, "-e", code], input=json.dumps(texts), capture_output=True, text=True, check=True)
    valid = json.loads(done.stdout)
    written = [accepts("regex", text) for text in texts]
    assert [text for text, ours, theirs in zip(texts, written, valid, strict=True) if ours and not theirs] == []
    assert sum(theirs and not ours for ours, theirs in zip(written, valid, strict=True)) < 0.05 * len(texts)


def test_counts_are_ordered() -> None:
    dfa = format_dfa("regex")
    for least in range(100):
        for most in range(100):
            assert dfa.matches(b"a{%d,%d}" % (least, most)) == (least <= most)


def test_ranges_are_ordered() -> None:
    dfa, chars = format_dfa("regex"), [chr(point) for point in range(32, 127) if chr(point) not in "-\\]^"]
    for low in chars:
        for high in chars:
            if dfa.matches(spell(f"[{low}-{high}]")):
                assert low <= high
            else:
                assert low > high or not (low.isalnum() and high.isalnum())


def digits_of(delta: int, bias: int) -> int:
    """How many digits Punycode writes for a delta (RFC 3492, section 3.3)."""
    count, place = 1, 36
    while delta >= (threshold := min(max(place - bias, 1), 26)):
        delta, count, place = (delta - threshold) // (36 - threshold), count + 1, place + 36
    return count


def adapted(delta: int, points: int, first: bool) -> int:
    """RFC 3492, section 6.1."""
    delta, place = delta // (700 if first else 2), 0
    delta += delta // points
    while delta > 455:
        delta, place = delta // 35, place + 36
    return place + 36 * delta // (delta + 38)


@functools.cache
def steps(function: Callable[[int], int], top: int) -> list[tuple[int, int, int]]:
    """A function that never falls, as (value, first argument, last argument)."""
    found, low = [], 0
    while low <= top:
        value, past, end = function(low), low + 1, top + 1
        while past < end:
            middle = (past + end) // 2
            past, end = (middle + 1, end) if function(middle) == value else (past, middle)
        found.append((value, low, past - 1))
        low = past
    return found


digit_count = functools.cache(lambda bias: lambda delta: digits_of(delta, bias))
next_bias = functools.cache(lambda points, first: lambda delta: adapted(delta, points, first))


def most_digits(ascii_count: int, highest: int, others: int) -> list[int]:
    """The most digits of Punycode for 1 to `others` characters from U+0080 on beside so many ASCII ones.

    A search over (bias, digits so far) -> the least height that must have been climbed; each step takes the least
    delta that has its number of digits and leaves its bias. Where characters stand is free, so this bounds from above.
    """
    room, now, found = highest - 0x80, {(72, 0): 0}, []
    for points in range(ascii_count + 1, ascii_count + others + 1):
        after: dict[tuple[int, int], int] = {}
        top = room * points + points - 1
        biases = steps(next_bias(points, points == ascii_count + 1), top)
        for (bias, digits), climbed in now.items():
            counts = steps(digit_count(bias), top)
            i = j = 0
            while i < len(biases) and j < len(counts):
                low = max(biases[i][1], counts[j][1])
                if low <= min(biases[i][2], counts[j][2]):
                    height = climbed + max(0, -(-(low - points + 1) // points))
                    key = biases[i][0], digits + counts[j][0]
                    if height <= room and height < after.get(key, 1 << 30):
                        after[key] = height
                if biases[i][2] < counts[j][2]:
                    i += 1
                else:
                    j += 1
        found.append(max(digits for _, digits in after))
        now = {key: height for key, height in after.items() if key[1] >= found[-1] - 12}
    return found


EXHAUSTIVE = os.environ.get("CONSTRAIN_EXHAUSTIVE") == "1"


@pytest.mark.parametrize("ascii_count", range(48) if EXHAUSTIVE else [0, 17, 38])
def test_labels_below_u0900_fit(ascii_count: int) -> None:
    others = (idn.SMALL - ascii_count) // 3
    for count, digits in enumerate(most_digits(ascii_count, 0x8FF, others), 1):
        assert 4 + ascii_count + (ascii_count > 0) + digits <= 61, count


@pytest.mark.parametrize("ascii_count", range(38) if EXHAUSTIVE else [0, 2, 30])
def test_mixed_labels_fit(ascii_count: int) -> None:
    """ASCII characters before the first high one weigh a third, all later ones a whole."""
    room = [idn.MIXED - whole - (ascii_count - whole) // 3 for whole in range(min(ascii_count, idn.MIXED - 1) + 1)]
    digits = most_digits(ascii_count, 0x323AF, max(room))
    for others in room:
        assert others <= 0 or 4 + ascii_count + (ascii_count > 0) + digits[others - 1] <= 61


def test_addresses_of_ipaddress() -> None:
    rng = random.Random(6)
    for _ in range(300):
        number = rng.getrandbits(128) & rng.getrandbits(128) & -(1 << rng.randrange(128))
        address = ipaddress.IPv6Address(number)
        for text in (str(address), address.exploded, str(address).upper()):
            assert accepts("ipv6", text)
            assert accepts("uri", f"http://[{text}]:80/")
            assert not accepts("ipv6", text + "%eth0")
