package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"dupfs/chain"
	"dupfs/chain/backup"
)

// jsonStat is duplicity's statistics of a run in JSON, as its versions from 2.1 on
// store them beside the set.
type jsonStat struct {
	Filename         *string `json:"Filename"`
	StartTime        float64 `json:"StartTime"` // seconds since 1970
	EndTime          float64 `json:"EndTime"`
	ElapsedTime      float64 `json:"ElapsedTime"`
	Errors           int64   `json:"Errors"`
	DestinationSize  int64   `json:"TotalDestinationSizeChange"`
	SourceFiles      int64   `json:"SourceFiles"`
	SourceFileSize   int64   `json:"SourceFileSize"`
	NewFiles         int64   `json:"NewFiles"`
	NewFileSize      int64   `json:"NewFileSize"`
	DeletedFiles     int64   `json:"DeletedFiles"`
	ChangedFiles     int64   `json:"ChangedFiles"`
	ChangedFileSize  int64   `json:"ChangedFileSize"`
	ChangedDeltaSize int64   `json:"ChangedDeltaSize"`
	DeltaEntries     int64   `json:"DeltaEntries"`
	RawDeltaSize     int64   `json:"RawDeltaSize"`
	StartText        string  `json:"StartTime_str"`
	EndText          string  `json:"EndTime_str"`
	Meta             struct {
		Action      string   `json:"action"` // full or inc
		Skipped     bool     `json:"skipped_inc"`
		Full        int64    `json:"time_full_bkp"`
		FullText    string   `json:"time_full_bkp_str"`
		Increments  int      `json:"no_of_inc"` // before this one
		Concurrency int      `json:"concurrency"`
		Target      string   `json:"target"`
		Source      string   `json:"source"`
		Local       []string `json:"local_json_stat"`
	} `json:"backup_meta"`
}

// putJSONStat shows the statistics of a run in JSON, and stores them beside the
// set, if there is one. base has the sets that it was built on.
func (a *archive) putJSONStat(ctx context.Context, c *cli.Context, src string, base []*chain.Set, s *backup.Stats) error {
	if !c.Bool("jsonstat") {
		return nil
	}
	text, err := json.MarshalIndent(a.jsonStat(c, src, base, s), "", "    ")
	if err != nil {
		return err
	}
	if !c.Bool("no-print-statistics") {
		a.env.say(message{level: levelNotice, force: true, format: "%s", args: []any{string(text)}})
	}
	if s.Set == nil {
		return nil
	}
	n := chain.Name{Kind: chain.JSONStatFile, Full: s.Set.Full, Start: s.Set.Start, End: s.Set.End, Layer: chain.Gzip}
	if layer(c) == chain.OpenPGP {
		n.Layer = chain.OpenPGP
	}
	if err := a.store.Put(ctx, n, text); err != nil {
		return fmt.Errorf("the backup was made, but its statistics were not stored: %w", err)
	}
	return nil
}

func (a *archive) jsonStat(c *cli.Context, src string, base []*chain.Set, s *backup.Stats) *jsonStat {
	seconds := func(t time.Time) float64 { return float64(t.UnixNano()) / 1e9 }
	j := &jsonStat{
		StartTime: seconds(s.StartTime), EndTime: seconds(s.EndTime), ElapsedTime: s.EndTime.Sub(s.StartTime).Seconds(),
		Errors: s.Errors, DestinationSize: s.DestinationSize, SourceFiles: s.SourceFiles, SourceFileSize: s.SourceFileSize,
		NewFiles: s.NewFiles, NewFileSize: s.NewFileSize, DeletedFiles: s.DeletedFiles,
		ChangedFiles: s.ChangedFiles, ChangedFileSize: s.ChangedFileSize, ChangedDeltaSize: s.ChangedDeltaSize,
		DeltaEntries: s.DeltaEntries, RawDeltaSize: s.RawDeltaSize,
		StartText: chain.FormatTime(s.StartTime), EndText: chain.FormatTime(s.EndTime),
	}
	m := &j.Meta
	m.Action, m.Skipped = "full", s.Set == nil && !c.Bool("dry-run")
	m.Concurrency, m.Target, m.Source = c.Int("concurrency"), a.shown, src
	full := s.Set
	if len(base) > 0 {
		m.Action, full, m.Increments = "inc", base[0], len(base)-1
	}
	if full != nil {
		m.Full, m.FullText = full.End.Unix(), chain.FormatTime(full.End)
	}
	for _, b := range base {
		if b.JSONStat != nil {
			m.Local = append(m.Local, b.JSONStat.File)
		}
	}
	if m.Local == nil {
		m.Local = []string{"N/A"}
	}
	return j
}
