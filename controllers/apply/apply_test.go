package apply

import "testing"

func TestContains(t *testing.T) {
	have := map[string]any{
		"replicas": int64(1),
		"labels":   map[string]any{"a": "1", "foreign": "x"},
		"ports":    []any{map[string]any{"port": int64(443), "nodePort": int64(30000)}},
	}
	cases := map[string]struct {
		want map[string]any
		ok   bool
	}{
		"Nothing":          {want: map[string]any{}, ok: true},
		"Same":             {want: have, ok: true},
		"OthersMayAdd":     {want: map[string]any{"labels": map[string]any{"a": "1"}}, ok: true},
		"DefaultsInLists":  {want: map[string]any{"ports": []any{map[string]any{"port": int64(443)}}}, ok: true},
		"EmptyDisappears":  {want: map[string]any{"emptyDir": map[string]any{}, "args": []any{}}, ok: true},
		"OtherValue":       {want: map[string]any{"replicas": int64(3)}},
		"MissingField":     {want: map[string]any{"labels": map[string]any{"b": "1"}}},
		"ListGrew":         {want: map[string]any{"ports": []any{map[string]any{"port": int64(443)}, map[string]any{"port": int64(80)}}}},
		"ListShrank":       {want: map[string]any{"ports": []any{}}},
		"ValueForMap":      {want: map[string]any{"replicas": map[string]any{"a": "1"}}},
		"DigestOfTheDelta": {want: map[string]any{"annotations": map[string]any{"digest": "x"}}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := contains(have, tc.want); got != tc.ok {
				t.Errorf("contains: got %v, want %v", got, tc.ok)
			}
		})
	}
}
