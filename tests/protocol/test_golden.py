"""What earlier releases wrote, this one reads, to the last field; and what it writes, they could read.

The files are never edited: a change of the format that they do not survive needs a new schema version.
"""

from pathlib import Path

import msgspec
import pytest

from atto.protocol import codec
from atto.protocol.events import EventBatch
from atto.protocol.sessions import SnapshotPage
from atto.protocol.turns import Cancel, Turn

GOLDEN = Path(__file__).parent / "golden"
KINDS = {"turn": Turn, "cancel": Cancel, "event_batch": EventBatch, "snapshot_page": SnapshotPage}
LINES = [
    pytest.param(KINDS[path.name.partition(".")[0]], line, id=f"{path.stem}-{number}")
    for path in sorted(GOLDEN.glob("*.v2.jsonl"))
    for number, line in enumerate(path.read_bytes().splitlines(), 1)
]


def test_every_kind_of_message_has_its_examples():
    assert {path.name for path in GOLDEN.iterdir()} == {f"{kind}.v2.jsonl" for kind in KINDS}
    types = {
        event["type"]
        for line in (GOLDEN / "event_batch.v2.jsonl").read_bytes().splitlines()
        for event in msgspec.json.decode(line)["events"]
    }
    assert types >= codec._EVENT_TYPES - {"unknown"}


@pytest.mark.parametrize(("kind", "line"), LINES)
def test_what_was_written_is_read_and_written_again_as_it_was(kind, line):
    value = msgspec.json.decode(line, type=kind)
    assert msgspec.json.decode(codec.encode(value)) == msgspec.json.decode(line)


@pytest.mark.parametrize(("kind", "line"), LINES)
def test_a_newer_release_may_add_fields(kind, line):
    newer = msgspec.json.decode(line) | {"added_later": {"any": "thing"}}
    assert msgspec.json.decode(msgspec.json.encode(newer), type=kind) == msgspec.json.decode(line, type=kind)
