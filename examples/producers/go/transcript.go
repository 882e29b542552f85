package main

import (
	"strconv"
	"strings"
)

type call struct {
	path string
	step int
}

type piece struct {
	call
	seq   int
	text  string
	whole bool
}

type child struct {
	seq  int
	path string
}

// Transcript is the text that stands of a run, as its merged events come. The rules: docs/protocol.md, "The text
// that stands".
type Transcript struct {
	pieces   []piece // by number
	speaking []child // children that speak
}

// Add takes the next event.
func (t *Transcript) Add(event Event) {
	// A number that comes again voids what was said from it on.
	t.keep(func(seq int, _ string, _ int) bool { return seq < event.Seq })
	of := call{event.Path, event.Step}
	switch {
	case event.Type == "text_delta":
		t.pieces = append(t.pieces, piece{of, event.Seq, event.Text, false})
	case event.Type == "model_completed":
		t.pieces = append(t.pieces, piece{of, event.Seq, event.Message.text(), true})
	case event.Type == "agent_started" && event.Speaks:
		t.speaking = append(t.speaking, child{event.Seq, event.Path})
	case event.Type == "step_restarted":
		t.keep(func(_ int, path string, step int) bool { return !isVoided(path, step, of) })
	}
}

// Text is what the run's own agent says, and its children that speak.
func (t *Transcript) Text() string {
	speaks, whole := map[string]bool{"": true}, map[call]bool{}
	for _, child := range t.speaking {
		speaks[child.path] = true
	}
	for _, piece := range t.pieces {
		whole[piece.call] = whole[piece.call] || piece.whole
	}
	var text strings.Builder
	for _, piece := range t.pieces {
		if speaks[piece.path] && (piece.whole || !whole[piece.call]) {
			text.WriteString(piece.text)
		}
	}
	return text.String()
}

func (t *Transcript) keep(stands func(seq int, path string, step int) bool) {
	var pieces []piece
	for _, piece := range t.pieces {
		if stands(piece.seq, piece.path, piece.step) {
			pieces = append(pieces, piece)
		}
	}
	var speaking []child
	for _, child := range t.speaking {
		if stands(child.seq, child.path, 0) {
			speaking = append(speaking, child)
		}
	}
	t.pieces, t.speaking = pieces, speaking
}

// Whether a restart voids what was said: of that step and of later ones, and by the children that their tool calls
// asked.
func isVoided(path string, step int, restarted call) bool {
	if path == restarted.path {
		return step >= restarted.step
	}
	prefix := ""
	if restarted.path != "" {
		prefix = restarted.path + "/"
	}
	below, isBelow := strings.CutPrefix(path, prefix)
	digits, _, isAsked := strings.Cut(below, ":")
	asked, err := strconv.Atoi(digits)
	return isBelow && isAsked && err == nil && asked >= restarted.step
}
