"""Verify an export of the trail: python verify_trail.py FILE PUBLIC_KEY [PUBLIC_KEY ...]

FILE is what "eventstore audit trail --output FILE" has written, as .jsonl or .csv, or as .parquet if pyarrow is
installed; FILE.proof is beside it. This program needs verify_sealed_log.py, which is beside it, and shares no code with
the store: it is written from docs/concepts/sealed-log.md.
"""

import csv
import hashlib
import json
import struct
import sys

from verify_sealed_log import checkpoint, digest, node


def rows(path):
    """The rows of an export, as dictionaries."""
    if path.endswith(".parquet"):
        import pyarrow.parquet

        for row in pyarrow.parquet.read_table(path).to_pylist():
            yield {**row, "timestamp": row["timestamp"].isoformat()}
    elif path.endswith(".csv"):
        csv.field_size_limit(2**31 - 1)
        with open(path, encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                yield {**row, **{name: int(row[name]) for name in ("position", "version", "schema_version")}}
    else:
        with open(path, encoding="utf-8", newline="\n") as file:
            yield from map(json.loads, file)


def root(low, high, leaves, hashes):
    """The root of a part of the tree: of given leaves, by number, and of given hashes of the parts without them."""
    if not leaves or leaves[-1][0] >= high:
        return hashes.pop()
    if high - low == 1:
        return leaves.pop()[1]
    middle = low + (1 << (high - low - 1).bit_length() - 1)
    left = root(low, middle, leaves, hashes)
    return node(left, root(middle, high, leaves, hashes))


def verify(path, keys):
    """Return what is proved; raise ValueError, or another error, if nothing is."""
    with open(f"{path}.proof", encoding="utf-8") as file:
        proof = json.load(file)
    name, size, expected = checkpoint(proof["checkpoint"], keys)
    numbers = [number for first, last in proof["leaves"] for number in range(first, last + 1)]
    leaves, erased = [], 0
    for number, row in zip(numbers, rows(path), strict=True):
        if row["salt"] and digest(row).hex() != row["digest"]:
            raise ValueError(f"the event at position {row['position']} was changed")
        erased += not row["salt"]
        entry = struct.pack(">q", row["position"]) + bytes.fromhex(row["digest"])
        leaves.append((number, hashlib.sha256(b"\0" + entry).digest()))
    hashes = [bytes.fromhex(each) for each in proof["hashes"]][::-1]
    leaves.reverse()
    if numbers != sorted(set(numbers)) or root(0, size, leaves, hashes) != expected or leaves or hashes:
        raise ValueError("the events are not those of the log")
    return f"{name}, of {size} events, has these {len(numbers)} events; the content of {erased} was erased"


if __name__ == "__main__":
    print("valid:", verify(sys.argv[1], sys.argv[2:]))
