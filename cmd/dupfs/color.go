package main

import (
	"github.com/urfave/cli/v2"
)

// paint is the colour of a piece of output, as a terminal's SGR parameters.
type paint string

// The colours that listings use: those that ls and diff have by default.
const (
	plainPaint paint = ""
	dirPaint   paint = "1;34"
	linkPaint  paint = "1;36"
	nodePaint  paint = "1;33"
	execPaint  paint = "1;32"
	goodPaint  paint = "32"
	badPaint   paint = "31"
	midPaint   paint = "33"
	headPaint  paint = "1"
	hunkPaint  paint = "36"
	dimPaint   paint = "2"
)

func colorFlag() cli.Flag {
	return &cli.StringFlag{Name: "color", Value: "auto", Usage: "colours `WHEN`: auto (on a terminal, unless NO_COLOR is set), always or never"}
}

// painter returns what colours text, as --color says.
func (e *environ) painter(c *cli.Context) (func(paint, string) string, error) {
	on := false
	switch when := c.String("color"); when {
	case "always":
		on = true
	case "never":
	case "", "auto":
		on = e.screen && e.getenv("NO_COLOR") == "" && e.getenv("TERM") != "dumb"
	default:
		return nil, usagef("--color: %q is not auto, always or never", when)
	}
	return func(p paint, text string) string {
		if !on || p == plainPaint || text == "" {
			return text
		}
		return "\x1b[" + string(p) + "m" + text + "\x1b[0m"
	}, nil
}
