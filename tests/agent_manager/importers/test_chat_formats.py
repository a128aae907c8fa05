"""The exports of other programs are recognised by their content and become conversations, messages and tasks."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_manager.importers.chat_events import Conversation, conversation_of_chat
from agent_manager.importers.chats import MalformedChat, NotRecognised
from agent_manager.importers.formats import FORMATS, ChatReader, chat_format
from eventstore import (
    ConversationCreated,
    MessageAdded,
    TaskArtifactAdded,
    TaskCreated,
    TaskStatusChanged,
    sent_message,
)

CONVERSATION = "6a8f7a3e-52c1-4d0a-9f6e-2f1f0f3f8b01"
ROOT = "00000000-0000-4000-8000-000000000000"


def read(value: Any, format_name: str | None = None) -> Conversation:
    chat = ChatReader(format_name).read(json.loads(json.dumps(value)))
    return conversation_of_chat(chat, "default")


def created(conversation: Conversation) -> ConversationCreated:
    data = conversation.events[0].data
    assert isinstance(data, ConversationCreated)
    return data


def messages(conversation: Conversation) -> list[dict[str, Any]]:
    return [sent_message(event.data) for event in conversation.events if isinstance(event.data, MessageAdded)]


def roles_and_texts(conversation: Conversation) -> list[tuple[str, Any]]:
    """The stored role of each message, and its content or the texts of its parts."""
    found = []
    for event in conversation.events:
        if isinstance(event.data, MessageAdded):
            sent = sent_message(event.data)
            content = sent.get("parts", sent.get("content"))
            if isinstance(content, list):
                content = "|".join(part["text"] for part in content if "text" in part)
            found.append((str(event.data.role), content))
    return found


def tasks(conversation: Conversation) -> dict[str, tuple[str, Any]]:
    """The status and the result of each task, by its description."""
    descriptions: dict[UUID, str] = {}
    found: dict[str, tuple[str, Any]] = {}
    for event in conversation.events:
        match event.data:
            case TaskCreated(task_id=task_id, description=description, status=status):
                descriptions[task_id] = description
                found[description] = (str(status), None)
            case TaskArtifactAdded(task_id=task_id, parts=parts):
                found[descriptions[task_id]] = ("", [part.get("text", part.get("data")) for part in parts])
            case TaskStatusChanged(task_id=task_id, status=status):
                found[descriptions[task_id]] = (str(status), found[descriptions[task_id]][1])
    return found


# ChatGPT


def node(node_id: str, parent: str | None, role: str = "user", *parts: Any, **members: Any) -> dict[str, Any]:
    content = members.pop("content", {"content_type": "text", "parts": list(parts)})
    author = {"role": role, "name": members.pop("name", None), "metadata": {}}
    message = {
        "id": node_id, "author": author, "create_time": members.pop("create_time", 1704067200.5), "update_time": None,
        "content": content, "status": "finished_successfully", "end_turn": True, "weight": 1.0,
        "metadata": {"model_slug": "gpt-x"}, "recipient": "all", "channel": None, **members,
    }  # fmt: skip
    return {"id": node_id, "parent": parent, "children": [], "message": message}


def chatgpt(*nodes: dict[str, Any], **members: Any) -> dict[str, Any]:
    root = {"id": "root", "parent": None, "children": [], "message": None}
    return {
        "title": "Trens", "create_time": 1704067100.25, "update_time": 1704067300.0, "current_node": nodes[-1]["id"],
        "mapping": {each["id"]: each for each in (root, *nodes)}, "conversation_id": CONVERSATION, "id": CONVERSATION,
        "moderation_results": [], "default_model_slug": "gpt-x", "gizmo_id": None, **members,
    }  # fmt: skip


CHATGPT = chatgpt(
    node("s", "root", "system", "", create_time=None, metadata={"is_visually_hidden_from_conversation": True}),
    node("ctx", "s", "user", content={"content_type": "user_editable_context", "user_profile": "p"},
         metadata={"is_visually_hidden_from_conversation": True}),
    node("old", "ctx", "user", "Um trem para Lisboa"),
    node("old answer", "old", "assistant", "Não sei"),
    node("u", "ctx", "user", content={"content_type": "multimodal_text", "parts": [
             {"content_type": "image_asset_pointer", "asset_pointer": "sediment://file_1", "width": 3, "fovea": None},
             "Um trem\n para o Porto? 🚆"]},
         metadata={"attachments": [{"id": "file_1", "name": "mapa.png", "mime_type": "image/png", "size": 9},
                                   {"id": "file-2", "name": "a.pdf", "mime_type": "application/pdf"}]}),
    node("t", "u", "assistant", content={"content_type": "thoughts", "thoughts": [{"summary": "a", "content": "b"}]}),
    node("c", "t", "assistant", content={"content_type": "code", "language": "unknown", "text": "1/0"},
         recipient="python", create_time=1704067210),
    node("r", "c", "tool", content={"content_type": "execution_output", "text": "ZeroDivisionError"}, name="python",
         create_time=None, metadata={"aggregate_result": {"status": "failed_with_in_kernel_exception"}}),
    node("w", "r", "assistant", content={"content_type": "code", "language": "json", "text": '{"q": "Porto"}'},
         recipient="web.run"),
    node("x", "w", "tool", content={"content_type": "tether_quote", "url": "https://e.example", "text": "10:30"},
         name="web"),
    node("a", "x", "assistant", "Às 10:30."),
)  # fmt: skip


def test_of_chatgpt_the_current_branch_is_imported_and_the_rest_is_counted() -> None:
    conversation = read(CHATGPT)
    assert (conversation.id, created(conversation).name) == (UUID(CONVERSATION), "Trens")
    assert roles_and_texts(conversation) == [
        ("user", "Um trem\n para o Porto? 🚆"),
        ("assistant", ""),
        ("assistant", "1/0"),
        ("tool", "ZeroDivisionError"),
        ("assistant", '{"q": "Porto"}'),
        ("tool", "10:30"),
        ("assistant", "Às 10:30."),
    ]
    assert conversation.left_out == {"messages of other branches": 2, "hidden messages": 1}


def test_of_chatgpt_calls_become_tasks_and_files_become_parts() -> None:
    conversation = read(CHATGPT)
    assert tasks(conversation) == {
        "python(1/0)": ("failed", ["ZeroDivisionError"]),
        'web.run({"q": "Porto"})': ("completed", ["10:30"]),
    }
    first = messages(conversation)[0]
    assert [part["file"] for part in first["parts"] if part["kind"] == "file"] == [
        {"uri": "sediment://file_1", "name": "mapa.png", "mimeType": "image/png"},
        {"uri": "file-service://file-2", "name": "a.pdf", "mimeType": "application/pdf"},
    ]
    assert first["export"]["metadata"]["attachments"][0]["size"] == 9


def test_of_chatgpt_times_are_kept_and_missing_ones_are_those_of_the_message_before() -> None:
    times = [event.metadata.occurred_at for event in read(CHATGPT).events]
    assert times[0] == datetime.fromtimestamp(1704067100.25, UTC)
    assert times[1] == datetime.fromtimestamp(1704067200.5, UTC)
    assert times[3:8] == [datetime.fromtimestamp(1704067210, UTC)] * 5, "the call and its result"


def test_of_chatgpt_without_a_current_node_the_latest_branch_is_read() -> None:
    newer = node("new", "u", "assistant", "newer", create_time=1704069999)
    sent = chatgpt(node("u", "root", "user", "hello"), newer, node("a", "u", "assistant", "older"), current_node=None)
    assert roles_and_texts(read(sent)) == [("user", "hello"), ("assistant", "newer")]


def test_a_cycle_in_a_tree_ends_the_branch() -> None:
    assert len(messages(read(chatgpt(node("a", "b", "user", "x"), node("b", "a", "user", "y"))))) == 2


# Claude


def claude_message(uuid: str, parent: str, sender: str, content: Any, **members: Any) -> dict[str, Any]:
    return {
        "uuid": uuid, "text": "", "content": content, "sender": sender, "created_at": "2025-03-01T10:00:00.123456Z",
        "updated_at": "2025-03-01T10:00:00.123456Z", "attachments": [], "files": [], "parent_message_uuid": parent,
        **members,
    }  # fmt: skip


CLAUDE = {
    "uuid": CONVERSATION, "name": "Rezepte", "summary": "", "created_at": "2025-03-01T09:59:00Z",
    "updated_at": "2025-03-02T10:00:00Z", "account": {"uuid": ROOT},
    "chat_messages": [
        claude_message("m1", ROOT, "human", [{"type": "text", "text": "Ein Rezept für Käse", "citations": []}],
                       attachments=[{"file_name": "käse.txt", "file_type": "txt", "file_size": 3,
                                     "extracted_content": "Brie"}],
                       files=[{"file_uuid": "f1", "file_name": "foto.jpg"}]),
        claude_message("m2", "m1", "assistant", [
            {"type": "thinking", "thinking": "hm"},
            {"type": "tool_use", "id": "toolu_1", "name": "web_search", "input": {"query": "Käse"}},
            {"type": "tool_result", "tool_use_id": "toolu_1", "name": "web_search", "is_error": False,
             "content": [{"type": "text", "text": "Brie"}]},
            {"type": "tool_use", "id": None, "name": "repl", "input": {"code": "x"}},
            {"type": "tool_result", "tool_use_id": None, "name": "repl", "is_error": True, "content": "no"},
            {"type": "tool_use", "id": "toolu_3", "name": "artifacts", "input": {}},
            {"type": "text", "text": "Nimm Brie."},
        ]),
        claude_message("m3", "m1", "assistant", [{"type": "text", "text": "andere Antwort"}]),
        claude_message("m4", "m2", "human", None, text="Danke"),
    ],
}  # fmt: skip


def test_of_claude_messages_calls_and_attachments_are_read() -> None:
    conversation = read(CLAUDE)
    assert (conversation.id, created(conversation).name) == (UUID(CONVERSATION), "Rezepte")
    assert roles_and_texts(conversation) == [
        ("user", "Ein Rezept für Käse"),
        ("assistant", "Nimm Brie."),
        ("user", "Danke"),
    ]
    assert conversation.left_out == {"messages of other branches": 1}
    assert tasks(conversation) == {
        'web_search({"query":"Käse"})': ("completed", ["Brie"]),
        'repl({"code":"x"})': ("failed", ["no"]),
        "artifacts({})": ("in_progress", None),
    }
    files = [part for part in messages(conversation)[0]["parts"] if part["kind"] == "file"]
    assert [part["file"] for part in files] == [
        {"uri": "k%C3%A4se.txt", "name": "käse.txt", "mimeType": "text/plain"},
        {"uri": "urn:uuid:f1", "name": "foto.jpg"},
    ]
    assert files[0]["metadata"] == {"file_size": 3, "extracted_content": "Brie"}
    assert conversation.events[1].metadata.occurred_at == datetime(2025, 3, 1, 10, 0, 0, 123456, UTC)


def test_of_claude_the_current_leaf_chooses_the_branch() -> None:
    sent = {**CLAUDE, "current_leaf_message_uuid": "m3"}
    assert [text for _, text in roles_and_texts(read(sent))] == ["Ein Rezept für Käse", "andere Antwort"]


def test_of_claude_messages_whose_parents_are_unknown_are_all_read() -> None:
    sent = {**CLAUDE, "chat_messages": [claude_message(name, ROOT, "human", name) for name in "abc"]}
    assert [text for _, text in roles_and_texts(read(sent))] == ["a", "b", "c"]


def test_of_claude_without_branches_all_messages_are_read_in_their_order() -> None:
    sent = {**CLAUDE, "chat_messages": [
        {"uuid": "a", "sender": "human", "text": "one"}, {"uuid": "b", "sender": "assistant", "text": "two"}
    ]}  # fmt: skip
    assert roles_and_texts(read(sent)) == [("user", "one"), ("assistant", "two")]


# ShareGPT

SHAREGPT = {
    "id": "QWJhYvA_0",
    "system": "Be brief.",
    "conversations": [
        {"from": "human", "value": "What is the weather?"},
        {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Łódź"}}'},
        {"from": "observation", "value": '{"rain": true}'},
        {"from": "gpt", "value": "It rains.", "markdown": None},
    ],
}


def test_sharegpt_is_read() -> None:
    conversation = read(SHAREGPT)
    assert (conversation.given_id, created(conversation).given_id) == ("QWJhYvA_0", "QWJhYvA_0")
    assert [role for role, _ in roles_and_texts(conversation)] == ["system", "user", "assistant", "tool", "assistant"]
    assert tasks(conversation) == {'weather({"city":"Łódź"})': ("completed", ['{"rain": true}'])}
    assert read(SHAREGPT["conversations"]).messages == 4


def test_several_calls_of_sharegpt_are_answered_in_their_order() -> None:
    calls = json.dumps([{"name": "a", "arguments": {}}, {"name": "b", "arguments": {}}])
    turns = [("function_call", calls), ("observation", "1"), ("observation", "2")]
    sent = {"conversations": [{"from": sender, "value": value} for sender, value in turns]}
    assert tasks(read(sent)) == {"b({})": ("completed", ["2"]), "a({})": ("completed", ["1"])}


# Anthropic Messages

ANTHROPIC = {
    "model": "claude-x", "max_tokens": 10, "system": "Be kind.",
    "messages": [
        {"role": "user", "content": "Weather in Zürich?"},
        {"role": "assistant", "content": [
            {"type": "text", "text": "Let me see."},
            {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Zürich"}},
        ]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "snow"}]},
    ],
}  # fmt: skip


def test_anthropic_messages_are_kept_as_they_were_sent() -> None:
    conversation = read(ANTHROPIC)
    system = {"role": "system", "content": "Be kind."}
    assert messages(conversation) == [system, *ANTHROPIC["messages"]]  # type: ignore[misc]
    assert [role for role, _ in roles_and_texts(conversation)] == ["system", "user", "assistant", "tool"]
    assert tasks(conversation) == {'weather({"city":"Zürich"})': ("completed", ["snow"])}
    assert created(conversation).metadata == {"model": "claude-x", "max_tokens": 10}


def test_calls_of_openai_beside_a_system_prompt_are_tasks_too() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turns = [{"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c"}]
    assert tasks(read({"system": "Be kind.", "messages": turns})) == {"f({})": ("completed", [])}


def test_a_request_and_its_response_are_one_conversation() -> None:
    answer = {"id": "msg_1", "type": "message", "role": "assistant", "content": [{"type": "text", "text": "Snow."}]}
    for sent in ({"request": ANTHROPIC, "response": answer}, {**ANTHROPIC, "response": {"body": answer}}):
        assert messages(read(sent))[-1] == answer
    completion = {"request": {"messages": [{"role": "user", "content": "hi"}]},
                  "response": {"choices": [{"message": {"role": "assistant", "content": "hello"}}]}}  # fmt: skip
    assert roles_and_texts(read(completion)) == [("user", "hi"), ("assistant", "hello")]


# OpenAI Responses

RESPONSE = {
    "id": "resp_1", "object": "response", "created_at": 1741476542, "status": "completed", "instructions": "Be brief.",
    "input": [{"role": "user", "content": [{"type": "input_text", "text": "Wetter in Köln?"}]}],
    "output": [
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather",
         "arguments": '{"city": "Köln"}'},
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"query": "Köln"}},
        {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
         "content": [{"type": "output_text", "text": "Ich sehe nach.", "annotations": []}]},
    ],
}  # fmt: skip
FOLLOWING = {
    "id": "resp_2", "object": "response", "created_at": 1741476552, "previous_response_id": "resp_1",
    "input": [{"type": "function_call_output", "call_id": "call_1", "output": "Regen"}],
    "output": [{"type": "message", "id": "msg_2", "role": "assistant",
                "content": [{"type": "output_text", "text": "Regen."}]}],
}  # fmt: skip


def test_items_of_responses_are_read() -> None:
    conversation = read(RESPONSE)
    assert conversation.given_id == "resp_1"
    assert roles_and_texts(conversation) == [
        ("system", "Be brief."),
        ("user", "Wetter in Köln?"),
        ("assistant", ""),
        ("assistant", None),
        ("assistant", None),
        ("assistant", "Ich sehe nach."),
    ]
    assert tasks(conversation) == {
        'weather({"city": "Köln"})': ("in_progress", None),
        'web_search({"query":"Köln"})': ("completed", []),
    }
    assert messages(conversation)[-1] == RESPONSE["output"][-1]  # type: ignore[index]


def test_a_response_continues_the_one_before_it() -> None:
    reader, open_calls = ChatReader(), {}  # type: ignore[var-annotated]
    first, second = (
        conversation_of_chat(reader.read(copy.deepcopy(value)), "default", open_calls=open_calls)
        for value in (RESPONSE, FOLLOWING)
    )
    assert first.id == second.id
    assert [type(event.data) for event in second.events[2:4]] == [TaskArtifactAdded, TaskStatusChanged]


def test_references_and_instructions_without_content_are_no_messages() -> None:
    assert read({"input": [{"type": "item_reference", "id": "msg_1"}, {"role": "user", "content": "x"}]}).messages == 1
    removal = {"type": "remove", "data": {"id": "run-1", "content": ""}}
    assert read([LANGCHAIN[1][0], removal]).messages == 1


def test_a_list_of_items_and_a_text_are_input() -> None:
    items = [*RESPONSE["input"], *RESPONSE["output"], *FOLLOWING["input"]]  # type: ignore[misc]
    assert tasks(read(items))['weather({"city": "Köln"})'] == ("completed", ["Regen"])
    assert roles_and_texts(read({"input": "Hallo", "output": RESPONSE["output"][-1:]})) == [  # type: ignore[index]
        ("user", "Hallo"),
        ("assistant", "Ich sehe nach."),
    ]


# LangChain


def langchain(kind: str, **members: Any) -> list[dict[str, Any]]:
    """A message in the three forms."""
    kinds = {"human": "HumanMessage", "ai": "AIMessage", "system": "SystemMessage", "tool": "ToolMessage"}
    data = {"content": "", "additional_kwargs": {}, "response_metadata": {}, "type": kind, "id": None, **members}
    dumped = {"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", kinds[kind]],
              "kwargs": {key: value for key, value in data.items() if key != "type"}}  # fmt: skip
    return [{"type": kind, "data": data}, dumped, data]


LANGCHAIN = [
    langchain("system", content="Be kind."),
    langchain("human", content="Météo à Orléans ?"),
    langchain("ai", id="run-1", tool_calls=[{"name": "météo", "args": {"ville": "Orléans"}, "id": "c1"}]),
    langchain("tool", content="pluie", tool_call_id="c1", name="météo", status="error"),
    langchain("ai", content=[{"type": "text", "text": "Il pleut."}]),
]


@pytest.mark.parametrize("form", range(3))
def test_langchain_messages_are_read_in_all_forms(form: int) -> None:
    sent = [forms[form] for forms in LANGCHAIN]
    for value in (sent, {"id": "thread-1", "messages": sent}, {"messages": [sent]}):
        conversation = read(value)
        assert roles_and_texts(conversation) == [
            ("system", "Be kind."),
            ("user", "Météo à Orléans ?"),
            ("assistant", ""),
            ("tool", "pluie"),
            ("assistant", "Il pleut."),
        ]
        assert tasks(conversation) == {'météo({"ville":"Orléans"})': ("failed", ["pluie"])}
    assert read({"id": "thread-1", "messages": sent}).given_id == "thread-1"


# Texts

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@pytest.mark.parametrize(
    "sent",
    [
        lambda text: chatgpt(node("a", "root", "user", text)),
        lambda text: {
            "uuid": "c",
            "chat_messages": [claude_message("a", ROOT, "human", [{"type": "text", "text": text}])],
        },
        lambda text: {"uuid": "c", "chat_messages": [{"uuid": "a", "sender": "human", "text": text}]},
        lambda text: {"conversations": [{"from": "human", "value": text}]},
        lambda text: {"model": "m", "system": None, "messages": [{"role": "user", "content": text}]},
        lambda text: {"input": text, "output": [{"type": "message", "role": "assistant", "content": []}]},
        lambda text: langchain("human", content=text)[:1],
    ],
)
@given(texts)
def test_texts_are_kept_to_the_byte(sent: Callable[[str], Any], text: str) -> None:
    assert roles_and_texts(read(sent(text)))[0] == ("user", text)


def test_items_of_a_list_and_a_request_in_a_member_of_its_own_are_read() -> None:
    items = {"object": "list", "data": [*RESPONSE["input"], *RESPONSE["output"]], "has_more": False}  # type: ignore[misc]
    assert read(items).messages == 5
    sent = {"id": "x", "messages": [{"role": "user", "content": "kept"}], "request": {"messages": []}}
    assert roles_and_texts(read(sent)) == [("user", "kept")]


# Conversations without ids


def test_a_conversation_without_an_id_is_known_by_its_beginning() -> None:
    sent = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    grown = [*sent, {"role": "user", "content": "bye"}]
    assert read(sent).id == read({"messages": sent}).id == read(grown).id == read({"id": None, "messages": sent}).id
    assert read(sent).id != read([sent[0], {"role": "assistant", "content": "other"}]).id


# Recognition

SAMPLES = {
    "chatgpt": CHATGPT, "claude": CLAUDE, "langchain": [forms[0] for forms in LANGCHAIN], "responses": RESPONSE,
    "sharegpt": SHAREGPT, "anthropic": ANTHROPIC,
    "openai": {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}], "tools": []},
}  # fmt: skip


@pytest.mark.parametrize("name", SAMPLES)
def test_a_format_is_recognised_by_its_content(name: str) -> None:
    assert chat_format(SAMPLES[name]).name == name
    assert [each.name for each in FORMATS if each.name not in SAMPLES] == []


@pytest.mark.parametrize(
    ("value", "description"),
    [
        ({"a": 1, "b": 2}, "is an object with the members a, b"),
        ({}, "is an empty object"),
        ([{"x": 1}], "is a list whose first element is an object with the members x"),
        ([], "is an empty list"),
        ("text", "is a text"),
        (None, "is null"),
    ],
)
def test_what_is_not_recognised_is_described(value: Any, description: str) -> None:
    with pytest.raises(NotRecognised, match=description):
        read(value)


@pytest.mark.parametrize(
    ("value", "format_name", "reason"),
    [
        ({"mapping": []}, None, "^mapping: is a list, expected an object"),
        ({"mapping": {"a": 1}}, None, r"^mapping\.a: is a number"),
        (chatgpt(node("a", "root", None)), None, r"^mapping\.a\.message\.author\.role: is missing"),  # type: ignore[arg-type]
        (chatgpt(node("a", "root", "critic", "x")), None, r"^mapping\.a\.message\.role: 'critic' is not a known role"),
        ({"mapping": {"a": {"parent": [1]}}}, None, r"^mapping\.a\.parent: is a list"),
        ({"chat_messages": None}, None, "^chat_messages: is null, expected a list"),
        ({"chat_messages": [1]}, None, r"^chat_messages\[0\]: is a number"),
        ({"chat_messages": [{"uuid": "x"}]}, None, r"^chat_messages\[0\]\.sender: is missing"),
        ({"chat_messages": [{"sender": "human", "content": [1]}]}, None, r"^chat_messages\[0\]\.content\[0\]: is"),
        ({"conversations": [{"from": "cat", "value": "x"}]}, None, r"^conversations\[0\]\.from: 'cat' is not known"),
        ({"conversations": [{"from": "gpt", "value": 1}]}, None, r"^conversations\[0\]\.value: is a number"),
        ({"object": "response", "output": {}}, None, "^output: is an object, expected a list of items"),
        ({"messages": []}, "chatgpt", "^mapping: is null"),
        ({"a": 1}, "openai", "^messages: is missing"),
        ([{"type": [1], "data": {}}], "langchain", r"^messages\[0\]\.type: \[1\] is not known"),
        (1, "claude", "^the conversation: is a number"),
    ],
)  # fmt: skip
def test_a_damaged_value_is_an_error_that_names_the_place(value: Any, format_name: str | None, reason: str) -> None:
    with pytest.raises(MalformedChat, match=reason):
        read(value, format_name)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in a value."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for name, child in children for place in places(child, (*path, name)))]


damages = st.sampled_from(
    [None, True, 0, -1.5, "", "x", [], {}, [None], {"a": None}, [[]], ["x"], {"role": 1}, "remove"]
)


@pytest.mark.parametrize("name", SAMPLES)
@given(st.data())
def test_any_damage_is_read_or_an_error(name: str, data: st.DataObject) -> None:
    value = copy.deepcopy(SAMPLES[name])
    for _ in range(data.draw(st.integers(1, 3))):
        if not value:  # everything was removed
            break
        path = data.draw(st.sampled_from(places(value)[1:]))
        holder: Any = value
        for step in path[:-1]:
            holder = holder[step]
        damage = data.draw(damages)
        if damage == "remove":
            del holder[path[-1]]
        else:
            holder[path[-1]] = copy.deepcopy(damage)
    for format_name in (None, name):
        with suppress(MalformedChat):
            read(value, format_name)
