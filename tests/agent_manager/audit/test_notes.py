"""Keys, notes and policies are read strictly: whatever is not exactly right is refused, by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_manager.audit.notes import (
    COSIGNATURE,
    Checkpoint,
    CheckpointInvalid,
    KeyFile,
    KeyInvalid,
    Policy,
    PrivateKey,
    PublicKey,
    parse_checkpoints,
)

pytestmark = pytest.mark.any_server

KEY = PrivateKey.of_seed("example.com/log", bytes(32))
OTHER = PrivateKey.of_seed("example.com/log", bytes([1] * 32))
WITNESSES = [PrivateKey.of_seed(f"w{number}.example", bytes([number] * 32), COSIGNATURE) for number in range(2, 5)]


def checkpoint(size: int = 5, *witnesses: PrivateKey) -> Checkpoint:
    signed = Checkpoint.sign("example.com/log", size, bytes([size] * 32), [KEY])
    return signed.with_lines("".join(each.signature_line(signed.body) for each in witnesses))


@given(st.integers(0, 2**60), st.binary(min_size=32, max_size=32), st.integers(0, 200))
def test_a_checkpoint_is_written_and_read_and_none_of_its_bytes_can_be_changed(size: int, root: bytes, at: int) -> None:
    text = Checkpoint.sign("example.com/log", size, root, [KEY]).text
    assert Checkpoint.parse(text).text == text
    changed = text[: at % len(text)] + ("x" if text[at % len(text)] != "x" else "y") + text[at % len(text) + 1 :]
    try:
        signers = Checkpoint.parse(changed).signers([KEY.public])
    except CheckpointInvalid:
        signers = []
    assert signers == []


def test_a_signature_of_an_unknown_key_is_ignored_and_a_wrong_one_of_a_known_key_is_not() -> None:
    signed = checkpoint(5).with_lines(OTHER.signature_line(checkpoint(5).body))
    assert signed.signers([OTHER.public]) == [OTHER.public]
    forged = checkpoint(5).with_lines(OTHER.signature_line(checkpoint(6).body))
    assert forged.signers([KEY.public]) == [KEY.public]
    with pytest.raises(CheckpointInvalid, match="wrong signature"):
        forged.signers([KEY.public, OTHER.public])


def test_a_file_of_checkpoints_is_read_one_by_one() -> None:
    notes = [checkpoint(1), checkpoint(2, *WITNESSES), checkpoint(3)]
    assert parse_checkpoints("\n".join(each.text for each in notes)) == notes
    with pytest.raises(CheckpointInvalid):
        parse_checkpoints(notes[0].text + "\nrest")


@pytest.mark.parametrize(
    "text",
    ["", "example.com/log", f"{KEY.public}x", str(KEY.public).replace("log", "other"), "a+00000000+AQ==", "a+b+c+d"],
)
def test_a_damaged_key_is_refused(text: str) -> None:
    with pytest.raises(KeyInvalid, match="is not a public key"):
        PublicKey.parse(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "has no key"),
        ("# a comment\n\n", "has no key"),
        (f"{KEY.text}\n{WITNESSES[0].text}\n", "keys of several logs"),
        (f"{KEY.text[:-5]}\n", "line 1: a private key is damaged"),
        (f"{KEY.public}\nrest\n", "line 2: rest: is not a public key"),
    ],
)
def test_a_file_of_keys_that_cannot_be_used_is_named(text: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(text, encoding="utf-8")
    with pytest.raises(KeyInvalid, match=expected) as refused:
        KeyFile.read(tmp_path / "keys")
    assert str(tmp_path / "keys") in str(refused.value)
    assert KEY.text[20:] not in str(refused.value)


def policy(tmp_path: Path, *lines: str) -> Policy:
    (tmp_path / "policy").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return Policy.read(tmp_path / "policy")


def test_a_quorum_is_counted_through_groups(tmp_path: Path) -> None:
    lines = [f"log {KEY.public} https://log.example", "", "# witnesses"]
    lines += [f"witness w{number} {each.public}" for number, each in enumerate(WITNESSES)]
    two = policy(tmp_path, *lines, "group two 2 w0 w1 w2", "group all all two w0", "quorum all")
    for witnesses, is_enough in (((), False), ((0,), False), ((1, 2), False), ((0, 2), True), ((0, 1, 2), True)):
        signed = checkpoint(5, *(WITNESSES[number] for number in witnesses))
        if is_enough:
            assert set(two.check(signed)[1]) == {WITNESSES[number].public for number in witnesses}
        else:
            with pytest.raises(CheckpointInvalid, match="lacks cosignatures of the quorum all"):
                two.check(signed)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["quorum none", "quorum none"], "2 lines that begin with quorum"),
        ([], "0 lines that begin with quorum"),
        (["quorum w1"], "line 1: quorum w1: is not a line of a policy"),
        ([f"log {WITNESSES[0].public}"], "is a key of another kind"),
        ([f"witness w {KEY.public}"], "is a key of another kind"),
        (["group g 2 a b"], "is not a line of a policy"),
        ([f"witness a {WITNESSES[0].public}", "group g 2 a", "quorum g"], "line 2: group g 2 a: is not"),
    ],
)
def test_a_policy_that_cannot_be_understood_is_named(lines: list[str], expected: str, tmp_path: Path) -> None:
    with pytest.raises(KeyInvalid, match=expected):
        policy(tmp_path, *lines)
