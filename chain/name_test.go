package chain

import (
	"math/rand/v2"
	"testing"
	"time"
)

// at is 2023-11-14 22:13:20 and n days after it.
func at(days int) time.Time { return time.Unix(1700000000+86400*int64(days), 0).UTC() }

func TestParseName(t *testing.T) {
	full := func(k Kind, vol int, l Layer) Name {
		return Name{Kind: k, Full: true, Start: at(0), End: at(0), Volume: vol, Layer: l}
	}
	inc := func(k Kind, vol int, l Layer) Name {
		return Name{Kind: k, Start: at(0), End: time.Unix(1700100000, 0).UTC(), Volume: vol, Layer: l}
	}
	part := func(n Name) Name { n.Part = true; return n }
	tests := []struct {
		file string
		want Name
	}{
		{"duplicity-full.20231114T221320Z.vol1.difftar.gz", full(VolumeFile, 1, Gzip)},
		{"duplicity-full.20231114T221320Z.vol12.difftar.gpg", full(VolumeFile, 12, OpenPGP)},
		{"duplicity-full.20231114T221320Z.vol01.difftar", full(VolumeFile, 1, Plain)},
		{"duplicity-full.20231114t221320z.vol1.difftar.g", full(VolumeFile, 1, OpenPGP)},
		{"duplicity-full.20231114T221320Z.vol1.difftar.agz", full(VolumeFile, 1, Gzip)},
		{"duplicity-full.20231114T221320Z.vol1.difftar.gz.idx", full(VolumeFile, 1, Plain)},
		{"duplicity-full.20231114T221320Z.vol1.difftar.", full(VolumeFile, 1, Plain)},
		{"duplicity-full.20231114T221320Z.vol1.difftar.part", part(full(VolumeFile, 1, Plain))},
		{"duplicity-full.20231114T221320Z.vol1.difftar.partial", full(VolumeFile, 1, Plain)},
		{"duplicity-full.20231114T221320Z.manifest", full(ManifestFile, 0, Plain)},
		{"duplicity-full.20231114T221320Z.manifest.part", part(full(ManifestFile, 0, Plain))},
		{"duplicity-full.20231114T221320Z.jsonstat.gz", full(JSONStatFile, 0, Gzip)},
		{"duplicity-full-signatures.20231114T221320Z.sigtar.gpg", full(SigtarFile, 0, OpenPGP)},
		{"duplicity-inc.20231114T221320Z.to.20231116T020000Z.vol3.difftar.gz", inc(VolumeFile, 3, Gzip)},
		{"duplicity-inc.20231114T221320Z.to.20231116T020000Z.manifest.gpg", inc(ManifestFile, 0, OpenPGP)},
		{"duplicity-new-signatures.20231114T221320Z.to.20231116T020000Z.sigtar.gz", inc(SigtarFile, 0, Gzip)},
		{"duplicity-full.2023-11-14T22:13:20Z.manifest", full(ManifestFile, 0, Plain)},
		{"duplicity-full.2023-11-14T17:13:20-05:00.manifest", full(ManifestFile, 0, Plain)},
		{"duplicity-full.2023-11-15T03_43_20+05_30.manifest", full(ManifestFile, 0, Plain)},
		{"duplicity-full.2023-11-14T18:43:20-04:30.manifest", full(ManifestFile, 0, Plain)}, // as duplicity writes -03:30
		{"duplicity-full.2023-11-15T03.43.20+05.30.vol2.difftar.gz", full(VolumeFile, 2, Gzip)},
		{"duplicity-inc.2023-11-14T22·13·20Z.to.2023-11-16T02:00:00Z.manifest", inc(ManifestFile, 0, Plain)},
		{"df.s44we8.1.dt.z", full(VolumeFile, 1, Gzip)},
		{"df.s44we8.z.dt.g", full(VolumeFile, 35, OpenPGP)},
		{"df.s44we8.m.dt", full(VolumeFile, 22, Plain)},
		{"df.s44we8.m", full(ManifestFile, 0, Plain)},
		{"df.s44we8.m.p", part(full(ManifestFile, 0, Plain))},
		{"dfs.s44we8.st.z", full(SigtarFile, 0, Gzip)},
		{"di.s44we8.s471k0.1.dt.z", inc(VolumeFile, 1, Gzip)},
		{"di.s44we8.s471k0.m", inc(ManifestFile, 0, Plain)},
		{"dns.s44we8.s471k0.st.g", inc(SigtarFile, 0, OpenPGP)},
		{"dfst.s44we8.jst", full(JSONStatFile, 0, Plain)},
		{"dist.s44we8.to.s471k0.jst", inc(JSONStatFile, 0, Plain)},
		{"dupfs-index.20231114T221320Z.gpg", full(IndexFile, 0, OpenPGP)},
		{"dupfs-index.20231114T221320Z", full(IndexFile, 0, Plain)},
		{"dupfs-index.20231114T221320Z.to.20231116T020000Z.gz", inc(IndexFile, 0, Gzip)},
	}
	for _, test := range tests {
		got, ok := ParseName(test.file, Prefixes{})
		test.want.File = test.file
		if !ok || got != test.want {
			t.Errorf("ParseName(%q) = %+v, %v; want %+v", test.file, got, ok, test.want)
		}
	}
}

func TestParseNameRefuses(t *testing.T) {
	for _, file := range []string{
		"", "duplicity-full.", "df.", "dupfs-index.", "dupfs-index.json", ".hidden",
		"duplicity-full.20231114T221320Z.vol1.difftar.gz.par2",
		"duplicity-full.20231114T221320Z.vol1.difftar.gz.vol000+10.par2",
		"duplicity-full.20231114T221320Z.vol0.difftar.gz",
		"duplicity-full.20231114T221320Z.vol.difftar.gz",
		"duplicity-full.20231114T221320Z.vol-1.difftar.gz",
		"duplicity-full.20231114T221320Z.vol99999999999999999999.difftar.gz",
		"duplicity-full.20231114T221320Z.VOL1.difftar.gz",
		"duplicity-full.20231114T221320Z.vol1.difftar-idx",
		"duplicity-full.20231114T221320Z.manifest-idx",
		"duplicity-full.20231114T221320Z.index",
		"duplicity-full.20231114T221320Z",
		"Duplicity-full.20231114T221320Z.manifest",
		"xduplicity-full.20231114T221320Z.manifest",
		"duplicity-full.20231314T221320Z.manifest",
		"duplicity-full.20231114T241320Z.manifest",
		"duplicity-full.19700101T000000Z.manifest",
		"duplicity-full.2023-11-14T22-13-20Z.manifest",
		"duplicity-full.2023-11-14T22:13_20Z.manifest",
		"duplicity-full.2023-11-14T22:13:20+0530.manifest",
		"duplicity-full.2023-11-14T22:13:20.manifest",
		"duplicity-inc.20231114T221320Z.manifest",
		"duplicity-inc.20231116T020000Z.to.20231114T221320Z.manifest",
		"duplicity-inc.20231114T221320Z.to.20231114T221320Z.manifest",
		"df.S44WE8.m", "df.0.m", "df.zzzzzzzzzzzzz.m", "df.-5.m", "df.s44we8.0.dt",
		"dupfs-index.20231114T221320Z.bak", "dupfs-index.20231114T221320Z.gz.old",
		"dupfs-index.20231116T020000Z.to.20231114T221320Z.gz",
	} {
		if got, ok := ParseName(file, Prefixes{}); ok || got != (Name{File: file}) {
			t.Errorf("ParseName(%q) = %+v, %v; want only File, false", file, got, ok)
		}
	}
}

func TestPrefixes(t *testing.T) {
	p := Prefixes{All: "a.*", Archive: "v-", Manifest: "m-", Signature: "s-", JSONStat: "j-"}
	for kind, want := range map[Kind]string{
		VolumeFile:   "a.*v-duplicity-full.20231114T221320Z.vol7.difftar.gpg",
		ManifestFile: "a.*m-duplicity-full.20231114T221320Z.manifest.gpg",
		SigtarFile:   "a.*s-duplicity-full-signatures.20231114T221320Z.sigtar.gpg",
		JSONStatFile: "a.*j-duplicity-full.20231114T221320Z.jsonstat.gpg",
		IndexFile:    "a.*dupfs-index.20231114T221320Z.gpg",
	} {
		n := Name{Kind: kind, Full: true, Start: at(0), End: at(0), Layer: OpenPGP}
		if kind == VolumeFile {
			n.Volume = 7
		}
		got := p.Format(n)
		if got != want {
			t.Errorf("Format(kind %d) = %q, want %q", kind, got, want)
		}
		n.File = got
		if back, ok := ParseName(got, p); !ok || back != n {
			t.Errorf("ParseName(%q) = %+v, %v", got, back, ok)
		}
		if _, ok := ParseName(got, Prefixes{}); ok {
			t.Errorf("%q is understood without its prefix", got)
		}
	}
	if _, ok := ParseName("abcv-duplicity-full.20231114T221320Z.vol7.difftar.gpg", p); ok {
		t.Error("the prefix acts as a pattern")
	}
}

func FuzzName(f *testing.F) {
	for _, s := range []string{
		"duplicity-full.20231114T221320Z.vol1.difftar.gz",
		"duplicity-inc.20231114T221320Z.to.20231116T020000Z.manifest.part",
		"duplicity-new-signatures.2023-11-14T22_13_20-05_00.to.2023-11-16T02_00_00Z.sigtar.gpg",
		"di.s44we8.s471k0.1.dt.z", "dfst.s44we8.jst", "dupfs-index.20231114T221320Z.gpg",
		"dupfs-claim.20231114T221320Z.0123456789abcdef",
	} {
		f.Add(s, "")
	}
	f.Fuzz(func(t *testing.T, file, prefix string) {
		n, ok := ParseName(file, Prefixes{All: prefix, Manifest: "m"})
		if !ok {
			if n != (Name{File: file}) {
				t.Fatalf("refused, but %+v", n)
			}
			return
		}
		if n.Full != n.Start.Equal(n.End) || n.Start.After(n.End) || n.Kind == 0 {
			t.Fatalf("%q: %+v", file, n)
		}
		// What is understood has one current form, which says the same.
		canon := Prefixes{}.Format(n)
		back, ok := ParseName(canon, Prefixes{})
		n.File = canon
		if !ok || back != n {
			t.Fatalf("%q, formatted %q: %+v, want %+v", file, canon, back, n)
		}
	})
}

// randomName makes names that are right or nearly so. It leaves out what is
// refused on purpose: increments that do not end after they start, and times
// in the zone of the reader. Unfinished files are told apart elsewhere.
func randomName(r *rand.Rand) string {
	pick := func(words ...string) string { return words[r.IntN(len(words))] }
	tm := func(days int) string {
		t := at(days)
		switch r.IntN(9) {
		case 3:
			return t.Add(-3*time.Hour-30*time.Minute).Format("2006-01-02T15:04:05") + "-04:30"
		case 0:
			return t.In(time.FixedZone("", -5*3600)).Format("2006-01-02T15:04:05-07:00")
		case 1:
			return t.Format("2006-01-02T15:04:05") + "Z"
		case 2:
			return t.Format("20060102T150405") + pick("z", "ZZ", "+0000")
		}
		return FormatTime(t)
	}
	end := pick("", ".gz", ".gpg", ".g", ".z", ".old", "-x", ".par", "gz")
	a, b := tm(0), tm(1+r.IntN(3))
	switch r.IntN(6) {
	case 0:
		return "duplicity-full." + b + ".vol" + pick("1", "2", "03", "x", "") + ".difftar" + end
	case 1:
		return "duplicity-inc." + a + ".to." + b + ".vol" + pick("1", "2") + ".difftar" + end
	case 2:
		return "duplicity-full." + b + ".manifest" + end
	case 3:
		return "duplicity-inc." + a + ".to." + b + ".manifest" + end
	case 4:
		return pick("duplicity-full-signatures.", "duplicity-new-signatures.") + a + pick("", ".to."+b) + ".sigtar" + end
	}
	return pick("df.", "di.", "dfs.", "dns.") + pick("s44we8", "s45we8", "S45WE8") + pick("", ".s4a44n") + pick(".1.dt", ".m", ".st", ".a.dt") + end
}
