import re
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from atto.agents import Tool, ToolContext, tool
from atto.protocol.errors import InvalidTool, MissingExtra, ToolArgumentsInvalid

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "word": {"$ref": "#/$defs/word"},
        "limit": {"type": "integer", "minimum": 1},
    },
    "required": ["word"],
    "$defs": {"word": {"type": "string", "maxLength": 5}},
}


def look_up(word, limit=1):
    return f"{word}:{limit}"


def anything(**arguments):
    return ",".join(sorted(arguments))


def bind(made: Tool[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    return made._parameters.bind(arguments)


def test_the_model_sees_the_schema_as_the_author_wrote_it():
    schema = {**SCHEMA, "title": "Kept"}
    made = tool(schema=schema)(look_up)
    assert made.spec.parameters == schema
    schema["title"] = "Changed"
    assert made.spec.parameters["title"] == "Kept"


def test_arguments_are_checked_and_passed_as_they_came():
    made = tool(schema=SCHEMA)(look_up)
    assert bind(made, {"word": "tea", "limit": 2.0}) == {"word": "tea", "limit": 2.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "'word' is a required property - at `$`"),
        ({"word": "coffee"}, "'coffee' is too long - at `$.word`"),
        ({"word": "tea", "limit": "1"}, "'1' is not of type 'integer' - at `$.limit`"),
        ({"word": "tea", "other": 1}, "there is no argument `other`"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ToolArgumentsInvalid, match=re.escape(message)):
        bind(tool(schema=SCHEMA)(look_up), arguments)


def test_a_parameter_that_the_schema_does_not_require_but_the_function_does_is_missed():
    made = tool(schema={"type": "object", "properties": {"word": {}}})(look_up)
    with pytest.raises(ToolArgumentsInvalid, match="`word` is missing"):
        bind(made, {})


def test_keywords_take_what_has_no_parameter():
    made = tool(schema={"type": "object", "minProperties": 1})(anything)
    assert bind(made, {"a": 1, "b": 2}) == {"a": 1, "b": 2}
    with pytest.raises(ToolArgumentsInvalid, match="should be non-empty"):
        bind(made, {})


def test_no_model_can_pass_the_context():
    def with_context(context: ToolContext, **arguments: Any) -> None:
        pass

    with pytest.raises(ToolArgumentsInvalid, match="there is no argument `context`"):
        bind(tool(schema={"type": "object"})(with_context), {"context": 1})
    with pytest.raises(InvalidTool, match=r"does not take \(context\)"):
        tool(schema={"type": "object", "properties": {"context": {}}})(with_context)


def test_what_the_tool_does_to_its_arguments_stays_there():
    made = tool(schema={"type": "object"})(anything)
    arguments = {"words": ["a"]}
    bind(made, arguments)["words"].append("b")
    assert arguments == {"words": ["a"]}


@pytest.mark.parametrize(
    ("schema", "fragment"),
    [
        ({"type": "array"}, 'needs `"type": "object"`'),
        ({}, 'needs `"type": "object"`'),
        ({"type": "objekt"}, "its schema is not valid: 'objekt' is not valid under any"),
        ({"type": "object", "properties": {"word": {"pattern": "("}}}, "'(' is not a 'regex'"),
        ({"type": "object", "properties": {"word": {}, "other": {}}}, "does not take (other): add"),
    ],
)
def test_a_schema_that_cannot_work_is_refused(schema, fragment):
    with pytest.raises(InvalidTool, match=re.escape(fragment)) as caught:
        tool(schema=schema)(look_up)
    assert f"{__name__}.look_up" in str(caught.value)


class Server:
    """Counts the requests that reach it."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        requests = self.requests

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                requests.append(self.path)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *args: Any) -> None:
                pass

        self.http = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/word.json"


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.http.shutdown()
    thread.join()
    server.http.server_close()


REMOTE = "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize(
    "hidden",
    [
        {"properties": {"word": {"$ref": "URL"}}},
        {"properties": {"word": {"$dynamicRef": "URL#x"}}},
        {"properties": {"word": {"anyOf": [{"items": {"not": {"$ref": "URL"}}}]}}},
        {"$id": "http://127.0.0.1:1/", "properties": {"word": {"$ref": "word.json"}}},
        {"properties": {"word": {"$ref": REMOTE}}},
        {"properties": {"word": {"$ref": "#/$defs/none"}}},
    ],
)
def test_a_reference_out_of_the_schema_is_refused_and_never_fetched(server, hidden):
    schema = _with_url({"type": "object", **hidden}, server.url)
    with pytest.raises(InvalidTool, match=r"refers to .+, which is not in it: schemas are never fetched"):
        tool(schema=schema)(look_up)
    assert server.requests == []


@pytest.mark.parametrize("inner", [{}, {"properties": {"x": {}}}])
def test_a_reference_in_a_place_that_is_no_schema_by_itself_is_found_too(server, inner):
    away = {"$ref": server.url}
    schema = {
        "type": "object",
        "properties": {"word": {"$ref": "#/shared/word"}},
        "shared": {"word": {"properties": {"x": away}} if inner else away},
    }
    with pytest.raises(InvalidTool, match=r"refers to .+word.json"):
        tool(schema=schema)(look_up)
    assert server.requests == []


def test_a_property_may_be_called_like_a_reference():
    made = tool(schema={"type": "object", "properties": {"$ref": {"type": "string"}}})(anything)
    assert bind(made, {"$ref": "http://elsewhere"}) == {"$ref": "http://elsewhere"}


def test_references_to_embedded_resources_and_to_the_schema_itself_work():
    schema = {
        "$id": "https://example.com/root",
        "type": "object",
        "properties": {"word": {"$ref": "word"}, "limit": {"$ref": "#"}},
        "$defs": {"w": {"$id": "https://example.com/word", "type": "string"}},
    }
    made = tool(schema=schema)(look_up)
    assert bind(made, {"word": "x", "limit": {"word": "y"}})["word"] == "x"
    with pytest.raises(ToolArgumentsInvalid, match="1 is not of type 'string'"):
        bind(made, {"word": "x", "limit": {"word": 1}})


def _with_url(schema: Any, url: str) -> Any:
    if isinstance(schema, dict):
        return {key: _with_url(value, url) for key, value in schema.items()}
    if isinstance(schema, list):
        return [_with_url(each, url) for each in schema]
    return schema.replace("URL", url) if isinstance(schema, str) else schema


@pytest.mark.parametrize("module", ["jsonschema", "referencing"])
def test_a_missing_extra_is_named(monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=re.escape("pip install 'atto-agents[tools]'")):
        tool(schema=SCHEMA)(look_up)


def test_a_docstring_needs_the_extra_and_its_absence_does_not(monkeypatch):
    monkeypatch.setitem(sys.modules, "docstring_parser", None)

    def documented(word: str) -> None:
        """Looks up."""

    def bare(word: str) -> None:
        pass

    assert tool(bare).spec.description == ""
    assert tool(schema=SCHEMA, description="Given")(look_up).spec.description == "Given"
    with pytest.raises(MissingExtra, match=re.escape("pip install 'atto-agents[tools]'")):
        tool(documented)
