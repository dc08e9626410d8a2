package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// root is the folder of the repository, seen from this package.
const root = "../.."

var (
	heading = regexp.MustCompile(`^#{1,6} +(.+?) *#*$`)
	link    = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	// inline is what GitHub shows of a link in a heading, and code is what it shows as typed.
	inline = regexp.MustCompile(`\[([^\]]*)\]\([^()]*\)`)
	code   = regexp.MustCompile("`[^`]*`")
	// dropped are the characters of a heading that its anchor lacks.
	dropped = regexp.MustCompile(`[^\p{L}\p{N}_\- ]`)
)

// TestLinksResolve follows every relative link in every page of the repository, with its anchor.
func TestLinksResolve(t *testing.T) {
	pages := pages(t)
	for page, content := range pages {
		for _, target := range links(content) {
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			path, anchor, _ := strings.Cut(target, "#")
			file := page
			if path != "" {
				file = filepath.Join(filepath.Dir(page), path)
			}
			if _, err := os.Stat(filepath.Join(root, file)); err != nil {
				t.Errorf("%s: the link %s leads to no file", page, target)
				continue
			}
			if anchor != "" && !anchors(pages[file])[anchor] {
				t.Errorf("%s: the link %s leads to no heading", page, target)
			}
		}
	}
}

// TestReadmeLinksEveryPage finds pages that nobody can find.
func TestReadmeLinksEveryPage(t *testing.T) {
	pages := pages(t)
	linked := map[string]bool{}
	for _, target := range links(pages["README.md"]) {
		linked[target] = true
	}
	for page := range pages {
		if filepath.Dir(page) == "docs" && !linked[page] {
			t.Errorf("README.md does not link %s", page)
		}
	}
}

func TestAnchors(t *testing.T) {
	got := anchors("# A `b.c` & d?\n## Same\n## Same\n```\n# no heading\n```\n### See [this page](x.md)\n")
	for _, want := range []string{"a-bc--d", "same", "same-1", "see-this-page"} {
		if !got[want] {
			t.Errorf("no anchor %s in %v", want, got)
		}
	}
	if len(got) != 4 {
		t.Errorf("anchors %v", got)
	}
}

// pages returns the Markdown files of the repository by their path. Folders of builds and of Git have none of ours.
func pages(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := fs.WalkDir(os.DirFS(root), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (entry.Name() == "_local" || entry.Name() == ".git") {
			return fs.SkipDir
		}
		if filepath.Ext(path) != ".md" {
			return nil
		}
		content, err := os.ReadFile(filepath.Join(root, path))
		found[path] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// links returns the targets of the links in a page, except those in code.
func links(page string) []string {
	var targets []string
	for _, line := range prose(page) {
		for _, match := range link.FindAllStringSubmatch(code.ReplaceAllString(line, "code"), -1) {
			targets = append(targets, match[1])
		}
	}
	return targets
}

// anchors returns the anchors that GitHub gives to the headings of a page.
func anchors(page string) map[string]bool {
	result := map[string]bool{}
	for _, line := range prose(page) {
		match := heading.FindStringSubmatch(line)
		if match == nil {
			continue
		}
		text := inline.ReplaceAllString(match[1], "$1")
		base := strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(text), ""), " ", "-")
		anchor := base
		for n := 1; result[anchor]; n++ {
			anchor = base + "-" + strconv.Itoa(n)
		}
		result[anchor] = true
	}
	return result
}

// prose returns the lines of a page that are not in fenced code.
func prose(page string) []string {
	var lines []string
	fenced := false
	for line := range strings.Lines(page) {
		line = strings.TrimRight(line, "\r\n")
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
		} else if !fenced {
			lines = append(lines, line)
		}
	}
	return lines
}
