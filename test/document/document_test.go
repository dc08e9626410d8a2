package document

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReplaceKeepsTheRestOfThePage(t *testing.T) {
	part := Part{Begin: "<!-- begin -->", End: "<!-- end -->"}
	got, err := part.replace("# Title\n<!-- begin -->\nold\n<!-- end -->\nrest\n", "new\n")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("# Title\n<!-- begin -->\nnew\n<!-- end -->\nrest\n", got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for _, page := range []string{"", part.Begin + "\n", part.End} {
		if _, err := part.replace(page, "new\n"); err == nil {
			t.Errorf("a part was put into %q", page)
		}
	}
}
