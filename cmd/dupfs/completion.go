package main

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

func completionCommand(e *environ) *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print the script by which SHELL (bash, zsh or fish) completes commands, options, times and paths",
		ArgsUsage: "SHELL",
		Description: `eval "$(dupfs completion bash)"                              in ~/.bashrc
dupfs completion zsh > ~/.zfunc/_dupfs                       a directory of fpath
dupfs completion fish > ~/.config/fish/completions/dupfs.fish
Times and paths come from the local catalog: no request, no question.`,
		Action: func(c *cli.Context) error {
			args, err := positionals(c, 1, 1, "bash|zsh|fish")
			if err != nil {
				return err
			}
			script, ok := map[string]string{"bash": bashScript, "zsh": zshScript, "fish": fishScript}[args[0]]
			if !ok {
				return usagef("completion: %q is not bash, zsh or fish", args[0])
			}
			_, err = fmt.Fprint(e.stdout, script)
			return err
		},
	}
}

const bashScript = `# bash completion of dupfs
_dupfs() {
	local out IFS=$'\n'
	out=$("${COMP_WORDS[0]}" __complete bash "$COMP_LINE" "$COMP_POINT" "${COMP_WORDS[COMP_CWORD]}" 2>/dev/null) || return
	COMPREPLY=()
	case ${out%%$'\n'*} in
	files) compopt -o filenames -o default; return ;;
	dirs) compopt -o filenames -o dirnames; return ;;
	nospace) compopt -o nospace ;;
	esac
	[[ $out == *$'\n'* ]] || return
	local line
	while read -r line; do
		COMPREPLY+=("$line")
	done <<<"${out#*$'\n'}"
	[[ ${#COMPREPLY[@]} != 1 || ${COMPREPLY[0]} != */ ]] || compopt -o nospace
}
complete -o nosort -F _dupfs dupfs 2>/dev/null || complete -F _dupfs dupfs
`

const zshScript = `#compdef dupfs
_dupfs() {
	local -a lines words_ notes
	local line kind
	lines=("${(@f)$("${words[1]}" __complete words "${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
	kind=$lines[1]
	shift lines
	case $kind in
	files) _files; return ;;
	dirs) _files -/; return ;;
	esac
	for line in "${lines[@]}"; do
		words_+=("${line%%$'\t'*}")
		notes+=("${line/$'\t'/  -- }")
	done
	(( $#words_ )) || return 1
	if [[ $kind == nospace ]]; then
		compadd -S '' -d notes -a words_
	else
		compadd -d notes -a words_
	fi
}
if [[ $funcstack[1] == _dupfs ]]; then
	_dupfs "$@"
else
	compdef _dupfs dupfs
fi
`

const fishScript = `# fish completion of dupfs
function __dupfs_complete
	set -l words (commandline -opc) (commandline -ct)
	set -l lines ($words[1] __complete words $words[2..-1] 2>/dev/null)
	switch "$lines[1]"
	case files
		__fish_complete_path (commandline -ct)
	case dirs
		__fish_complete_directories (commandline -ct)
	case '*'
		set -e lines[1]
		printf '%s\n' $lines
	end
end
complete -c dupfs -f -a '(__dupfs_complete)'
`
