package sftp

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/kevinburke/ssh_config"
)

// settings are what is known of a host: options on the command line go first,
// then the user's configuration, then the system's, as with ssh itself.
type settings struct {
	alias string // the host as it was given
	home  string
	given map[string][]string // lower-case keyword -> values, from the options
	files []*ssh_config.Config
}

// newSettings reads the options and the configuration files.
func newSettings(alias string, o Options) (*settings, error) {
	s := &settings{alias: alias, home: o.Getenv("HOME"), given: map[string][]string{}}
	if s.home == "" {
		s.home, _ = os.UserHomeDir()
	}
	config, err := s.parseOptions(o.SSHOptions)
	if err != nil {
		return nil, err
	}
	files := []string{filepath.Join(s.home, ".ssh", "config"), "/etc/ssh/ssh_config"}
	if config != "" {
		files = []string{s.expand(config)}
	}
	for _, f := range files {
		if strings.EqualFold(f, "none") {
			continue
		}
		c, err := readConfig(f)
		if errors.Is(err, fs.ErrNotExist) && config == "" {
			continue
		}
		if err != nil {
			return nil, err
		}
		s.files = append(s.files, c)
	}
	return s, nil
}

func readConfig(file string) (*ssh_config.Config, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("ssh configuration: %w", err)
	}
	c, err := ssh_config.DecodeBytes([]byte(withoutMatch(string(data))))
	if err != nil {
		return nil, fmt.Errorf("ssh configuration %s: %w", file, err)
	}
	return c, nil
}

// withoutMatch leaves out the blocks whose conditions cannot be tested here,
// rather than refusing the whole file: all but "Match all" and "Match host".
func withoutMatch(text string) string {
	var out []string
	skip := false
	for _, line := range strings.Split(text, "\n") {
		f := strings.Fields(strings.Replace(line, "=", " ", 1))
		if len(f) > 0 && (strings.EqualFold(f[0], "match") || strings.EqualFold(f[0], "host")) {
			skip = strings.EqualFold(f[0], "match") && !(len(f) == 2 && strings.EqualFold(f[1], "all") || len(f) == 3 && strings.EqualFold(f[1], "host"))
		}
		if !skip {
			out = append(out, line)
		}
	}
	return strings.Join(out, "\n")
}

// flags of ssh and sftp that have a value, and the keyword each stands for;
// "" for those of no meaning here.
var flags = map[byte]string{'i': "identityfile", 'p': "port", 'P': "port", 'l': "user", 'J': "proxyjump", 'c': "", 'm': "", 'b': "", 'B': "", 'R': "", 'X': "", 'D': "", 's': "", 'S': "", 'L': "", 'e': "", 'E': "", 'I': "", 'W': "", 'w': "", 'Q': ""}

// parseOptions reads options in the form of the command lines of ssh and sftp,
// and returns the name of a configuration file if there is one. Keywords that
// are not known here are taken and not used.
func (s *settings) parseOptions(text string) (config string, err error) {
	words, err := split(text)
	if err != nil {
		return "", err
	}
	for len(words) > 0 {
		w := words[0]
		words = words[1:]
		if len(w) < 2 || w[0] != '-' {
			return "", fmt.Errorf("ssh options: %q is not an option", w)
		}
		key, known := flags[w[1]]
		if !known && w[1] != 'o' && w[1] != 'F' {
			continue // one without a value, such as -C or -v
		}
		value := w[2:]
		if value == "" {
			if len(words) == 0 {
				return "", fmt.Errorf("ssh options: %s has no value", w)
			}
			value, words = words[0], words[1:]
		}
		switch w[1] {
		case 'F':
			config = value
			continue
		case 'o':
			if key, value, err = keyword(value); err != nil {
				return "", err
			}
		}
		if key != "" {
			s.given[key] = append(s.given[key], value)
		}
	}
	return config, nil
}

// jumpedOver takes away what was said on the command line about the target
// itself: it is not so for the hosts before it.
func (s *settings) jumpedOver() {
	for _, k := range []string{"hostname", "hostkeyalias", "port", "user", "proxyjump", "proxycommand"} {
		delete(s.given, k)
	}
}

// keyword takes "Key=value" or "Key value" apart.
func keyword(s string) (key, value string, err error) {
	i := strings.IndexAny(s, "= \t")
	if i <= 0 {
		return "", "", fmt.Errorf("ssh options: -o%s has no value", s)
	}
	value = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(s[i:]), "="))
	return strings.ToLower(s[:i]), strings.Trim(value, `"`), nil
}

// split cuts a line into words as a shell does, with quotes and backslashes.
func split(s string) (words []string, err error) {
	var b strings.Builder
	quote, in := byte(0), false
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case quote == 0 && (c == ' ' || c == '\t' || c == '\n'):
			if in {
				words = append(words, b.String())
				b.Reset()
			}
			in = false
			continue
		case quote == 0 && (c == '\'' || c == '"'):
			quote = c
		case c == quote:
			quote = 0
		case c == '\\' && quote != '\'' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		default:
			b.WriteByte(c)
		}
		in = true
	}
	if quote != 0 {
		return nil, errors.New("ssh options: a quote is not closed")
	}
	if in {
		words = append(words, b.String())
	}
	return words, nil
}

// get returns the first value of a keyword, "" if there is none.
func (s *settings) get(key string) string {
	if v := s.given[strings.ToLower(key)]; len(v) > 0 {
		return v[0]
	}
	for _, c := range s.files {
		if v, err := c.Get(s.alias, key); err == nil && v != "" {
			return v
		}
	}
	return ""
}

// all returns all values of a keyword that accumulates.
func (s *settings) all(key string) []string {
	v := s.given[strings.ToLower(key)]
	for _, c := range s.files {
		if more, err := c.GetAll(s.alias, key); err == nil {
			v = append(v[:len(v):len(v)], more...)
		}
	}
	return v
}

func (s *settings) yes(key string) bool { return strings.EqualFold(s.get(key), "yes") }

// expand puts the home directory in for ~ and %d.
func (s *settings) expand(path string) string {
	path = strings.ReplaceAll(path, "%d", s.home)
	if path == "~" || strings.HasPrefix(path, "~/") {
		return filepath.Join(s.home, path[1:])
	}
	return path
}

// target is where to connect: host name, port and user after all is known.
type target struct{ host, port, user string }

func (t target) addr() string { return net.JoinHostPort(t.host, t.port) }

// target resolves the host as it was given, with the user and port of the
// URL, which go first.
func (s *settings) target(user, port string, getenv func(string) string) target {
	or := func(list ...string) string {
		for _, v := range list {
			if v != "" {
				return v
			}
		}
		return ""
	}
	return target{
		host: or(strings.ReplaceAll(s.get("HostName"), "%h", s.alias), s.alias),
		port: or(port, s.get("Port"), "22"),
		user: or(user, s.get("User"), getenv("LOGNAME"), getenv("USER"), "root"),
	}
}

// tokens replaces what ssh does in the values of ProxyCommand.
func (t target) tokens(s string) string {
	return strings.NewReplacer("%h", t.host, "%p", t.port, "%r", t.user, "%n", t.host, "%%", "%").Replace(s)
}
