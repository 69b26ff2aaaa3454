package s3

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"
	"gopkg.in/ini.v1"

	"dupfs/backends"
	"dupfs/backends/web"
)

// findCredentials looks where Amazon's own tools do: the environment, a
// profile in ~/.aws/credentials, the role of the machine.
func findCredentials(o Options) (*credentials.Credentials, error) {
	id, secret := o.Getenv("AWS_ACCESS_KEY_ID"), o.Getenv("AWS_SECRET_ACCESS_KEY")
	if id != "" && secret != "" {
		return credentials.NewStaticV4(id, secret, o.Getenv("AWS_SESSION_TOKEN")), nil
	}
	profile := o.Getenv("AWS_PROFILE")
	for _, f := range []string{o.awsFile("AWS_SHARED_CREDENTIALS_FILE", "credentials"), o.awsFile("AWS_CONFIG_FILE", "config")} {
		for _, section := range sections(profile) {
			if s := iniSection(f, section); s != nil && s.Key("aws_access_key_id").String() != "" {
				return credentials.NewStaticV4(s.Key("aws_access_key_id").String(), s.Key("aws_secret_access_key").String(), s.Key("aws_session_token").String()), nil
			}
		}
	}
	if profile == "" && o.Getenv("AWS_EC2_METADATA_DISABLED") != "true" {
		if c := machineRole(o); c != nil {
			return c, nil
		}
	}
	return nil, fmt.Errorf("s3: %w: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE to a profile in ~/.aws/credentials", backends.ErrAuth)
}

// machineRole returns the credentials that Amazon's cloud gives a machine or
// container of its own, or nil where there is no such thing.
func machineRole(o Options) *credentials.Credentials {
	container := o.Getenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")+o.Getenv("AWS_CONTAINER_CREDENTIALS_FULL_URI")+o.Getenv("AWS_WEB_IDENTITY_TOKEN_FILE") != ""
	t, err := web.NewTransport(web.Options{Timeout: 2 * time.Second, Getenv: func(string) string { return "" }})
	if err != nil {
		return nil
	}
	c := credentials.NewIAM("")
	if _, err := c.GetWithContext(&credentials.CredContext{Client: &http.Client{Transport: t, Timeout: 2 * time.Second}}); err != nil && !container {
		return nil
	}
	return c
}

func (o Options) awsFile(env, name string) string {
	if f := o.Getenv(env); f != "" {
		return f
	}
	if home := o.Getenv("HOME"); home != "" {
		return filepath.Join(home, ".aws", name)
	}
	return ""
}

// sections are the names a profile may have: the file config puts "profile "
// before all but the default.
func sections(profile string) []string {
	if profile == "" || profile == "default" {
		return []string{"default"}
	}
	return []string{profile, "profile " + profile}
}

func iniSection(file, section string) *ini.Section {
	if file == "" {
		return nil
	}
	f, err := ini.Load(file)
	if err != nil {
		return nil
	}
	s, err := f.GetSection(section)
	if err != nil {
		return nil
	}
	return s
}

// region returns the region that was chosen; "" leaves it to be asked for.
func region(o Options) string {
	for _, r := range []string{o.Region, o.Getenv("AWS_REGION"), o.Getenv("AWS_DEFAULT_REGION")} {
		if r != "" {
			return r
		}
	}
	for _, section := range sections(o.Getenv("AWS_PROFILE")) {
		if s := iniSection(o.awsFile("AWS_CONFIG_FILE", "config"), section); s != nil {
			return s.Key("region").String()
		}
	}
	return ""
}

// The library keeps no headers of a failed request, so the transport notes
// Retry-After in the context of the call.
type afterKey struct{}

func withRetryAfter(ctx context.Context) (context.Context, *time.Duration) {
	d := new(time.Duration)
	return context.WithValue(ctx, afterKey{}, d), d
}

type retryAfter struct{ http.RoundTripper }

func (t retryAfter) RoundTrip(r *http.Request) (*http.Response, error) {
	rt := t.RoundTripper
	if rt == nil {
		rt = http.DefaultTransport
	}
	resp, err := rt.RoundTrip(r)
	if err == nil && resp.StatusCode >= 400 {
		if d, ok := r.Context().Value(afterKey{}).(*time.Duration); ok {
			*d = web.ParseRetryAfter(resp.Header, time.Now())
		}
	}
	return resp, err
}
