"""Values that travel: ids, subjects, messages, turns, events, errors, codec. No I/O."""
