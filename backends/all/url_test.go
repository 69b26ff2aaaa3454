package all

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for s, want := range map[string]URL{
		"file:///abs/dir":             {Scheme: "file", Path: "/abs/dir", Rest: "/abs/dir"},
		"file://rel/dir":              {Scheme: "file", Host: "rel", Path: "/dir", Rest: "rel/dir"},
		"FILE:///a%20b%zz%":           {Scheme: "file", Path: "/a b%zz%", Rest: "/a b%zz%"},
		"sftp://u@h:22//abs":          {Scheme: "sftp", User: "u", Host: "h", Port: "22", Path: "//abs", Rest: "u@h:22//abs"},
		"sftp://u%40x:p%3Aq%2F@h/rel": {Scheme: "sftp", User: "u@x", Password: "p:q/", HasPassword: true, Host: "h", Path: "/rel", Rest: "u@x:p:q/@h/rel"},
		"webdav://u:@h":               {Scheme: "webdav", User: "u", HasPassword: true, Host: "h", Rest: "u:@h"},
		"webdavs://u:p@x@h/":          {Scheme: "webdavs", User: "u", Password: "p@x", HasPassword: true, Host: "h", Path: "/", Rest: "u:p@x@h/"},
		"sftp://u@[::1]:2222/d":       {Scheme: "sftp", User: "u", Host: "::1", Port: "2222", Path: "/d", Rest: "u@[::1]:2222/d"},
		"rclone://remote:some/dir":    {Scheme: "rclone", Host: "remote", Port: "some", Path: "/dir", Rest: "remote:some/dir"},
		"boto3+s3://bucket/pre/fix":   {Scheme: "boto3+s3", Host: "bucket", Path: "/pre/fix", Rest: "bucket/pre/fix"},
		"http://h/a?b#c":              {Scheme: "http", Host: "h", Path: "/a?b#c", Rest: "h/a?b#c"},
	} {
		got, err := Parse(s)
		if err != nil || got != want {
			t.Errorf("%s:\n got %+v, %v\nwant %+v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "x", "/abs/dir", "://h", "a b://c", "sftp://[::1/x", "sftp://u:secret@[::1]x/y"} {
		if u, err := Parse(s); err == nil {
			t.Errorf("%q: %+v", s, u)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the error holds the password: %v", s, err)
		}
	}
}

func TestIsURL(t *testing.T) {
	for s, want := range map[string]bool{
		"file:///x": true, "boto3+s3://b": true, "xyz://foo": true,
		"/home/x": false, "dir": false, "c:x": false, "file:/x": false, "a/b://c": false, "": false,
	} {
		if IsURL(s) != want {
			t.Errorf("IsURL(%q) is not %v", s, want)
		}
	}
}

func TestRedact(t *testing.T) {
	for s, want := range map[string]string{
		"sftp://u:secret@h/p":        "sftp://u:*****@h/p",
		"sftp://u:sec@ret@h/p@q":     "sftp://u:*****@h/p@q",
		"sftp://u:sec/ret@h/p":       "sftp://u:*****@h/p",
		"sftp://u@h/p:q@r":           "sftp://u@h/p:q@r",
		"sftp://:secret@h":           "sftp://:*****@h",
		"file:///dir/a:b":            "file:///dir/a:b",
		"s3://bucket/a@b":            "s3://bucket/a@b",
		"rclone://remote:dir/x":      "rclone://remote:dir/x",
		"user:secret@host/no-scheme": "user:*****@host/no-scheme",
		"/local/path":                "/local/path",
	} {
		if got := Redact(s); got != want {
			t.Errorf("Redact(%q) = %q, want %q", s, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"file:///x", "sftp://u:p@[::1]:1//x%20", "rclone://r:p", "s3://", "%", "://"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := Parse(s)
		if (err == nil) && !IsURL(s) {
			t.Errorf("Parse accepts %q, IsURL does not", s)
		}
		Redact(s)
		if err == nil && u.HasPassword && len(u.Password) > 8 && !strings.Contains(s, "%") && strings.Count(s, u.Password) == 1 && strings.Contains(Redact(s), u.Password) {
			t.Errorf("Redact(%q) holds the password", s)
		}
	})
}
