"""The commands audit verify, seal, prove, consistency, check, checkpoints, export and key; see also trail.py."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from agent_manager.audit.export import export_tiles
from agent_manager.audit.merkle import ProofInvalid
from agent_manager.audit.notes import Checkpoint, CheckpointInvalid, KeyFile, KeyInvalid, Policy, PrivateKey, PublicKey
from agent_manager.audit.proofs import (
    ConsistencyProof,
    InclusionProof,
    Proof,
    check_proof,
    find_position,
    parse_proof,
    prove,
    prove_consistency,
)
from agent_manager.audit.publish import PublishFailed, fetch_published, read_published
from agent_manager.audit.sealed_tree import checkpoint_of, fetching, list_checkpoints
from agent_manager.audit.sealer import Sealer
from agent_manager.audit.trail_export import check_export, proof_of_export
from agent_manager.audit.verify import JOBS, Expected, Fault, Verification, verify
from agent_manager.cli.options import DataDir, Json, Tenant, note_reading, read_settings, run
from agent_manager.cli.output import RowFormat, json_text, print_json, print_remark, print_result, print_rows, text
from agent_manager.cli.trail import causes, trail
from agent_manager.settings import ServerSettings
from eventstore import EventStore
from eventstore.errors import InputError, NotFound, printable
from eventstore.ids import parse_uuid

audit = typer.Typer(help="Show who did what; verify that no event was changed, and prove it to others.")
key = typer.Typer(help="Create, show, rotate and retire the keys that sign.")
audit.add_typer(key, name="key", no_args_is_help=True)
audit.command("trail")(trail)
audit.command("causes")(causes)

Keys = Annotated[
    list[str] | None,
    Option("--key", metavar="KEY", help="Trust this public key, or those in this file, only; may be repeated."),
]
PolicyFile = Annotated[
    Path | None,
    Option("--policy", metavar="FILE", help="Trust the logs and witnesses of this policy (EVENTSTORE_AUDIT_POLICY)."),
]
KeyPath = Annotated[Path | None, Argument(metavar="[FILE]", help="The file of keys (EVENTSTORE_AUDIT_KEY).")]
SizeOrFile = Annotated[str, Argument(metavar="SIZE|FILE", help="The size of a checkpoint, or a file that has one.")]
Output = Annotated[Path | None, Option("--output", "-o", metavar="FILE", help="Write it to this file.")]


@audit.command("verify")
def audit_verify(
    keys: Keys = None,
    policy_file: PolicyFile = None,
    checkpoints: Annotated[
        list[Path] | None,
        Option("--checkpoint", metavar="FILE", help="Also compare with the checkpoints in this file; may be repeated."),
    ] = None,
    jobs: Annotated[int, Option(min=1, max=64, help="Connections that read at the same time.")] = JOBS,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Compute the digest of every event and the tree above them anew, and compare it with every signed checkpoint.

    Checkpoints are those in the database, those that were published (EVENTSTORE_AUDIT_FILE, EVENTSTORE_AUDIT_URL), and
    those that are given. Exits with 1, and names the first event that was changed, removed, inserted or reordered, if
    the log is not what was sealed. Reading and writing continue meanwhile.
    """
    settings = read_settings(data_dir)
    policy = _policy(settings, keys, policy_file)
    published = [path for path in (settings.audit_file, *(checkpoints or ())) if path is not None]
    for path in checkpoints or ():
        if not path.is_file():
            raise InputError(f"--checkpoint {printable(str(path))}: is not a file: name one that has checkpoints")
    elsewhere = [Expected(each, str(path)) for path in published for each in read_published(path)]

    async def work(store: EventStore) -> Verification:
        if settings.audit_url:
            try:
                elsewhere.extend(
                    Expected(each, settings.audit_url) for each in await fetch_published(settings.audit_url)
                )
            except PublishFailed as error:
                print_remark(f"not compared with what was published: {error}")
        return await verify(store, policy, elsewhere, jobs=jobs)

    found = run(work, settings)
    if as_json:
        print_json(_verification_value(found))
    else:
        for fault in found.faults:
            print_remark(f"{fault.kind}: {fault.message}", "bold red")
        _print_verification(found)
    if found.faults:
        raise typer.Exit(1)


def _verification_value(found: Verification) -> dict[str, Any]:
    def value(fault: Fault) -> dict[str, Any]:
        return {name: getattr(fault, name) for name in ("kind", "position", "conversation_id", "event_id", "message")}

    return {
        "intact": not found.faults,
        "events": found.events,
        "sealed": found.sealed,
        "unsealed": found.unsealed,
        "checkpoints": found.checkpoints,
        "sealed_at": found.sealed_at,
        "keys": found.keys,
        "seconds": round(found.seconds, 3),
        "faults": [value(fault) for fault in found.faults],
    }


def _print_verification(found: Verification) -> None:
    rate = found.events / max(found.seconds, 1e-9)
    if found.faults:
        typer.echo(f"the log is NOT as it was sealed; it agrees with the checkpoints up to size {found.sealed:,}")
        return
    typer.echo(
        f"intact: {found.sealed:,} events are as they were sealed, by {found.checkpoints:,} checkpoint(s), the newest "
        f"of {text(found.sealed_at)}, signed by {', '.join(found.keys)}"
    )
    typer.echo(f"{found.unsealed:,} further event(s) are not sealed yet; {found.seconds:.1f} s, {rate:,.0f} events/s")


@audit.command("seal")
def audit_seal(as_json: Json = False, data_dir: DataDir = None) -> None:
    """Seal the log now, up to its end, and publish the checkpoint, as the workers do every few seconds."""
    settings = read_settings(data_dir)

    async def work(store: EventStore) -> Checkpoint | None:
        sealer = Sealer(store)
        await sealer.seal(at_once=True)
        if sealer.checkpoint is not None:
            await sealer.publish(sealer.checkpoint)
        for failure in sealer.failures:
            print_remark(f"the checkpoint is not published: {failure}")
        return sealer.checkpoint

    checkpoint = run(work, settings)
    size, root = (checkpoint.size, checkpoint.root.hex()) if checkpoint else (0, None)
    line = f"{size:,} events are sealed, the root is {root}" if checkpoint else "the log is empty"
    print_result({"size": size, "root": root, "note": checkpoint and checkpoint.text}, line, as_json=as_json)


@audit.command("prove")
def audit_prove(
    event: Annotated[str, Argument(metavar="ID", help="The id of an event or of a message, or a position.")],
    conversation: Annotated[
        str | None, Option(metavar="ID", help="The conversation of the event: finds it faster, if it is not a message.")
    ] = None,
    checkpoint: Annotated[
        str | None,
        Option(
            metavar="SIZE|FILE", help="As of this checkpoint: its size, or a file that has it. The newest by default."
        ),
    ] = None,
    output: Output = None,
    as_json: Json = False,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Write a proof that an event is in the log, which audit check verifies without the database.

    The proof has the event with its content, and no other event. Its text is in the format of C2SP's tlog-proof.
    """

    async def work(store: EventStore) -> InclusionProof:
        given = None if conversation is None else parse_uuid(conversation, "--conversation")
        position = await find_position(store, event, given)
        await note_reading(store, "audit prove", position=position)
        return await prove(store, position, await _checkpoint(store, checkpoint) if checkpoint else None)

    _write(run(work, read_settings(data_dir, tenant), tenant), output, as_json=as_json)


@audit.command("consistency")
def audit_consistency(
    old: SizeOrFile, new: SizeOrFile, output: Output = None, as_json: Json = False, data_dir: DataDir = None
) -> None:
    """Write a proof that the log of one checkpoint begins with that of an older one: that nothing was rewritten.

    Exits with 1 if it does not, as for a checkpoint that was kept elsewhere, and a log that was rewritten since.
    """

    async def work(store: EventStore) -> ConsistencyProof:
        return await prove_consistency(store, await _checkpoint(store, old), await _checkpoint(store, new))

    _write(run(work, read_settings(data_dir)), output, as_json=as_json)


@audit.command("check")
def audit_check(
    file: Annotated[
        Path, Argument(metavar="FILE", help="A proof, an export of the trail, or checkpoints; - reads standard input.")
    ],
    keys: Keys = None,
    policy_file: PolicyFile = None,
    as_json: Json = False,
) -> None:
    """Check a proof, an export or checkpoints offline, by the public key alone, without database or server.

    Exits with 1 if it does not hold.
    """
    settings = read_settings()
    policy = _policy(settings, keys, policy_file)
    if (proof_file := proof_of_export(file)) is not None:
        _check_export(proof_file, policy, as_json=as_json)
        return
    try:
        given = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise InputError(f"{printable(str(file))}: {reason}: name a proof, or a file of checkpoints") from None
    try:
        proof = parse_proof(given)
        signers, cosigners = check_proof(proof, policy)
    except (CheckpointInvalid, ProofInvalid) as error:
        if not as_json:
            raise
        print_json({"valid": False, "error": str(error)})
        raise typer.Exit(1) from None
    signed = f"signed by {', '.join(f'{each.name} {each.id}' for each in signers)}"
    witnessed = "".join(f", cosigned by {each.name} at {text(time)}" for each, time in cosigners.items())
    if as_json:
        print_json(
            {
                "valid": True,
                **_proof_value(proof),
                "keys": [str(each) for each in signers],
                "witnesses": {each.name: time for each, time in cosigners.items()},
            }
        )
    else:
        typer.echo(f"valid: {_in_words(proof)}, {signed}{witnessed}")
        if isinstance(proof, InclusionProof) and "salt" in proof.event:
            typer.echo(f"{proof.event['event_type']} by {text(proof.event['actor']) or 'no actor'} at "
                       f"{proof.event['timestamp']}: {text(proof.event['content'])}")  # fmt: skip


def _check_export(proof: Path, policy: Policy, *, as_json: bool) -> None:
    try:
        found = check_export(proof, policy)
    except (CheckpointInvalid, ProofInvalid) as error:
        if not as_json:
            raise
        print_json({"valid": False, "error": str(error)})
        raise typer.Exit(1) from None
    value = {
        "valid": True,
        "kind": "export",
        "events": found.events,
        "erased": found.erased,
        "size": found.checkpoint.size,
        "checkpoint": found.checkpoint.text,
        "keys": [str(each) for each in found.keys],
        "witnesses": {each.name: time for each, time in found.cosigners.items()},
    }
    line = (
        f"valid: the {found.events:,} event(s) are among the {found.checkpoint.size:,} events of "
        f"{text(found.checkpoint.origin)}, signed by {', '.join(f'{each.name} {each.id}' for each in found.keys)}"
        + (f"; the content of {found.erased:,} was erased" if found.erased else "")
    )
    print_result(value, line, as_json=as_json)


def _in_words(proof: Proof) -> str:
    if isinstance(proof, InclusionProof):
        event = proof.event
        place = f"leaf {proof.index} of the {proof.checkpoint.size:,} events of {text(proof.checkpoint.origin)}"
        if "salt" not in event:
            return f"an event at position {event['position']}, which was erased, is {place}"
        return (
            f"the event {event['id']} at position {event['position']} (version {event['version']} of conversation "
            f"{event['conversation_id']}, tenant {text(event['tenant_id'])}) is {place}"
        )
    if isinstance(proof, ConsistencyProof):
        return (
            f"the log {text(proof.new.origin)} of {proof.new.size:,} events begins with the {proof.old.size:,} events "
            "of the older checkpoint"
        )
    newest = max(proof, key=lambda each: each.size)
    return f"{len(proof):,} checkpoint(s) of {text(newest.origin)}, the newest of {newest.size:,} events"


def _proof_value(proof: Proof) -> dict[str, Any]:
    if isinstance(proof, InclusionProof):
        return {"kind": "inclusion", **proof.value}
    if isinstance(proof, ConsistencyProof):
        return {"kind": "consistency", "old_size": proof.old.size, "new_size": proof.new.size, **proof.value}
    return {"kind": "checkpoints", "sizes": [each.size for each in proof]}


@audit.command("checkpoints")
def audit_checkpoints(
    limit: Annotated[int, Option("--limit", "-n", min=1, max=1000, help="The most rows.")] = 20,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """List the newest checkpoints: sizes for audit consistency, and the times at which they were signed."""
    rows = run(lambda store: list_checkpoints(fetching(store), limit), read_settings(data_dir))
    print_rows(
        rows,
        RowFormat(
            (">size", ">position", "sealed", "keys", "?root"),
            lambda row: (
                row.checkpoint.size, row.position, row.sealed_at,
                " ".join(key_id for _, key_id, _ in row.checkpoint.signatures), row.checkpoint.root.hex(),
            ),
            lambda row: {
                "size": row.checkpoint.size, "position": row.position, "sealed_at": row.sealed_at,
                "root": row.checkpoint.root.hex(), "note": row.checkpoint.text,
            },
        ),
        nothing="nothing is sealed yet: set EVENTSTORE_AUDIT_KEY for eventstore up or project",
        as_json=as_json,
    )  # fmt: skip


@audit.command("export")
def audit_export(
    folder: Annotated[Path, Argument(metavar="FOLDER", help="The folder; what is there already is not written again.")],
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Write the sealed log as files that a web server can serve to monitors, in the layout of C2SP's tlog-tiles.

    The entries have positions and salted digests, which reveal no content.
    """
    checkpoint = run(lambda store: export_tiles(store, folder), read_settings(data_dir))
    line = f"{folder}: the tiles of {checkpoint.size:,} events, and the checkpoint"
    print_result({"folder": str(folder), "size": checkpoint.size}, line, as_json=as_json)


# Keys


@key.command("create")
def key_create(
    file: Annotated[Path, Argument(metavar="FILE", help="The file to write; its owner alone can read it.")],
    name: Annotated[
        str, Option("--name", metavar="NAME", help="The name of the log, such as example.com/log; it never changes.")
    ],
    as_json: Json = False,
) -> None:
    """Create a key for a log, and show its public key."""
    keys = KeyFile(file, (PrivateKey.create(name),))
    keys.write(is_new=True)
    _print_keys(keys, as_json=as_json)
    if not as_json:
        print_remark(
            f"set EVENTSTORE_AUDIT_KEY={file.absolute()}, and keep the public key where this log's administrators "
            "cannot change it; back the file up: nobody can sign for this log without it"
        )


@key.command("show")
def key_show(file: KeyPath = None, as_json: Json = False) -> None:
    """Show the public keys of a file: those that sign, and those that have signed."""
    _print_keys(KeyFile.read(_key_path(file)), as_json=as_json)


@key.command("rotate")
def key_rotate(file: KeyPath = None, as_json: Json = False) -> None:
    """Add a new key, which signs from now on beside the old one, so that those who trust only the old one go on.

    When all have the new public key, end the old one: eventstore audit key retire ID.
    """
    keys = KeyFile.read(_key_path(file)).rotated()
    keys.write()
    _print_keys(keys, as_json=as_json)


@key.command("retire")
def key_retire(
    key_id: Annotated[str, Argument(metavar="ID", help="The key's id, as shown.")],
    file: KeyPath = None,
    as_json: Json = False,
) -> None:
    """Delete the private part of a key, so that it signs no more; what it has signed still verifies."""
    keys = KeyFile.read(_key_path(file)).retired(key_id)
    keys.write()
    _print_keys(keys, as_json=as_json)


def _print_keys(keys: KeyFile, *, as_json: bool) -> None:
    signing = {each.public for each in keys.private}
    if as_json:
        print_json(
            [{"id": each.id, "name": each.name, "signs": each in signing, "key": str(each)} for each in keys.keys]
        )
        return
    for each in keys.keys:
        typer.echo(str(each))
    retired = [each.id for each in keys.keys if each not in signing]
    if retired:
        print_remark(f"retired: {', '.join(retired)}")


def _key_path(file: Path | None) -> Path:
    path = file or read_settings().audit_key
    if path is None:
        raise KeyInvalid("EVENTSTORE_AUDIT_KEY: names no file of keys: name one there, or as an argument")
    return path


# What several commands need


def _policy(settings: ServerSettings, keys: Sequence[str] | None, policy_file: Path | None) -> Policy:
    """Return whom the command trusts: the given keys, or else a policy, or else the file of keys."""
    policy = Policy() if (path := policy_file or settings.audit_policy) is None else Policy.read(path)
    logs: list[PublicKey] = []
    for each in keys or ():
        logs += KeyFile.read(Path(each)).keys if Path(each).is_file() else [PublicKey.parse(each)]
    if not logs and not policy.logs and settings.audit_key is not None:
        logs += KeyFile.read(settings.audit_key).keys
    if not logs and not policy.logs:
        raise KeyInvalid(
            "--key: no public key is given, so nobody is trusted: give the log's key, a --policy, or set "
            "EVENTSTORE_AUDIT_KEY"
        )
    return Policy(tuple(logs), policy.witnesses, policy.urls, policy.groups, policy.quorum) if logs else policy


async def _checkpoint(store: EventStore, given: str) -> Checkpoint:
    """Return the checkpoint of a size in the database, or the newest one in a file."""
    if given.isdecimal():
        return await checkpoint_of(fetching(store), int(given))
    if not (found := read_published(Path(given))):
        raise NotFound(f"{printable(given)}: has no checkpoint: give the size of one, or a file that has one")
    return max(found, key=lambda each: each.size)


def _write(proof: InclusionProof | ConsistencyProof, output: Path | None, *, as_json: bool) -> None:
    if output is None:
        if as_json:
            print_json(proof.value)
        else:
            sys.stdout.write(proof.text)
        return
    try:
        if not output.exists():
            output.touch(mode=0o600)  # a proof has the event with its content
        output.write_text(json_text(proof.value) + "\n" if as_json else proof.text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"--output {printable(str(output))}: {error.strerror}: name another file") from None
    print_result({"file": str(output)}, f"{output}: {_in_words(proof)}", as_json=as_json)
