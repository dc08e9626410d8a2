package manager_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"

	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// A ClusterVersion may name any of these versions: their programs know every flag, controller and admission plugin in what
// is rendered. The files are kept equal to what is rendered by a test of theirs.
func TestRenderedFlagsAreKnown(t *testing.T) {
	t.Parallel()
	root, err := worlds.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"", "1.34", "1.35", "1.37"} {
		for _, program := range []string{"kube-apiserver", "kube-controller-manager"} {
			t.Run(version+"/"+program, func(t *testing.T) {
				binary, err := worlds.Binary(version, program)
				if err != nil {
					t.Fatal(err)
				}
				help, err := exec.CommandContext(t.Context(), binary, "--help").Output()
				if err != nil {
					t.Fatal(err)
				}
				args := rendered(t, filepath.Join(root, "controllers", "provision", "dedicated", "testdata", program+".yaml"))
				for _, problem := range unknownTo(string(help), args) {
					t.Error(problem)
				}
				if got := unknownTo(string(help), append(slices.Clone(args), "--flag-of-tomorrow=true", "--controllers=*,-of-tomorrow")); len(got) < 2 {
					t.Errorf("the test does not see what is unknown: %v", got)
				}
			})
		}
	}
}

// rendered returns the arguments of the only container of a StatefulSet.
func rendered(t *testing.T, file string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var set appsv1.StatefulSet
	if err := yaml.Unmarshal(text, &set); err != nil {
		t.Fatal(err)
	}
	containers := set.Spec.Template.Spec.Containers
	if len(containers) != 1 || len(containers[0].Args) < 10 {
		t.Fatalf("%s has containers %v", file, containers)
	}
	return containers[0].Args
}

// unknownTo returns what a program does not list in its help: flags, and names in lists of controllers and plugins.
func unknownTo(help string, args []string) []string {
	var unknown []string
	for _, arg := range args {
		flag, value, _ := strings.Cut(arg, "=")
		about := regexp.MustCompile(`(?m)^\s+` + regexp.QuoteMeta(flag) + `\s.*(\n\s+[^-\s].*)*`).FindString(help)
		if about == "" {
			unknown = append(unknown, "flag "+flag)
		}
		if flag != "--controllers" && flag != "--disable-admission-plugins" {
			continue
		}
		for _, name := range strings.Split(value, ",") {
			if name = strings.TrimPrefix(name, "-"); name != "*" && !regexp.MustCompile(`\b`+regexp.QuoteMeta(name)+`\b`).MatchString(about) {
				unknown = append(unknown, flag+" "+name)
			}
		}
	}
	return unknown
}
