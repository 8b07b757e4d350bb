"""Small exports of every format, made by hand. What is reasoning holds `COT`."""

import copy
import json
from typing import Any

EPOCH = 1_767_225_600.0  # 2026-01-01T00:00:00Z


def _node(
    name: str, parent: str | None, message: Any, *children: str
) -> dict[str, Any]:
    return {
        "id": name,
        "parent": parent,
        "children": list(children),
        "message": message,
    }


def _said(role: str, content: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"author": {"role": role}, "content": content, "weight": 1.0, **more}


def _parts(*parts: Any) -> dict[str, Any]:
    return {"content_type": "text", "parts": list(parts)}


CHATGPT = {
    "title": "sums",
    "create_time": EPOCH,
    "update_time": None,
    "current_node": "a2",
    "default_model_slug": "gpt-5",
    "mapping": {
        "root": _node("root", None, None, "sys"),
        "sys": _node(
            "sys",
            "root",
            _said("system", _parts("rules"), weight=0, create_time=0),
            "me",
        ),
        "me": _node(
            "me",
            "sys",
            _said("user", {"content_type": "user_editable_context", "text": "profile"}),
            "u1",
        ),
        "u1": _node(
            "u1",
            "me",
            _said("user", _parts("2+2?"), create_time=EPOCH + 1),
            "t1",
            "off",
        ),
        "off": _node("off", "u1", _said("assistant", _parts("other branch"))),
        "t1": _node(
            "t1",
            "u1",
            _said(
                "assistant",
                {
                    "content_type": "thoughts",
                    "thoughts": [
                        {"summary": "Adding", "content": "Two and two, COT."},
                        {"summary": "Only COT heading", "content": ""},
                        None,
                    ],
                },
            ),
            "r1",
        ),
        "r1": _node(
            "r1",
            "t1",
            _said(
                "assistant", {"content_type": "reasoning_recap", "content": "COT 8s"}
            ),
            "x1",
        ),
        "x1": _node(
            "x1",
            "r1",
            _said("assistant", _parts("COT call"), recipient="web.run"),
            "h1",
        ),
        "h1": _node(
            "h1", "x1", _said("assistant", _parts("COT hidden"), weight=0.0), "c1"
        ),
        "c1": _node(
            "c1",
            "h1",
            _said("assistant", _parts("COT aside"), channel="analysis"),
            "a1",
        ),
        "a1": _node(
            "a1",
            "c1",
            _said(
                "assistant",
                _parts("4", None, {"content_type": "image_asset_pointer"}),
                metadata={"model_slug": "o3"},
                channel="final",
            ),
            "u2",
        ),
        "u2": _node(
            "u2",
            "a1",
            _said("user", {"content_type": "multimodal_text", "parts": ["3+3?"]}),
            "r2",
        ),
        "r2": _node(
            "r2",
            "u2",
            _said("assistant", {"content_type": "reasoning_recap", "text": "COT 1s"}),
            "a2",
        ),
        "a2": _node("a2", "r2", _said("assistant", _parts("6"), create_time=0)),
    },
}

CLAUDE = {
    "uuid": "c",
    "name": "sums",
    "created_at": "2026-01-01T00:00:00.000000Z",
    "account": {"uuid": "private"},
    "chat_messages": [
        {"uuid": "1", "sender": "human", "text": "2+2?", "content": []},
        None,
        {
            "uuid": "2",
            "sender": "assistant",
            "text": "COT repeated 4",
            "created_at": "2026-01-01T01:00:00+01:00",
            "content": [
                {"type": "thinking", "thinking": "Two and two, COT", "summaries": []},
                {"type": "tool_use", "name": "search", "input": {"q": "COT"}},
                {"type": "tool_result", "content": [{"type": "text", "text": "COT"}]},
                {"type": "token_budget"},
                {"type": "text", "text": "4"},
            ],
        },
        {"uuid": "3", "sender": "human", "text": "3+3?"},
        {
            "uuid": "4",
            "sender": "assistant",
            "content": [
                {
                    "type": "thinking",
                    "thinking": "",
                    "summaries": [{"summary": "Summed COT"}],
                    "cut_off": True,
                },
                {"type": "text", "text": "6"},
            ],
        },
        {"uuid": "5", "sender": "human", "text": "unanswered"},
    ],
}

GEMINI_DETAILS = {
    "header": "Gemini",
    "title": "Used Gemini Apps",
    "titleUrl": "https://gemini.google.com/app/c/1",
    "time": "2026-01-01T00:00:00.123Z",
    "products": ["Gemini Apps"],
    "details": [
        {"name": "Request", "value": "2+2?"},
        {"name": "Response", "value": "It is 4 and then ..."},
    ],
}
GEMINI_INTERACTIONS = {
    "header": "Gemini",
    "title": "Used Gemini Apps",
    "titleUrl": "https://gemini.google.com/app/c/1",
    "time": "2026-01-01T00:00:01Z",
    "products": ["Gemini Apps"],
    "userInteractions": [
        {
            "userInteraction": {
                "request": json.dumps([{"text": "3+3?"}]),
                "response": json.dumps([{"content": {"parts": [{"text": "6"}]}}]),
            }
        },
        {"request": "5+5?", "response": "[not json"},
    ],
}
GEMINI_HTML = {
    "header": "Gemini Apps",
    "title": "Prompted 4+4?",
    "time": "2026-01-01T00:00:02Z",
    "products": ["Gemini Apps"],
    "safeHtmlItem": [{"html": "<p>It is <b>8</b> &amp; more</p><script>COT</script>"}],
}

GROK = {
    "projects": [{"name": "none"}],
    "conversations": [
        {
            "conversation": {"id": "g", "create_time": "2026-01-01T00:00:00Z"},
            "responses": [
                {"response": {"_id": "1", "sender": "human", "message": "2+2?"}},
                {
                    "response": {
                        "_id": "off",
                        "sender": "assistant",
                        "message": "other branch",
                        "parent_response_id": "1",
                    }
                },
                {
                    "response": {
                        "_id": "2",
                        "sender": "ASSISTANT",
                        "message": "4",
                        "parent_response_id": "1",
                        "model": "grok-4",
                        "thinking_trace": "Two and two, COT",
                        "agent_thinking_traces": [{"thinking_trace": "Agent COT"}],
                        "create_time": {"$date": {"$numberLong": "1767225600500"}},
                    },
                    "share_link": None,
                },
                {"response": {"_id": "3", "sender": "human", "message": "3+3?"}},
                {"response": {"_id": "4", "sender": "grok-3", "message": "6"}},
                {"response": None},
            ],
        }
    ],
}

SHAREGPT = {
    "conversations": [
        {"from": "system", "value": "rules"},
        {"from": "human", "value": "2+2?"},
        {"from": "gpt", "value": "<think>\nTwo, COT\n</think>\n\n4"},
        {"from": "human", "value": "3+3?"},
        {"from": "gpt", "value": "never opened COT</think>6"},
        {"from": "human", "value": "5+5?"},
        {"from": "gpt", "value": "<think>never closed COT. The answer is 10"},
    ]
}

MESSAGES = {
    "model": "r1",
    "messages": [
        {"role": "system", "content": "rules"},
        {"role": "user", "content": [{"type": "text", "text": "2+2?"}]},
        {"role": "assistant", "content": "4", "reasoning_content": "Two, COT"},
        None,
        {"role": "user", "content": "3+3?"},
        {"role": "assistant", "content": None, "tool_calls": [{"name": "COT"}]},
        {"role": "tool", "content": "COT result"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Three, COT"},
                {"type": "text", "text": "6"},
            ],
        },
    ],
}

ALPACA = [
    {"instruction": "Add.", "input": "2 and 2", "output": "COT. The answer is 4."},
    {"instruction": "3+3?", "input": "", "output": "6"},
    {"instruction": "4+4?", "output": "<THINKING>COT</THINKING> 8"},
    {"instruction": "5+5?", "output": "The answer is 10 because five and five."},
]

OPENR1 = {
    "problem": "2+2?",
    "answer": "4",
    "generations": [
        "<think>COT</think>4",
        "<think>COT</think>5",
        "<think>COT",
        "<think>x",
    ],
    "is_reasoning_complete": [True, True, True, False],
    "correctness_math_verify": [True, False, False],
    "correctness_llama": None,
    "messages": [{"role": "user", "content": "2+2?"}],
}


def _pam(name: str, role: str, text: str, parent: str | None, **more: Any) -> Any:
    return {
        "id": name,
        "role": role,
        "content": {"type": "text", "text": text},
        "created_at": "2026-01-01T00:00:00Z",
        "parent_id": parent,
        **more,
    }


PAM = {
    "schema": "portable-ai-memory-conversation",
    "schema_version": "1.0",
    "id": "p",
    "provider": {"name": "claude"},
    "temporal": {"created_at": "2026-01-01T00:00:00Z"},
    "model": "opus",
    "messages": [
        _pam("1", "user", "2+2?", None),
        _pam("off", "assistant", "other branch", "1"),
        _pam("2", "assistant", "Two, COT", "1", is_thought=True),
        _pam("3", "assistant", "4", "2", model="sonnet"),
    ],
}

COPILOT_HISTORY = (
    "Conversation,Time,Author,Message\r\n"
    'sums,2026-01-01T00:00:03,AI,"six,\n""or so"""\r\n'
    "sums,2026-01-01T00:00:02,user,3+3?\r\n"
    "sums,2026-01-01T00:00:01,AI,4\r\n"
    "sums,2026-01-01T00:00:00,user,2+2?\r\n"
)
COPILOT_CHAT = (
    "CreatedAt,MessageContent,Author,ChatName\r\n"
    "1/1/2026 1:00:00 +01:00,2+2?,user,sums\r\n"
    "1/1/2026 1:00:01 +01:00,4,Copilot,sums\r\n"
)

_ARRAYS = {
    "chatgpt": [CHATGPT],
    "claude": [CLAUDE],
    "gemini": [GEMINI_DETAILS, GEMINI_INTERACTIONS, GEMINI_HTML],
    "grok": GROK,
    "sharegpt": [SHAREGPT],
    "alpaca": ALPACA,
    "openr1": [OPENR1],
    "pam": PAM,
}


def exports() -> dict[str, tuple[str, bytes]]:
    """Return a file name and the bytes of an export for every format."""
    found = {
        name: (f"{name}.json", json.dumps(content).encode())
        for name, content in copy.deepcopy(_ARRAYS).items()
    }
    found["messages"] = ("messages.jsonl", json.dumps(MESSAGES).encode() + b"\n")
    found["copilot"] = ("copilot.csv", COPILOT_HISTORY.encode())
    return found
