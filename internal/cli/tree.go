package cli

import (
	"strings"
	"unicode/utf8"
)

// tree is text with branches.
type tree struct {
	text     string
	branches []*tree
}

// add adds a branch and returns it.
func (t *tree) add(text string) *tree {
	branch := &tree{text: text}
	t.branches = append(t.branches, branch)
	return branch
}

// table adds a branch for each row, with the columns aligned.
func (t *tree) table(rows [][]string) {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		line := strings.Builder{}
		for i, cell := range row {
			line.WriteString(cell + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
		}
		t.add(strings.TrimRight(line.String(), " "))
	}
}

// String draws the tree.
func (t *tree) String() string {
	out := &strings.Builder{}
	out.WriteString(t.text + "\n")
	t.draw(out, "")
	return out.String()
}

func (t *tree) draw(out *strings.Builder, indent string) {
	for i, branch := range t.branches {
		knot, deeper := "├── ", "│   "
		if i == len(t.branches)-1 {
			knot, deeper = "└── ", "    "
		}
		out.WriteString(indent + knot + branch.text + "\n")
		branch.draw(out, indent+deeper)
	}
}
