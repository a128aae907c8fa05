"""A graph with a scripted model and a tool, in a process of its own or in that of a test."""

from __future__ import annotations

import sys
import threading
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from agent_manager.adapters.langgraph import EventStoreSaver

CALLS = 3
"""The calls of the tool that the model makes."""


class ScriptedModel(BaseChatModel):
    """Calls the tool a few times, then answers."""

    calls: int = CALLS

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **_: Any) -> ChatResult:
        number = sum(isinstance(message, AIMessage) for message in messages)
        wanted = number % (self.calls + 1) < self.calls
        calls = [{"name": "look_up", "args": {"number": number}, "id": f"call-{number}"}] if wanted else []
        message = AIMessage("" if wanted else f"Ανσwer {number} 🚆", tool_calls=calls)
        return ChatResult(generations=[ChatGeneration(message=message)])


@tool
def look_up(number: int) -> str:
    """Look up a train."""
    print(f"looking up {number}", flush=True)
    if sys.argv[0].endswith("langgraph_agent.py") and sys.argv[3:] == [str(number)]:
        threading.Event().wait()  # until the process is killed
    return f"train {number} leaves at {number}:00"


def graph(checkpointer: Any, **options: Any) -> Any:
    """Return the agent."""

    def model(state: MessagesState) -> dict[str, Any]:
        return {"messages": [ScriptedModel().invoke(state["messages"])]}

    def route(state: MessagesState) -> str:
        return "tools" if getattr(state["messages"][-1], "tool_calls", None) else END

    builder = StateGraph(MessagesState)
    builder.add_node("model", model)
    builder.add_node("tools", ToolNode([look_up]))
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", route, ["tools", END])
    builder.add_edge("tools", "model")
    return builder.compile(checkpointer=checkpointer, **options)


def main(url: str, thread: str, _: str = "") -> None:
    """Let the agent answer, or go on with its answer; it stops for good in the call with a number."""
    with EventStoreSaver.from_conn_string(url) as checkpointer:
        agent, config = graph(checkpointer), {"configurable": {"thread_id": thread}}
        is_new = not agent.get_state(config).values
        agent.invoke({"messages": [HumanMessage("when?")]} if is_new else None, config, durability="sync")
        print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
