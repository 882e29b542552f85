"""How Gemini speaks, for the contract of models."""

import json

from atto.models.gemini import Gemini
from atto.protocol.messages import Usage
from atto.testing.model_dialect import Opaque, ReadCall, Reading, ReadTurn, Refusal

from .chat_server import sse
from .gemini_payloads import USAGE, called, ended, refusal, said, text

_REASONS = {"stop": "STOP", "tool_calls": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}


class GeminiDialect:
    """AI Studio."""

    usage = Usage(input_tokens=11, output_tokens=12, cache_read_tokens=4, reasoning_tokens=5)
    trailing = 0
    noise = b': ping\n\nevent: x\n\ndata:{"candidates": [], "novel": 1}\n\ndata: {}\n\n'

    def make_model(self, base_url, *, api_key, account=""):
        return Gemini("gemini-3-pro", api_key=api_key, base_url=base_url, account=account)

    def answer(self, said):
        parts = [text(piece, thought=True) for piece in said.reasoning]
        parts += [text(piece) for piece in said.text]
        # arguments come whole
        parts += [called(call.name, json.loads("".join(call.arguments)), id=call.id) for call in said.calls]
        return _stream(*parts, reason=_REASONS[said.finish])

    def opaque(self):
        parts = [
            text("hm", "signature-0", thought=True),
            text("One ", "signature-1"),
            {"executableCode": {"language": "PYTHON", "code": "1+1"}, "novel": [None, 0.5]},
            {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "2"}},
            called("weather", {"city": "Rome"}, "signature-2"),
            called("weather", {"city": "Oslo"}),
            text("", "signature-3"),
        ]
        # a call without a signature looks the same wherever it goes
        natives = [part for part in parts if part.keys() != {"functionCall"}]
        return Opaque(_stream(*parts, reason="STOP"), natives)

    def error_in_stream(self, message):
        return sse(refusal(503, "UNAVAILABLE", message))

    def refusal(self, status, message):
        return Refusal({}, refusal(status, "WORD", message))

    def reading(self, body):
        contents = body["contents"]
        followed = zip(contents, [*contents[1:], None], strict=True)
        return Reading(
            [_turn(content, following) for content, following in followed if _is_turn(content)],
            "".join(part["text"] for part in body.get("systemInstruction", {}).get("parts", ())),
            tuple(
                declared["name"]
                for tool in body.get("tools", ())
                for declared in tool["functionDeclarations"]
            ),
        )


class VertexDialect(GeminiDialect):
    """Vertex AI: the key is an access token."""

    def make_model(self, base_url, *, api_key, account=""):
        import google.auth.credentials

        class Credentials(google.auth.credentials.Credentials):
            def refresh(self, request):
                self.token = api_key

        return Gemini(
            "gemini-3-pro",
            project="acme",
            location="europe-west1",
            credentials=Credentials(),
            base_url=base_url,
            account=account,
        )


def _stream(*parts, reason):
    return [*(sse(said(part)) for part in parts), sse(ended(reason, usageMetadata=USAGE))]


def _is_turn(content):
    return not all(map(_is_result, content["parts"]))


def _turn(content, following):
    results = [part["functionResponse"] for part in (following or {"parts": ()})["parts"] if _is_result(part)]
    made = [part["functionCall"] for part in content["parts"] if "functionCall" in part]
    role = {"user": "user", "model": "assistant"}[content["role"]]
    spoken = "".join(part.get("text", "") for part in content["parts"] if not part.get("thought"))
    return ReadTurn(role, spoken, tuple(_call(call, at, results) for at, call in enumerate(made)))


def _is_result(part):
    return "functionResponse" in part


def _call(call, at, results):
    """The result of a call has its id; where it has none, its place."""
    by_id = [result for result in results if result.get("id") == call["id"]] if "id" in call else results[at:]
    assert all(result["name"] == call["name"] for result in by_id[:1])
    response = by_id[0]["response"] if by_id else {}
    return ReadCall(call["name"], call.get("args", {}), response.get("output", response.get("error")))
