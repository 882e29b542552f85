"""The execution of one turn: journal, agent loop, commit, terminal event, acknowledgement."""
