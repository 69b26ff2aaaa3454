//go:build tools

package dupfs

import (
	_ "github.com/Azure/azure-sdk-for-go/sdk/azcore"
	_ "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	_ "github.com/ProtonMail/go-crypto/openpgp"
	_ "github.com/gophercloud/gophercloud/v2"
	_ "github.com/hanwen/go-fuse/v2/fuse"
	_ "github.com/hashicorp/golang-lru/v2"
	_ "github.com/kevinburke/ssh_config"
	_ "github.com/klauspost/compress/flate"
	_ "github.com/minio/minio-go/v7"
	_ "github.com/pkg/sftp"
	_ "github.com/pkg/xattr"
	_ "github.com/schollz/progressbar/v3"
	_ "github.com/urfave/cli/v2"
	_ "golang.org/x/crypto/md4"
	_ "golang.org/x/sync/errgroup"
	_ "golang.org/x/sys/unix"
	_ "golang.org/x/term"
	_ "golang.org/x/time/rate"
	_ "modernc.org/sqlite"
)
