package main

import (
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestJournal(t *testing.T) {
	p := key{kindPod, "shop", "p"}
	shop := key{kindNamespace, "", "shop"}
	at := func(revision int, uid string) []object {
		return []object{{Key: p, UID: uid, Content: map[string]string{owner: "a", revisionKey: strconv.Itoa(revision)}}}
	}
	made := func(j *journal) { j.told(p, 1, "u") }
	gone := func(j *journal) { j.told(p, 0, "") }
	for name, tc := range map[string]struct {
		told []func(*journal)
		have []object
		want []string
	}{
		"AsTold":           {[]func(*journal){made}, at(1, "u"), nil},
		"Vanished":         {[]func(*journal){made}, nil, []string{vanished}},
		"MadeAnew":         {[]func(*journal){made}, at(1, "other"), []string{changed}},
		"AnotherRevision":  {[]func(*journal){made}, at(2, "u"), []string{changed}},
		"Gone":             {[]func(*journal){made, gone}, nil, nil},
		"Returned":         {[]func(*journal){made, gone}, at(1, "u"), []string{returned}},
		"NeverMade":        {nil, at(1, "u"), []string{returned}},
		"UpdatedPerhaps":   {[]func(*journal){made, func(j *journal) { j.doubt(p, 2) }}, at(2, "u"), nil},
		"NotUpdated":       {[]func(*journal){made, func(j *journal) { j.doubt(p, 2) }}, at(1, "u"), nil},
		"NeitherOfBoth":    {[]func(*journal){made, func(j *journal) { j.doubt(p, 2) }}, nil, []string{vanished}},
		"DeletedPerhaps":   {[]func(*journal){made, func(j *journal) { j.doubt(p, 0) }}, nil, nil},
		"MadePerhaps":      {[]func(*journal){func(j *journal) { j.doubt(p, 1) }}, at(1, "u"), nil},
		"NotMade":          {[]func(*journal){func(j *journal) { j.doubt(p, 1) }}, nil, nil},
		"NamespaceGone":    {[]func(*journal){made, func(j *journal) { j.told(shop, 0, "") }}, at(1, "u"), []string{returned}},
		"NamespacePerhaps": {[]func(*journal){made, func(j *journal) { j.doubt(shop, 0) }}, nil, nil},
		"OfNobody":         {nil, []object{{Key: p, UID: "u"}}, nil},
		"WentBack":         {[]func(*journal){func(j *journal) { before := j.save(); made(j); j.load(before) }}, nil, nil},
		"EndedPodCameBack": {[]func(*journal){made, func(j *journal) { before := j.save(); gone(j); j.load(before) }}, at(1, "u"), nil},
		"EndedPodIsEnded":  {[]func(*journal){made, func(j *journal) { before := j.save(); gone(j); j.load(before) }}, nil, nil},
		"RunningPodStays":  {[]func(*journal){made, func(j *journal) { j.load(j.save()) }}, nil, []string{vanished}},
		"WentBackAndStays": {[]func(*journal){func(j *journal) { before := j.save(); made(j); j.load(before) }}, at(1, "u"), []string{returned}},
	} {
		t.Run(name, func(t *testing.T) {
			j := newJournal()
			for _, f := range tc.told {
				f(j)
			}
			var got []string
			for _, f := range j.judge("a", tc.have) {
				got = append(got, f.What)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("findings: %s", diff)
			}
		})
	}
}

func TestOnlyWhatIsCertainIsTouched(t *testing.T) {
	j := newJournal()
	for _, name := range []string{"b", "a", "c", "d"} {
		j.told(key{kindPod, "shop", name}, 1, "u")
	}
	j.doubt(key{kindPod, "shop", "c"}, 0)
	j.told(key{kindPod, "shop", "d"}, 0, "")
	want := []key{{kindPod, "shop", "a"}, {kindPod, "shop", "b"}}
	if diff := cmp.Diff(want, j.existing(kindPod, "shop")); diff != "" {
		t.Error(diff)
	}
}
