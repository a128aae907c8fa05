"""The commands retention add, list, remove and run; hold add, list and remove."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.filesize import decimal
from typer import Argument, Option

from agent_manager.cli.ids import find_conversation
from agent_manager.cli.options import DataDir, Json, Tenant, check_tenant_option, duration_option, read_settings, run
from agent_manager.cli.output import RowFormat, duration, print_json, print_remark, print_result, print_rows
from agent_manager.retention import Hold, Holds, Rule, Rules, TenantResult, apply_rules
from eventstore import EventStore
from eventstore.errors import InputError, printable
from projections import Reader

By = Annotated[str, Option("--actor", metavar="ACTOR", help="Who does it, for the record.")]

retention = typer.Typer(help="Add, list, remove, run the rules by which old conversations are erased.")


class SinceChoice(StrEnum):
    """The time from which the age of a conversation counts."""

    LAST_EVENT = "last-event"
    CREATION = "creation"


class StateChoice(StrEnum):
    """The state of the conversations that a rule erases."""

    ACTIVE = "active"
    ARCHIVED = "archived"
    DELETED = "deleted"


@retention.command("add")
def retention_add(
    age: Annotated[str, Argument(metavar="AGE", help="How old conversations must be: 30m, 12h, 90d, 4w.")],
    since: Annotated[SinceChoice, Option(help="From when the age counts.")] = SinceChoice.LAST_EVENT,
    state: Annotated[StateChoice | None, Option(help="Only conversations in this state.")] = None,
    owner: Annotated[str | None, Option(metavar="USER", help="Only conversations that this user owns.")] = None,
    metadata: Annotated[
        str | None, Option(metavar="JSON", help="""Only conversations with these metadata: '{"team": "sales"}'.""")
    ] = None,
    reason: Annotated[str, Option(metavar="TEXT", help="Why they are erased; the receipts repeat it.")] = "",
    actor: By = "",
    as_json: Json = False,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Add a rule: the next run erases all conversations that match it.

    The workers make a run every day (EVENTSTORE_RETENTION_HOURS). To see before what it would erase: eventstore
    retention run --dry-run.
    """
    given = duration_option(age, "AGE")
    wanted = None if metadata is None else _object(metadata)

    def value(choice: StrEnum | None) -> Any:
        return None if choice is None else choice.value.replace("-", "_")

    added = run(
        lambda store: Rules(store).add(
            given,
            since=value(since),
            state=value(state),
            user=owner,
            metadata=wanted,
            reason=reason,
            actor=actor,
        ),
        read_settings(data_dir, tenant),
        tenant,
    )
    print_result(rule_value(added), f"rule {added.id} added", as_json=as_json)


def _object(given: str) -> dict[str, Any]:
    try:
        value = json.loads(given)
    except ValueError as error:
        raise InputError(f"--metadata: is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise InputError("--metadata: is not an object: give the members that a conversation must have")
    return value


def rule_value(rule: Rule) -> dict[str, Any]:
    """Return a rule for JSON."""
    members = asdict(rule)
    return {"id": members.pop("id"), "age_seconds": members.pop("age").total_seconds(), **members}


@retention.command("list")
def retention_list(as_json: Json = False, data_dir: DataDir = None, tenant: Tenant = None) -> None:
    """List the rules, the oldest first."""
    print_rows(
        run(lambda store: Rules(store).list(), read_settings(data_dir, tenant), tenant),
        RowFormat(
            ("id", "age", "since", "state", "owner", "metadata", "applied", "reason"),
            lambda row: (
                row.id,
                duration(row.age.total_seconds()),
                row.since.replace("_", " "),
                row.state,
                row.user,
                None if row.metadata is None else json.dumps(row.metadata, ensure_ascii=False),
                row.applied_at,
                row.reason,
            ),
            rule_value,
        ),
        nothing="no rules: nothing is erased by age; eventstore retention add AGE adds one",
        as_json=as_json,
    )


@retention.command("remove")
def retention_remove(
    rule: Annotated[UUID, Argument(metavar="RULE", help="The rule's id, as listed.")],
    actor: By = "",
    as_json: Json = False,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Remove a rule. What it has erased stays erased."""
    removed = run(lambda store: Rules(store).remove(rule, actor=actor), read_settings(data_dir, tenant), tenant)
    print_result(rule_value(removed), f"rule {removed.id} removed", as_json=as_json)


@retention.command("run")
def retention_run(
    dry_run: Annotated[bool, Option("--dry-run", help="Only count what would be erased.")] = False,
    all_tenants: Annotated[bool, Option("--all-tenants", help="Apply the rules of all tenants.")] = False,
    actor: By = "",
    as_json: Json = False,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Erase what the rules demand, now, and delete files of a day ago or older that no event refers to.

    What it erases cannot be brought back. Conversations on legal hold stay.
    """
    settings = read_settings(data_dir, tenant)
    name = None if all_tenants else settings.tenant
    results = run(lambda store: apply_rules(store, name, dry_run=dry_run, actor=actor), settings, tenant)
    if as_json:
        print_json({"dry_run": dry_run, "tenants": results})
        return
    rules = [(result.tenant, rule) for result in results for rule in result.rules]
    print_rows(
        rules,
        RowFormat(
            ("tenant", "rule", ">would be erased" if dry_run else ">erased", ">events", ">held", ">skipped", ">failed"),
            lambda row: (row[0], *asdict(row[1]).values()),
        ),
        nothing="no rules: eventstore retention add AGE adds one",
        as_json=False,
    )
    if files := sum(result.files for result in results):
        print_remark(f"{files:,} unreferenced file(s) deleted, {decimal(_bytes(results))}")


def _bytes(results: list[TenantResult]) -> int:
    return sum(result.file_bytes for result in results)


# Legal holds

hold = typer.Typer(help="Add, list, remove legal holds, which stop erasures.")

HoldId = Annotated[UUID, Argument(metavar="HOLD", help="The hold's id, as listed.")]


class Subject(StrEnum):
    """The subject of a hold."""

    CONVERSATION = "conversation"
    USER = "user"
    TENANT = "tenant"


@hold.command("add")
def hold_add(
    subject: Annotated[Subject, Argument(help="What the hold is on.")],
    subject_id: Annotated[
        str | None,
        Argument(metavar="[ID]", help="The conversation's id or its beginning, or the user's id; none for the tenant."),
    ] = None,
    reason: Annotated[
        str, Option(metavar="TEXT", help="Why nothing may be erased, such as the number of a case.")
    ] = "",
    actor: By = "",
    as_json: Json = False,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Keep a conversation, all of a user, or the whole tenant from being erased, by request or by rule.

    A hold on a user covers the conversations that they own and those with events that they caused; one on a fork also
    what it shares with the conversations that it continues.
    """
    if (subject_id is None) != (subject is Subject.TENANT):
        raise typer.BadParameter("give the ID of the conversation or of the user, and none for the tenant")

    async def work(store: EventStore) -> Hold:
        holds = Holds(store)
        if subject is Subject.TENANT:
            await check_tenant_option(store, store.tenant)
        if subject is not Subject.CONVERSATION:
            return await holds.place(user=subject_id, reason=reason, actor=actor)
        conversation = await find_conversation(Reader(store), str(subject_id))
        return await holds.place(conversation_id=conversation, reason=reason, actor=actor)

    placed = run(work, read_settings(data_dir, tenant), tenant)
    print_result(placed, f"hold {placed.id} placed on {printable(placed.subject)}", as_json=as_json)


@hold.command("list")
def hold_list(as_json: Json = False, data_dir: DataDir = None, tenant: Tenant = None) -> None:
    """List the holds in force, the oldest first."""
    print_rows(
        run(lambda store: Holds(store).list(), read_settings(data_dir, tenant), tenant),
        RowFormat(
            ("id", "on", "placed", "by", "reason"),
            lambda row: (row.id, row.subject, row.placed_at, row.placed_by, row.reason),
        ),
        nothing="no holds: eventstore hold add user USER --reason TEXT places one",
        as_json=as_json,
    )


@hold.command("remove")
def hold_remove(
    hold_id: HoldId,
    reason: Annotated[str, Option(metavar="TEXT", help="Why it is not needed any more.")] = "",
    actor: By = "",
    as_json: Json = False,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Release a hold: what it covered may be erased again."""
    settings = read_settings(data_dir, tenant)
    released = run(lambda store: Holds(store).release(hold_id, reason=reason, actor=actor), settings, tenant)
    print_result(released, f"hold {released.id} on {printable(released.subject)} released", as_json=as_json)
