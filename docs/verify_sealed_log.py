"""Verify a proof of the sealed log: python verify_sealed_log.py FILE PUBLIC_KEY [PUBLIC_KEY ...]

FILE is what "eventstore audit prove" or "eventstore audit consistency" has written, or a checkpoint; a public key is
what "eventstore audit key show" prints. This program needs Python alone, and shares no code with the store: it is
written from docs/concepts/sealed-log.md, docs/concepts/digest.md, RFC 9162 and RFC 8032.
"""

import base64
import datetime
import hashlib
import json
import struct
import sys
import uuid

# Ed25519 (RFC 8032, section 5.1), for verification only

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT = pow(2, (P - 1) // 4, P)


def point(data):
    value = int.from_bytes(data, "little")
    y, sign = value & (1 << 255) - 1, value >> 255
    x2 = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(x2, (P + 3) // 8, P)
    x = x if x * x % P == x2 else x * ROOT % P
    if y >= P or x * x % P != x2 or (not x and sign):
        raise ValueError("a point is not on the curve")
    x = P - x if x & 1 != sign else x
    return x, y, 1, x * y % P


def add(p, q):
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def multiply(number, p):
    result = (0, 1, 1, 0)
    while number:
        result = add(result, p) if number & 1 else result
        p, number = add(p, p), number >> 1
    return result


BASE = point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def is_signed(public, message, signature):
    if len(signature) != 64 or int.from_bytes(signature[32:], "little") >= L:
        return False
    h = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % L
    left = multiply(int.from_bytes(signature[32:], "little"), BASE)
    right = add(point(signature[:32]), multiply(h, point(public)))
    return (left[0] * right[2] - right[0] * left[2]) % P == 0 and (left[1] * right[2] - right[1] * left[2]) % P == 0


# Merkle trees (RFC 9162, section 2.1)


def node(left, right):
    return hashlib.sha256(b"\1" + left + right).digest()


def included(index, size, leaf, path):
    """The root that the hashes of an inclusion proof lead to."""
    if size == 1:
        return leaf if index == 0 and not path else b""
    split = 1 << (size - 1).bit_length() - 1
    if index < split:
        return node(included(index, split, leaf, path[:-1]), path[-1])
    return node(path[-1], included(index - split, size - split, leaf, path[:-1]))


def consistent(old, new, old_root, path, whole=True):
    """The roots of both trees that the hashes of a consistency proof lead to."""
    if old == new:
        [root] = [*path, old_root] if whole else path
        return root, root
    split = 1 << (new - 1).bit_length() - 1
    if old <= split:
        first, second = consistent(old, split, old_root, path[:-1], whole)
        return first, node(second, path[-1])
    first, second = consistent(old - split, new - split, old_root, path[:-1], False)
    return node(path[-1], first), node(path[-1], second)


def checkpoint(note, keys):
    """The name, size and root of a signed note, if a given key has signed it."""
    body, _, lines = note.partition("\n\n")
    name, size, root = body.split("\n")
    signatures = [(signer, base64.b64decode(data)) for _, signer, data in map(str.split, lines.splitlines())]
    for signer, raw in signatures:
        for key in keys:
            known, key_id, encoded = key.split("+", 2)
            public = base64.b64decode(encoded)
            if (known, bytes.fromhex(key_id)) == (signer, raw[:4]) and signer == name and public[:1] == b"\1":
                if not is_signed(public[1:], f"{body}\n".encode(), raw[4:]):
                    raise ValueError("a signature is wrong")
                return name, int(size), base64.b64decode(root)
    raise ValueError("the checkpoint is not signed by a key that was given")


def digest(event):
    """The digest of an event; it is given if the event was erased, with its salt."""
    if "salt" not in event:
        return bytes.fromhex(event["digest"])
    since = datetime.datetime.fromisoformat(event["timestamp"]) - datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
    time = since // datetime.timedelta(microseconds=1)
    data = bytes.fromhex(event["salt"])
    data += struct.pack(">qqih", event["position"], time, event["version"], event["schema_version"])
    data += uuid.UUID(event["conversation_id"]).bytes + uuid.UUID(event["id"]).bytes
    for column in ("tenant_id", "event_type", "actor", "content", "metadata"):
        data += struct.pack(">i", len(event[column].encode())) + event[column].encode()
    return hashlib.sha256(data).digest()


def verify(text, keys):
    """Return what is proved; raise ValueError, or another error, if nothing is."""
    if text.startswith("c2sp.org/tlog-proof@v1\n"):
        head, _, note = text.partition("\n\n")
        _, extra, index, *lines = head.split("\n")
        event = json.loads(base64.b64decode(extra.removeprefix("extra "), validate=True))
        leaf = hashlib.sha256(b"\0" + struct.pack(">q", event["position"]) + digest(event)).digest()
        name, size, root = checkpoint(note, keys)
        path = [base64.b64decode(line) for line in lines]
        if index[:6] != "index " or included(int(index[6:]), size, leaf, path) != root:
            raise ValueError("the event is not in the log")
        return f"{name}, of {size} events, has at position {event['position']}: {json.dumps(event)}"
    old, is_consistency, rest = text.partition("\n\nold ")
    name, size, root = checkpoint(old, keys)
    if not is_consistency:
        return f"{name} had {size} events"
    head, _, note = rest.partition("\n\n")
    (number, *lines), new = head.split("\n"), checkpoint(note, keys)
    path = [base64.b64decode(line) for line in lines]
    if name != new[0] or number != str(size) or consistent(size, new[1], root, path) != (root, new[2]):
        raise ValueError("the log was rewritten")
    return f"{name}, of {new[1]} events, begins with the {size} events of the older checkpoint"


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        print("valid:", verify(file.read(), sys.argv[2:]))
