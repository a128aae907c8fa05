"""Two replicas of an agent made with a2a-sdk, in processes of their own: one is killed, and the other goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.environment import child_environment
from support.waiting import until

from eventstore import EventStore

pytest.importorskip("a2a.server.cluster", reason="replicas need a2a-sdk 1.3")

from a2a.server.context import ServerCallContext
from a2a.types import a2a_pb2 as pb

pytestmark = pytest.mark.slow

REPLICA = '''
import asyncio, sys
from a2a.helpers.proto_helpers import new_task_from_user_message
from a2a.server.agent_execution.agent_executor import AgentExecutor
from a2a.server.context import ServerCallContext
from a2a.server.request_handlers.default_request_handler_v2 import DefaultRequestHandlerV2
from a2a.server.tasks.task_updater import TaskUpdater
from a2a.types import a2a_pb2 as pb
from agent_manager.adapters.a2a_sdk import EventStoreTaskEventStream, EventStoreVersionedTaskStore
from eventstore import EventStore

class Counting(AgentExecutor):
    """Counts, a number in each chunk of an artifact, from where the task is; to the end if the message says so."""

    async def execute(self, context, queue):
        task = context.current_task
        if task is None:
            await queue.enqueue_event(new_task_from_user_message(context.message))
        updater = TaskUpdater(queue, context.task_id, context.context_id)
        done = len(task.artifacts[0].parts) if task is not None and task.artifacts else 0
        last = done + 3 if context.message.parts[0].text == "finish" else 100_000
        await updater.start_work()
        for number in range(done, last):
            part = pb.Part(text=f"{number} ")
            await updater.add_artifact([part], artifact_id="numbers", append=number > 0, last_chunk=number == last - 1)
            await asyncio.sleep(0.005)
        await updater.complete()

    async def cancel(self, context, queue):
        raise NotImplementedError

def replica(store):
    card = pb.AgentCard(capabilities=pb.AgentCapabilities(streaming=True))
    return DefaultRequestHandlerV2(
        agent_executor=Counting(), task_store=EventStoreVersionedTaskStore(store), agent_card=card,
        event_stream=EventStoreTaskEventStream(store),
    )

def request(text, message_id, **ids):
    message = pb.Message(message_id=message_id, role=pb.ROLE_USER, parts=[pb.Part(text=text)], **ids)
    return pb.SendMessageRequest(message=message)

async def main():
    async with EventStore() as store:
        async for event in replica(store).on_message_send_stream(request("count", "m1"), ServerCallContext()):
            if isinstance(event, pb.Task):
                print(event.id, event.context_id, flush=True)

if __name__ == "__main__":
    asyncio.run(main())
'''


async def test_a_stream_of_a_killed_replica_goes_on_at_another_one(
    store: EventStore, database_url: str, tmp_path: Path
) -> None:
    names: dict[str, object] = {"__name__": "replica"}
    exec(compile(REPLICA, "replica", "exec"), names)  # the same agent in this process
    second, request, nobody = names["replica"](store), names["request"], ServerCallContext()  # type: ignore[operator]
    out = tmp_path / "out"
    with out.open("wb") as file:
        environment = child_environment(DATABASE_URL=database_url)
        first = subprocess.Popen([sys.executable, "-c", REPLICA], stdout=file, env=environment)  # noqa: ASYNC220
    try:
        until(lambda: out.read_text().endswith("\n") or first.poll() is not None, "the first replica has begun")
        task_id, context_id = out.read_text().split()
        numbers: list[str] = []
        has_some, states = asyncio.Event(), []

        async def follow() -> None:
            async for event in second.on_subscribe_to_task(pb.SubscribeToTaskRequest(id=task_id), nobody):
                if isinstance(event, pb.Task):
                    numbers[:] = [part.text for artifact in event.artifacts for part in artifact.parts]
                elif isinstance(event, pb.TaskArtifactUpdateEvent):
                    numbers.extend(part.text for part in event.artifact.parts)
                else:
                    states.append(event.status.state)
                if len(numbers) > 20:
                    has_some.set()

        following = asyncio.create_task(follow())
        await asyncio.wait_for(has_some.wait(), 60)
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait(30)
    finish = request("finish", "m2", task_id=task_id, context_id=context_id)  # type: ignore[operator]
    task = await second.on_message_send(finish, nobody)
    await asyncio.wait_for(following, 60)
    await second.aclose()
    assert task.status.state == pb.TASK_STATE_COMPLETED
    assert states[-1] == pb.TASK_STATE_COMPLETED
    assert numbers == [f"{number} " for number in range(len(numbers))]  # each once, none missing
    assert [part.text for part in task.artifacts[0].parts] == numbers
