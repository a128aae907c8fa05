"""Signed notes, checkpoints, cosignatures and trust policies, as C2SP specifies them, and the files of keys.

A key file has a key on each line. A line that begins with ``PRIVATE+KEY+`` is a private key, whose signature every
checkpoint gets; any other is a public key that has signed earlier checkpoints. Empty lines and those that begin with
``#`` are left out.

Sources: c2sp.org/signed-note, tlog-checkpoint, tlog-cosignature, tlog-policy.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from agent_manager.private_files import write_private
from eventstore.errors import InputError, printable

ED25519, COSIGNATURE = 1, 4
"""Types of signatures: of a log, and of a witness."""
_PRIVATE = "PRIVATE+KEY+"
_SIGNATURE = re.compile(r"— (\S+) ([A-Za-z0-9+/]+={0,2})")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_MOST_SIGNATURES = 64


class KeyInvalid(InputError):
    """A key, or a file of keys, cannot be used."""


class CheckpointInvalid(InputError):
    """A checkpoint is not one, or is not signed by a key that is trusted."""


def encode(data: bytes) -> str:
    """Return the Base64 text of bytes."""
    return base64.b64encode(data).decode()


def decode(text: str) -> bytes:
    """Return the bytes of a Base64 text. Raises ValueError."""
    return base64.b64decode(text, validate=True)


# Keys


@dataclass(frozen=True)
class PublicKey:
    """The public key of a log or of a witness.

    Attributes:
        name: of the log or the witness, such as ``example.com/log``.
        kind: ``ED25519`` or ``COSIGNATURE``.
        key: the 32 bytes.
    """

    name: str
    kind: int
    key: bytes

    @property
    def id(self) -> str:
        """The id of the key: 8 hexadecimal digits."""
        return sha256(f"{self.name}\n".encode() + bytes([self.kind]) + self.key).digest()[:4].hex()

    def __str__(self) -> str:
        return f"{self.name}+{self.id}+{encode(bytes([self.kind]) + self.key)}"

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """Return the key of a verifier key (vkey) of the signed-note format.

        Raises:
            KeyInvalid: it is not one of a kind that is supported, or it is damaged.
        """
        name, _, rest = text.partition("+")
        key_id, _, data = rest.partition("+")
        with suppress(ValueError):
            raw = decode(data)
            key = cls(name, raw[0] if raw else 0, raw[1:])
            if is_key_name(name) and key.kind in (ED25519, COSIGNATURE) and len(key.key) == 32 and key.id == key_id:
                return key
        raise KeyInvalid(f"{printable(text, 100)}: is not a public key: give NAME+ID+KEY, as audit key show prints it")

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Return whether a signature of a message is right."""
        try:
            Ed25519PublicKey.from_public_bytes(self.key).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True)
class PrivateKey:
    """A private key, with its public one."""

    public: PublicKey
    seed: bytes = field(repr=False)

    @classmethod
    def create(cls, name: str, kind: int = ED25519) -> PrivateKey:
        """Return a new key.

        Raises:
            KeyInvalid: the name is empty, or has a space or a plus sign.
        """
        if not is_key_name(name):
            raise KeyInvalid(f"{printable(name)}: give a name such as example.com/log, without spaces and plus signs")
        return cls.of_seed(name, Ed25519PrivateKey.generate().private_bytes_raw(), kind)

    @classmethod
    def of_seed(cls, name: str, seed: bytes, kind: int = ED25519) -> PrivateKey:
        """Return the key that 32 bytes stand for (RFC 8032)."""
        public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
        return cls(PublicKey(name, kind, public), seed)

    @classmethod
    def parse(cls, text: str) -> PrivateKey:
        """Return the key of a line of a key file. The error does not show it."""
        with suppress(ValueError, IndexError):
            name, key_id, data = text.removeprefix(_PRIVATE).split("+", 2)
            raw = decode(data)
            key = cls.of_seed(name, raw[1:], raw[0])
            if is_key_name(name) and key.public.kind in (ED25519, COSIGNATURE) and key.public.id == key_id:
                return key
        raise KeyInvalid("a private key is damaged: restore the file")

    @property
    def text(self) -> str:
        """The line of a key file."""
        return f"{_PRIVATE}{self.public.name}+{self.public.id}+{encode(bytes([self.public.kind]) + self.seed)}"

    def signature_line(self, body: str, time: datetime | None = None) -> str:
        """Return the line that signs the body of a checkpoint, for a witness as of a time."""
        signer = Ed25519PrivateKey.from_private_bytes(self.seed)
        if self.public.kind == COSIGNATURE:
            seconds = int((time or datetime.now(UTC)).timestamp())
            signature = seconds.to_bytes(8) + signer.sign(_cosigned(body, seconds))
        else:
            signature = signer.sign(body.encode())
        return f"— {self.public.name} {encode(bytes.fromhex(self.public.id) + signature)}\n"


def is_key_name(text: str) -> bool:
    """Return whether a text can be the name of a key."""
    return bool(text) and text.isprintable() and not any(c.isspace() or c == "+" for c in text)


def _cosigned(body: str, seconds: int) -> bytes:
    return f"cosignature/v1\ntime {seconds}\n{body}".encode()


@dataclass(frozen=True)
class KeyFile:
    """The keys of a log: those that sign, and those that have signed.

    Attributes:
        path: None if the keys do not come from a file.
        private: the keys that sign.
        public: those that only verify.
    """

    path: Path | None
    private: tuple[PrivateKey, ...] = ()
    public: tuple[PublicKey, ...] = ()

    @classmethod
    def read(cls, path: Path) -> KeyFile:
        """Return the keys in a file.

        Raises:
            KeyInvalid: it cannot be read, or has a line that is not a key, or keys of several logs.
        """
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
            raise KeyInvalid(
                f"{printable(str(path))}: {reason}: name a readable file of keys, or create one (eventstore audit key "
                "create FILE --name NAME)"
            ) from None
        private, public = [], []
        for number, line in enumerate(map(str.strip, lines), 1):
            try:
                if line.startswith(_PRIVATE):
                    private.append(PrivateKey.parse(line))
                elif line and not line.startswith("#"):
                    public.append(PublicKey.parse(line))
            except KeyInvalid as error:
                raise KeyInvalid(f"{printable(str(path))}: line {number}: {error}") from None
        found = cls(path, tuple(private), tuple(public))
        if len({key.name for key in found.keys}) > 1 or any(key.kind != ED25519 for key in found.keys):
            raise KeyInvalid(
                f"{printable(str(path))}: has keys of several logs, or of a witness: leave those of one log"
            )
        if not found.keys:
            raise KeyInvalid(
                f"{printable(str(path))}: has no key: eventstore audit key create FILE --name NAME makes one"
            )
        return found

    @property
    def keys(self) -> tuple[PublicKey, ...]:
        """All public keys, those of the private ones first."""
        return (*(key.public for key in self.private), *self.public)

    @property
    def name(self) -> str:
        """The name of the log, the origin of its checkpoints."""
        return self.keys[0].name

    def write(self, *, is_new: bool = False) -> None:
        """Write the file, durably, for its owner alone to read.

        Raises:
            KeyInvalid: a new file exists already, or it cannot be written.
        """
        assert self.path is not None
        text = "".join(f"{line}\n" for line in (*(key.text for key in self.private), *map(str, self.public)))
        try:
            if is_new:
                self.path.touch(mode=0o600, exist_ok=False)  # two commands at a time do not replace each other's key
            write_private(self.path, text)
        except OSError as error:
            raise KeyInvalid(f"{printable(str(self.path))}: {error.strerror}: name another file") from None

    def rotated(self) -> KeyFile:
        """Return the keys with a new private one, which signs from now on beside those that there are."""
        return replace(self, private=(PrivateKey.create(self.name), *self.private))

    def retired(self, key_id: str) -> KeyFile:
        """Return the keys without the private part of one.

        Raises:
            KeyInvalid: there is no such private key, or no other one.
        """
        kept = tuple(key for key in self.private if key.public.id != key_id)
        if len(kept) == len(self.private):
            raise KeyInvalid(f"{printable(key_id)}: {self.path} has no such private key: audit key show lists them")
        if not kept:
            raise KeyInvalid(f"{key_id}: is the only private key: add another one first (eventstore audit key rotate)")
        retired = (key.public for key in self.private if key.public.id == key_id)
        return replace(self, private=kept, public=(*retired, *self.public))


# Checkpoints


@dataclass(frozen=True)
class Checkpoint:
    """The size and the root of a log at a time, with the lines of its signatures.

    Attributes:
        origin: the name of the log.
        signatures: name, key id and signature of each.
    """

    origin: str
    size: int
    root: bytes
    signatures: tuple[tuple[str, str, bytes], ...] = ()

    @property
    def body(self) -> str:
        """The text that is signed."""
        return f"{self.origin}\n{self.size}\n{encode(self.root)}\n"

    @property
    def text(self) -> str:
        """The signed note."""
        lines = (f"— {name} {encode(bytes.fromhex(key_id) + value)}\n" for name, key_id, value in self.signatures)
        return f"{self.body}\n{''.join(lines)}"

    @classmethod
    def sign(cls, origin: str, size: int, root: bytes, keys: Iterable[PrivateKey]) -> Checkpoint:
        """Return a checkpoint with the signatures of some keys."""
        checkpoint = cls(origin, size, root)
        return checkpoint.with_lines("".join(key.signature_line(checkpoint.body) for key in keys))

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Return the checkpoint of a signed note. Its signatures are not checked yet.

        Raises:
            CheckpointInvalid: it is not the note of a checkpoint.
        """
        body, blank, lines = text.partition("\n\n")
        match body.split("\n"):
            case [origin, size, root] if origin and blank and _NUMBER.fullmatch(size):
                with suppress(ValueError):
                    found = cls(origin, int(size), decode(root))
                    if len(found.root) == 32 and encode(found.root) == root:
                        return found.with_lines(lines)
        raise CheckpointInvalid(f"{printable(text, 80)!r} is not a checkpoint: give a whole one, with its signatures")

    def with_lines(self, lines: str) -> Checkpoint:
        """Return it with further signatures, of which there are at most 64.

        Raises:
            CheckpointInvalid: a line is not a signature.
        """
        more = []
        for line in lines.removesuffix("\n").split("\n") if lines else ():
            match = _SIGNATURE.fullmatch(line)
            try:
                raw = decode(match[2]) if match else b""
            except ValueError:
                raw = b""
            if not match or len(raw) < 5:
                raise CheckpointInvalid(f"{printable(line, 80)!r} is not the line of a signature: give a whole note")
            more.append((match[1], raw[:4].hex(), raw[4:]))
        if len(signatures := (*self.signatures, *more)) > _MOST_SIGNATURES:
            raise CheckpointInvalid(f"the checkpoint of size {self.size} has more than {_MOST_SIGNATURES} signatures")
        return replace(self, signatures=signatures)

    def signers(self, keys: Iterable[PublicKey]) -> list[PublicKey]:
        """Return the keys of the log, of those given, that have signed it.

        Raises:
            CheckpointInvalid: a signature under one of these keys is wrong.
        """
        return [key for key, _ in self._signed_by(key for key in keys if key.kind == ED25519)]

    def cosigners(self, keys: Iterable[PublicKey]) -> dict[PublicKey, datetime]:
        """Return the witnesses, of those given, that have cosigned it, and when. Raises like :meth:`signers`."""
        signed = self._signed_by(key for key in keys if key.kind == COSIGNATURE)
        return {key: datetime.fromtimestamp(int.from_bytes(signature[:8]), UTC) for key, signature in signed}

    def _signed_by(self, keys: Iterable[PublicKey]) -> list[tuple[PublicKey, bytes]]:
        found = []
        for key in keys:
            for name, key_id, signature in self.signatures:
                if (name, key_id) != (key.name, key.id):
                    continue
                if key.kind == ED25519:
                    is_right = self.origin == key.name and key.verifies(signature, self.body.encode())
                else:
                    seconds = int.from_bytes(signature[:8])
                    is_right = seconds < 1 << 36 and key.verifies(signature[8:], _cosigned(self.body, seconds))
                if not is_right:
                    raise CheckpointInvalid(
                        f"the checkpoint of size {self.size} has a wrong signature under the key {key.name} {key.id}: "
                        "it was changed after it was signed"
                    )
                found.append((key, signature))
                break
        return found


def parse_checkpoints(text: str) -> list[Checkpoint]:
    """Return the checkpoints of a file, which follow each other. Raises CheckpointInvalid."""
    notes, lines, has_signature = [], list[str](), False
    for line in text.strip("\n").split("\n"):
        if has_signature and not line.startswith("— "):
            notes.append("\n".join(lines).strip("\n") + "\n")
            lines, has_signature = [], False
        lines.append(line)
        has_signature = has_signature or line.startswith("— ")
    return [Checkpoint.parse(note) for note in (*notes, "\n".join(lines).strip("\n") + "\n")]


# Trust


@dataclass(frozen=True)
class Policy:
    """The keys that are trusted, and which witnesses must have cosigned a checkpoint.

    Attributes:
        logs: the keys of logs.
        witnesses: by name.
        urls: of witnesses, by name.
        groups: by name: how many of which witnesses or groups.
        quorum: the name of the witness or group that is required; ``none`` requires none.
    """

    logs: tuple[PublicKey, ...] = ()
    witnesses: Mapping[str, PublicKey] = field(default_factory=dict)
    urls: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, tuple[int, Sequence[str]]] = field(default_factory=dict)
    quorum: str = "none"

    @classmethod
    def read(cls, path: Path) -> Policy:
        """Return the policy of a file in the format of C2SP's ``tlog-policy``.

        Raises:
            KeyInvalid: it cannot be read, or a line cannot be understood.
        """
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
            raise KeyInvalid(f"{printable(str(path))}: {reason}: name a readable policy") from None
        policy, quorums = cls(), 0
        for number, line in enumerate(map(str.strip, lines), 1):
            if not line or line.startswith("#"):
                continue
            try:
                policy = policy._with(line.split())
            except KeyInvalid as error:
                raise KeyInvalid(f"{printable(str(path))}: line {number}: {error}") from None
            quorums += line.split()[0] == "quorum"
        if quorums != 1:
            raise KeyInvalid(f"{printable(str(path))}: has {quorums} lines that begin with quorum: leave one")
        return policy

    def _with(self, words: list[str]) -> Policy:
        known = {*self.witnesses, *self.groups}
        match words:
            case ["log", key, *_] if len(words) <= 3:
                return replace(self, logs=(*self.logs, _of_kind(key, ED25519)))
            case ["witness", name, key, *url] if len(url) <= 1 and name not in (*known, "none"):
                urls = {**self.urls, **({name: url[0].rstrip("/")} if url else {})}
                witnesses = {**self.witnesses, name: _of_kind(key, COSIGNATURE)}
                return replace(self, witnesses=witnesses, urls=urls)
            case ["group", name, number, *members] if name not in (*known, "none") and known.issuperset(members):
                least = {"any": "1", "all": str(len(members))}.get(number, number)
                if _NUMBER.fullmatch(least) and 1 <= int(least) <= len(set(members)) == len(members):
                    return replace(self, groups={**self.groups, name: (int(least), members)})
            case ["quorum", name] if name in (*known, "none"):
                return replace(self, quorum=name)
        raise KeyInvalid(
            f"{printable(' '.join(words), 80)}: is not a line of a policy (c2sp.org/tlog-policy): correct it"
        )

    def check(self, checkpoint: Checkpoint) -> tuple[list[PublicKey], dict[PublicKey, datetime]]:
        """Return the keys that have signed a checkpoint, and the witnesses that have cosigned it.

        Raises:
            CheckpointInvalid: no key of a log has signed it, or too few witnesses.
        """
        signers = checkpoint.signers(self.logs)
        if not signers:
            of_log = [key_id for name, key_id, _ in checkpoint.signatures if name == checkpoint.origin]
            by = f"by {', '.join(of_log[:3])}" if of_log else "by no key of its log"
            trusted = ", ".join(f"{key.name} {key.id}" for key in self.logs[:3]) or "none"
            raise CheckpointInvalid(
                f"the checkpoint of size {checkpoint.size} of {printable(checkpoint.origin, 80)} is signed {by}, not "
                f"by a key that is trusted ({trusted}): add the public key if you know that it is the log's own"
            )
        cosigners = checkpoint.cosigners(self.witnesses.values())
        if not self._is_satisfied(self.quorum, cosigners):
            names = ", ".join(key.name for key in cosigners) or "none"
            raise CheckpointInvalid(
                f"the checkpoint of size {checkpoint.size} lacks cosignatures of the quorum {self.quorum} (it has: "
                f"{names}): get one that its witnesses have seen"
            )
        return signers, cosigners

    def _is_satisfied(self, name: str, cosigners: Mapping[PublicKey, datetime]) -> bool:
        if name in self.witnesses:
            return self.witnesses[name] in cosigners
        least, members = self.groups.get(name, (0, ()))
        return sum(self._is_satisfied(member, cosigners) for member in members) >= least


def _of_kind(text: str, kind: int) -> PublicKey:
    key = PublicKey.parse(text)
    if key.kind != kind:
        raise KeyInvalid(f"{key.name} {key.id}: is a key of another kind: logs have Ed25519 keys, witnesses cosign")
    return key
