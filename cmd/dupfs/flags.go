package main

import (
	"slices"
	"time"

	"github.com/urfave/cli/v2"
)

// flagSets: which options a command takes. The same option means the same in
// every command; options of duplicity that have no meaning here are accepted,
// so that scripts run.

func archiveFlags() []cli.Flag {
	return slices.Concat([]cli.Flag{
		&cli.StringFlag{Name: "archive-dir", Usage: "`DIR` above the caches (default: $XDG_CACHE_HOME/dupfs)"},
		&cli.StringFlag{Name: "name", Usage: "`NAME` of the archive's cache (default: the MD5 of the URL)"},
		&cli.BoolFlag{Name: "no-encryption", Usage: "write without encryption, and ask for no passphrase"},
		&cli.BoolFlag{Name: "no-compression", Usage: "with --no-encryption: write plain tar files"},
		&cli.StringSliceFlag{Name: "passphrase-file", Usage: "read the passphrase from the first line of `FILE`; several open a chain that was written with several"},
		&cli.StringFlag{Name: "password-command", Usage: "take the passphrase from the first line that `COMMAND` prints"},
		&cli.StringFlag{Name: "tempdir", Usage: "`DIR` for volumes on their way (default: $TMPDIR or /tmp)"},
		&cli.StringFlag{Name: "cache-size", Value: "1G", Usage: "most `BYTES` of volumes kept on disk for remote archives (K, M, G; 0: none)"},
		&cli.StringFlag{Name: "memory", Value: "64M", Usage: "most `BYTES` of decoded volumes kept in memory"},
		&cli.StringFlag{Name: "verbosity", Usage: "`LEVEL` 0 to 9, or error, warning, notice, info, debug"},
		&cli.StringFlag{Name: "file-prefix", Usage: "`PREFIX` of all stored files' names"},
		&cli.StringFlag{Name: "file-prefix-archive", Usage: "`PREFIX` of volumes, after --file-prefix"},
		&cli.StringFlag{Name: "file-prefix-manifest", Usage: "`PREFIX` of manifests"},
		&cli.StringFlag{Name: "file-prefix-signature", Usage: "`PREFIX` of signatures"},
	}, openpgpFlags(), backendFlags())
}

func backendFlags() []cli.Flag {
	return []cli.Flag{
		&cli.IntFlag{Name: "num-retries", Value: 5, Usage: "tries of each request, `N` in all"},
		&cli.Float64Flag{Name: "backend-retry-delay", Hidden: true, Usage: "longest `SECONDS` between tries"},
		&cli.Float64Flag{Name: "timeout", Value: 30, Usage: "`SECONDS` without a byte after which a request has failed"},
		&cli.StringFlag{Name: "limit-upload", Usage: "most `BYTES` a second (K, M)"},
		&cli.StringFlag{Name: "limit-download", Usage: "most `BYTES` a second (K, M)"},
		&cli.StringFlag{Name: "azure-blob-tier", Usage: "access `TIER` of volumes: Hot, Cool, Cold or Archive"},
		&cli.StringFlag{Name: "azure-metadata-tier", Usage: "access `TIER` of everything else (default: Hot)"},
		&cli.Int64Flag{Name: "azure-max-single-put-size", Hidden: true},
		&cli.Int64Flag{Name: "azure-max-block-size", Hidden: true},
		&cli.IntFlag{Name: "azure-max-connections", Hidden: true},
		&cli.StringFlag{Name: "swift-storage-policy", Usage: "`POLICY` of a container that is created"},
		&cli.Int64Flag{Name: "mp-segment-size", Hidden: true, Usage: "`MB` above which Swift objects are stored in segments"},
		&cli.StringFlag{Name: "s3-endpoint-url", Usage: "`URL` of an S3 service that is not Amazon's"},
		&cli.StringFlag{Name: "s3-region-name", Usage: "`REGION`"},
		&cli.BoolFlag{Name: "s3-unencrypted-connection", Usage: "http instead of https"},
		&cli.Int64Flag{Name: "s3-multipart-chunk-size", Hidden: true, Usage: "`MB` of the parts of an upload"},
		&cli.IntFlag{Name: "s3-multipart-max-procs", Hidden: true, Usage: "`N` parts at a time"},
		&cli.BoolFlag{Name: "s3-use-server-side-encryption", Hidden: true},
		&cli.BoolFlag{Name: "s3-use-server-side-kms-encryption", Hidden: true},
		&cli.StringFlag{Name: "s3-kms-key-id", Hidden: true},
		&cli.StringFlag{Name: "s3-kms-grant", Hidden: true},
		&cli.BoolFlag{Name: "s3-use-rrs", Hidden: true},
		&cli.BoolFlag{Name: "s3-use-ia", Hidden: true},
		&cli.BoolFlag{Name: "s3-use-onezone-ia", Hidden: true},
		&cli.BoolFlag{Name: "s3-use-glacier", Hidden: true},
		&cli.BoolFlag{Name: "s3-use-glacier-ir", Hidden: true},
		&cli.BoolFlag{Name: "s3-use-deep-archive", Hidden: true},
		&cli.StringFlag{Name: "ssh-options", Usage: "`OPTIONS` such as -oIdentityFile=FILE"},
		&cli.IntFlag{Name: "par2-redundancy", Value: 10, Usage: "with par2+URL: recovery files for `PERCENT` of each file"},
		&cli.IntFlag{Name: "par2-volumes", Value: 1, Usage: "with par2+URL: `N` recovery files beside each NAME.par2"},
		&cli.StringFlag{Name: "par2-options", Usage: "with par2+URL: further `OPTIONS` of par2 create"},
		&cli.StringFlag{Name: "webdav-headers", Hidden: true, Usage: "`NAME,VALUE,...` sent with each request"},
		&cli.StringFlag{Name: "ssl-cacert-file", Hidden: true, Usage: "`FILE` of certificates to trust"},
		&cli.StringFlag{Name: "ssl-cacert-path", Hidden: true, Usage: "`DIR` of certificates to trust"},
		&cli.BoolFlag{Name: "ssl-no-check-certificate", Hidden: true, Usage: "trust any server"},
	}
}

// timeFlag is the point that a reading command looks at.
func timeFlag() cli.Flag {
	return &cli.StringFlag{Name: "time", Aliases: []string{"restore-time", "t"}, Usage: "the newest backup not after `TIME` (default: now)"}
}

func jsonFlag() cli.Flag { return &cli.BoolFlag{Name: "json", Usage: "one JSON object a line"} }

func pathFlag() cli.Flag {
	return &cli.StringFlag{Name: "path-to-restore", Aliases: []string{"file-to-restore", "r"}, Usage: "`PATH` in the archive"}
}

func forceFlag() cli.Flag {
	return &cli.BoolFlag{Name: "force", Usage: "write into a directory that is not empty; really delete"}
}

func ownerFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "numeric-owner", Usage: "owners by number, not by name"},
		&cli.BoolFlag{Name: "no-restore-ownership", Aliases: []string{"do-not-restore-ownership"}, Usage: "leave owners as they come"},
	}
}

// currentTimeFlag lets a test pretend.
func currentTimeFlag() cli.Flag {
	return &cli.Int64Flag{Name: "current-time", Hidden: true, Usage: "pretend that it is `EPOCH`"}
}

func dryRunFlag() cli.Flag {
	return &cli.BoolFlag{Name: "dry-run", Usage: "say what would be done, and do nothing"}
}

// clock returns the time that a command takes for now.
func (e *environ) clock(c *cli.Context) time.Time {
	if t := c.Int64("current-time"); t != 0 {
		return time.Unix(t, 0)
	}
	return e.now()
}

// seconds returns an option given in seconds.
func seconds(c *cli.Context, name string) time.Duration {
	return time.Duration(c.Float64(name) * float64(time.Second))
}
