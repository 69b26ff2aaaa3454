package main

import (
	"os"
	"strings"
	"testing"

	"dupfs/internal/need"
)

// completionWorld has an archive called home of two points, and dupfs in PATH.
func completionWorld(t *testing.T) *world {
	w := newWorld(t)
	w.sh("mkdir -p bin src/letters/sub 'src/with space'; ln -s " + binary + " bin/dupfs; echo one > src/letters/landlord.odt; echo two > src/letters/tax.odt; echo three > 'src/with space/a file'; echo x > $'src/evil\\033'")
	w.configure("[home]\nurl = file://DIR/archive\nsource = DIR/src\n\n[holiday]\nurl = file://DIR/other\n")
	w.env[0] = "PATH=" + w.path("bin") + ":" + os.Getenv("PATH")
	w.dupfs("full", "--current-time", at(0), "home")
	w.dupfs("incremental", "--current-time", at(1), "home")
	w.dupfs("ls", "home")
	w.sh("mv archive away") // nothing is asked of it
	w.env = append(w.env, "TERM=dumb")
	return w
}

// candidates completes words, and returns the kind and the candidates.
func (w *world) candidates(env []string, words ...string) (kind, all string) {
	w.t.Helper()
	r := w.exec(env, binary, append([]string{completeVerb, "words"}, words...)...)
	if r.code != 0 || r.stderr != "" {
		w.t.Errorf("%q: exit %d %s", words, r.code, r.stderr)
	}
	kind, rest, _ := strings.Cut(r.stdout, "\n")
	var out []string
	for _, l := range strings.Split(strings.TrimSuffix(rest, "\n"), "\n") {
		word, _, _ := strings.Cut(l, "\t")
		out = append(out, word)
	}
	return kind, strings.Join(out, " ")
}

// Words are completed by what can stand in their place, without the archive.
func TestComplete(t *testing.T) {
	w := completionWorld(t)
	const points = "2023-11-15T22:13:20Z 2023-11-14T22:13:20Z"
	for line, want := range map[string]string{
		"yest":                               "words yesterday",
		"ls ho":                              "words home holiday",
		"ls home ":                           "words letters/ with space/",
		"ls home letters/":                   "words letters/landlord.odt letters/sub/ letters/tax.odt",
		"ls home letters/la":                 "words letters/landlord.odt",
		"cat -t 2023-11-15 home le":          "nospace letters/",
		"cat home letters/tax.odt letters/l": "words letters/landlord.odt",
		"ls --time ":                         "words ",
		"ls home --time ":                    "words " + points + " now",
		"ls home --time 2023-11-14":          "words 2023-11-14T22:13:20Z",
		"ls home --time=2023-11-14":          "words --time=2023-11-14T22:13:20Z",
		"diff home 2023-11-15":               "words 2023-11-15T22:13:20Z",
		"diff home now now le":               "nospace letters/",
		"restore home --path-to-restore le":  "nospace letters/",
		"restore home ":                      "dirs ",
		"mount home ":                        "dirs ",
		"ls --col":                           "words --color",
		"ls --color ":                        "words auto always never",
		"tar --output ":                      "files ",
		"yesterday ":                         "files ",
		"completion z":                       "words ",
		"ls file://" + w.path("sr"):          "nospace file://" + w.path("src") + "/",
		"ls nowhere ":                        "words ",
		"ls s3":                              "nospace s3://",
	} {
		kind, all := w.candidates(nil, strings.Split(line, " ")...)
		if got := kind + " " + all; got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
	env := []string{"DUPFS_URL=home"}
	if kind, all := w.candidates(env, "cat", "letters/t"); kind+all != "wordsletters/tax.odt" {
		t.Errorf("DUPFS_URL: %s %s", kind, all)
	}
	if _, all := w.candidates(env, "diff", "2023-11-14"); all != "2023-11-14T22:13:20Z" {
		t.Errorf("DUPFS_URL: %s", all)
	}
	if _, all := w.candidates(nil, ""); strings.Contains(all, "__") || !strings.Contains(all, "mount") {
		t.Errorf("commands: %s", all)
	}
}

// bash's own function completes, with words as bash splits them.
func TestBashCompletion(t *testing.T) {
	w := completionWorld(t)
	w.write("try.bash", `eval "$(dupfs completion bash)"
compopt() { :; }
try() { # line, words as bash has them
	COMP_LINE=$1 COMP_POINT=${#1}; shift
	COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
	_dupfs; printf '<%s>' "${COMPREPLY[@]}"; echo
}
try 'dupfs ls ho' dupfs ls ho
try 'dupfs ls home with' dupfs ls home with
try 'dupfs ls home with\ space/' dupfs ls home 'with\ space/'
try 'dupfs ls home "with space/' dupfs ls home '"with space/'
try 'dupfs ls home --time=2023-11-1' dupfs ls home --time = 2023-11-1
try 'dupfs ls home --time 2023-11-15T22:' dupfs ls home --time 2023-11-15T22 :
try 'dupfs ls home --time 2023-11-15T22:1' dupfs ls home --time 2023-11-15T22 : 1
`)
	want := strings.TrimLeft(`
<home><holiday>
<with\ space/>
<with\ space/a\ file>
<with space/a file>
<2023-11-15T22:13:20Z><2023-11-14T22:13:20Z>
<13:20Z>
<13:20Z>
`, "\n")
	if got := w.sh("bash --norc try.bash"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// A Tab at the prompt of each shell completes a path, and Enter runs it.
func TestTab(t *testing.T) {
	w := completionWorld(t)
	w.sh("mv away archive; mkdir fish; dupfs completion fish > fish/dupfs.fish")
	w.write("zdot/.zshrc", "autoload -U compinit; compinit -u -D; eval \"$(dupfs completion zsh)\"; PS1='> '; unsetopt zle_bracketed_paste\n")
	for shell, start := range map[string]string{
		"bash": "bash --norc --noprofile -i",
		"zsh":  "env ZDOTDIR=" + w.path("zdot") + " TERM=xterm zsh -i",
	} {
		need.Program(t, shell)
		setup := ""
		if shell == "bash" {
			setup = "eval \"$(dupfs completion bash)\"\n"
		}
		w.write("keys", setup+"dupfs cat home letters/tax\t > typed."+shell+"\nexit\n")
		r := w.exec(nil, "/bin/bash", "-c", "(sleep 1; while IFS= read -r l; do printf '%s\\n' \"$l\"; sleep 1; done < keys) | script -qec '"+start+"' /dev/null")
		if got, _ := os.ReadFile(w.path("typed." + shell)); string(got) != "two\n" {
			t.Errorf("%s: %q\n%s", shell, got, r.stdout)
		}
	}
	need.Program(t, "fish")
	out := w.sh("fish --no-config -c 'source fish/dupfs.fish; complete -C \"dupfs cat home letters/t\"'")
	if strings.TrimSpace(out) != "letters/tax.odt" {
		t.Errorf("fish: %q", out)
	}
}
