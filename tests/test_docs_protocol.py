"""docs/protocol.md says what the code does: its examples are valid, its tables and lists are complete."""

import json
import re
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest

from atto.broker import refusals
from atto.protocol import codec
from atto.protocol.events import AnyEvent, UnknownEvent
from atto.protocol.ids import MAX_ID_BYTES, decode_session, encode_session
from atto.protocol.merge import Merger
from atto.protocol.subjects import Subjects
from atto.protocol.turns import SCHEMA_VERSION
from atto_client import listener, submission
from atto_workers.topology import BACKLOG, DUPLICATE_WINDOW, EVENTS_MAX_AGE
from tests.producers import histories

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "protocol.md").read_text()
BLOCKS = [
    (kind.replace(".", ""), text)
    for kind, text in re.findall(r"^``` \{\.json ([^\n]*)\}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
]
DECODERS = {"turn": codec.decode_turn, "event-batch": codec.decode_batch, "cancel": codec.decode_cancel}
MERGE = "event-batch merge"


def examples(kind: str) -> list[str]:
    """The JSON documents of a kind; a block of batches to merge has one a line."""
    blocks = [text for label, text in BLOCKS if label == kind]
    return [line for block in blocks for line in block.splitlines()] if kind == MERGE else blocks


def valid(schema: str, document: Any) -> None:
    jsonschema.validate(document, json.loads((DOCS / "schemas" / f"{schema}.json").read_text()))


def test_every_example_is_of_a_kind_that_is_checked():
    assert {label for label, _ in BLOCKS} == {*DECODERS, "snapshot-page", "reply", "request", MERGE}


@pytest.mark.parametrize("kind", [*DECODERS, "snapshot-page", MERGE])
def test_examples_fit_their_schema_and_are_understood(kind: str):
    schema = kind.split(maxsplit=1)[0]
    assert examples(kind)
    for text in examples(kind):
        valid(schema, json.loads(text))
        if schema in DECODERS:
            DECODERS[schema](text.encode())


def test_every_type_of_event_has_an_example_and_a_row():
    types = {kind.__struct_config__.tag for kind in get_args(AnyEvent) if kind is not UnknownEvent}
    batches = [json.loads(text) for text in examples("event-batch")]
    assert {event["type"] for batch in batches for event in batch["events"]} == types
    assert types <= set(re.findall(r"`(\w+)`", PAGE))


def test_the_worked_example_is_merged_as_it_says():
    [expected] = re.findall(r"^``` \{\.text \.handed-out\}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    merger = Merger()
    due = [merger.add(codec.decode_batch(text.encode())) for text in examples(MERGE)]
    assert merger.has_gap
    due.append(merger.skip())
    handed_out = [" ".join(str(event.seq) for event in events) or "-" for events in due]
    assert handed_out == expected.splitlines()
    assert not merger.must_reread
    assert not merger.has_gap


def test_the_golden_file_is_as_long_as_it_says():
    begun = histories.GOLDEN.read_text().count('{"begin":true}')
    assert f"holds {begun} more runs" in PAGE


def test_the_codes_of_the_broker_are_those_of_the_code():
    [listed] = re.findall(r"^\| an error ([\d, or]+) \| not now", PAGE, re.MULTILINE)
    assert set(map(int, re.findall(r"\d+", listed))) == refusals._NOT_NOW


def test_ids_are_encoded_as_the_table_says():
    rows = re.findall(r"^\| `([^`|]+)` \| `([\w=-]+)` \|$", PAGE, re.MULTILINE)
    assert len(rows) >= 5
    for session, token in rows:
        assert encode_session(session) == token
        assert decode_session(token) == session


def test_subjects_are_those_of_the_code():
    subjects = Subjects("<ns>".strip("<>"))
    listed = {
        subject.replace("<ns>", "ns") for subject in re.findall(r"^\| `(<ns>[^`]+)`", PAGE, re.MULTILINE)
    }
    assert {re.sub(r"<\w+>", "*", subject) for subject in listed} == {
        subjects.turns,
        subjects.answers,
        subjects.events,
        subjects.fences,
        subjects.cancels,
        subjects.snapshots,
        subjects.dead_letters,
    }


def test_numbers_are_those_of_the_code():
    assert f"for {listener.GAP_PATIENCE} s" in PAGE
    assert listener.SILENCE_PATIENCE == (1.0, 2.0, 5.0, 10.0)
    assert "for 1 s, then 2, 5, and every 10 s" in PAGE
    assert f"lasts for {listener.GAP_LIMIT:g} s" in PAGE
    assert f"{BACKLOG} by default" in PAGE
    assert DUPLICATE_WINDOW == 120
    assert "within two minutes" in PAGE
    assert f"has lasted for {listener.GAP_EXPIRED:g} s" in PAGE
    assert listener.GAP_DOUBT == 1.0
    assert f"Wait {submission.OFFER_PATIENCE:g} s for each reply" in PAGE
    assert f"a pause of {submission.RETRY_PAUSE} s" in PAGE
    assert f"{MAX_ID_BYTES} bytes" in PAGE
    assert f"it is {SCHEMA_VERSION}, and may be left out" in PAGE
    assert f"for {EVENTS_MAX_AGE // 3600} hours" in PAGE


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!http|#)([^#)]+)", PAGE))))
def test_links_lead_somewhere(link: str):
    assert (DOCS / link).exists()


@pytest.mark.parametrize("anchor", sorted(set(re.findall(r"\]\(#([^)]*)\)", PAGE))))
def test_anchors_name_a_heading(anchor: str):
    headings = re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    assert anchor in [heading.lower().replace(" ", "-") for heading in headings]
