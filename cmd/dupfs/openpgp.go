package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/urfave/cli/v2"

	"dupfs/chain"
	"dupfs/chain/pgp"
	"dupfs/chain/pgp/gnupg"
)

func openpgpFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "encrypt-key", Usage: "encrypt to public key `ID` of GnuPG; may be repeated"},
		&cli.StringSliceFlag{Name: "hidden-encrypt-key", Usage: "the same, without its `ID` in what is stored"},
		&cli.StringFlag{Name: "sign-key", Usage: "sign with key `ID`; when reading, accept only what it has signed"},
		&cli.StringFlag{Name: "encrypt-sign-key", Usage: "--encrypt-key and --sign-key with the same `ID`"},
		&cli.StringSliceFlag{Name: "key-file", Usage: "take OpenPGP keys from `FILE`, not from GnuPG; may be repeated"},
		&cli.BoolFlag{Name: "use-agent", Usage: "let gpg-agent ask for the passphrases of keys"},
		&cli.StringFlag{Name: "gpg-binary", Usage: "`PATH` of gpg"},
		&cli.StringSliceFlag{Name: "gpg-options", Usage: "`OPTIONS` for gpg, such as --homedir=DIR"},
		&cli.StringFlag{Name: "encrypt-secret-keyring", Hidden: true},
		&cli.BoolFlag{Name: "accept-unauthenticated", Usage: "read what old versions of GnuPG encrypted without protection of its integrity"},
	}
}

// openpgp is what the command line says of OpenPGP keys.
type openpgp struct {
	e           *environ
	to          []string // recipients
	hidden      []string
	sign        string // "": nothing is signed, no signature is demanded
	agent       bool
	unprotected bool // what has no protection of its integrity is read, too
	writes      bool // the command makes a backup
	keyFiles    [][]byte
	gpg         *gnupg.GPG
}

// signKeyForm is what duplicity takes for the id of a signing key.
var signKeyForm = regexp.MustCompile(`^(0x)?([0-9A-Fa-f]{8}|[0-9A-Fa-f]{16}|[0-9A-Fa-f]{40})$`)

// openpgpOf reads the options about keys.
func (e *environ) openpgpOf(c *cli.Context) (*openpgp, error) {
	o := &openpgp{
		e: e, to: c.StringSlice("encrypt-key"), hidden: c.StringSlice("hidden-encrypt-key"),
		sign: c.String("sign-key"), agent: c.Bool("use-agent"), unprotected: c.Bool("accept-unauthenticated"),
	}
	if c.Command != nil {
		o.writes = slices.Contains([]string{"backup", "full", "incremental"}, c.Command.Name)
	}
	if both := c.String("encrypt-sign-key"); both != "" {
		o.to, o.sign = append(slices.Clone(o.to), both), both
	}
	if o.sign != "" && !signKeyForm.MatchString(o.sign) {
		return nil, fail(exitSignKey, fmt.Errorf("sign key should be an 8, 16 or 40 character hex key ID, received %q", o.sign),
			"`gpg --list-secret-keys --keyid-format long` shows the ids")
	}
	for _, name := range c.StringSlice("key-file") {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("--key-file: %w", err)
		}
		o.keyFiles = append(o.keyFiles, text)
	}
	options, err := gpgOptions(c.StringSlice("gpg-options"))
	if err != nil {
		return nil, err
	}
	o.gpg = &gnupg.GPG{Binary: c.String("gpg-binary"), Options: options, Agent: o.agent}
	return o, nil
}

// public reports whether what is written is encrypted to public keys.
func (o *openpgp) public() bool { return len(o.to)+len(o.hidden) > 0 }

// asks reports whether somebody may be asked for the passphrase that opens
// what is there. A backup to public keys needs none, and runs where nobody is.
func (o *openpgp) asks() bool { return !o.agent && !(o.writes && o.public()) }

// keys returns what an archive is read with. dir is that of its cache.
func (o *openpgp) keys(ctx context.Context, c *cli.Context, dir string) (*pgp.Keys, error) {
	given, err := o.e.passphrases(c)
	if err != nil {
		return nil, err
	}
	k := pgp.NewKeys(given...)
	k.AcceptUnauthenticated = o.unprotected
	var once sync.Once
	k.OnUnauthenticated = func(name string) {
		once.Do(func() {
			o.e.warn("%s and others like it: what is read may have been changed by anybody (--accept-unauthenticated)", name)
		})
	}
	if len(given) == 0 && o.asks() {
		k.Ask = func(context.Context) (string, error) { return o.e.secret(c, false) }
	}
	for _, text := range o.keyFiles {
		if err := k.AddKeyFile(text); err != nil {
			return nil, fail(exitGPG, err, "it has keys as `gpg --export` and `gpg --export-secret-keys` write them")
		}
	}
	o.gpg.Passphrases = func(context.Context) ([]string, error) {
		if len(given) > 0 || !o.asks() {
			return given, nil
		}
		p, err := o.e.secret(c, false)
		return []string{p}, err
	}
	k.Decrypter = &optionalGPG{o.gpg}
	cache, err := pgp.OpenSessionFile(filepath.Join(dir, "sessions"))
	if err != nil {
		return nil, err
	}
	k.Cache = cache
	if o.sign != "" {
		if err := o.demandSigner(ctx, k); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// optionalGPG is GnuPG where it may be missing, or too old: then it has no key.
type optionalGPG struct{ *gnupg.GPG }

// SessionKey implements pgp.Decrypter.
func (g *optionalGPG) SessionKey(ctx context.Context, r pgp.Recipient) (pgp.Session, error) {
	s, err := g.GPG.SessionKey(ctx, r)
	if errors.Is(err, gnupg.ErrMissing) || errors.Is(err, gnupg.ErrOld) {
		return s, fmt.Errorf("%w (%w)", chain.ErrNoKey, err)
	}
	return s, err
}

// encrypter returns what new files are encrypted and signed with.
func (o *openpgp) encrypter(ctx context.Context, c *cli.Context, keys *pgp.Keys) (*pgp.Encrypter, error) {
	opts := pgp.EncryptOptions{Keys: keys}
	if !o.public() {
		p, err := o.e.secret(c, true)
		if err != nil {
			return nil, err
		}
		if p == "" {
			return nil, fail(exitUser, errors.New("the passphrase is empty"), "export a PASSPHRASE, or give --no-encryption")
		}
		opts.Passphrase = p
	}
	for _, list := range []struct {
		ids    []string
		hidden bool
	}{{o.to, false}, {o.hidden, true}} {
		for _, id := range list.ids {
			t, err := o.target(ctx, id)
			if err != nil {
				return nil, fail(exitGPG, err, "`gpg --list-keys` shows the keys there are; see --key-file, too")
			}
			t.Hidden = list.hidden
			opts.To = append(opts.To, t)
		}
	}
	if o.sign != "" {
		var err error
		if opts.Sign, err = o.signer(ctx, opts.Passphrase); err != nil {
			status := exitGPG
			if errors.Is(err, errSignPassphraseEOF) {
				status = exitException
			}
			return nil, fail(status, err, "`gpg --list-secret-keys` shows the keys there are; SIGN_PASSPHRASE unlocks them")
		}
	}
	return pgp.NewEncrypterTo(opts)
}

// signer returns what signs. Its passphrase is SIGN_PASSPHRASE; PASSPHRASE
// stands in where the archive is encrypted to that key, or to a passphrase.
func (o *openpgp) signer(ctx context.Context, archive string) (pgp.Signer, error) {
	var given []string
	sign, known, err := o.e.signPassphrase()
	if err != nil {
		return nil, err
	}
	if known {
		given = append(given, sign)
	} else if p, ok := o.e.lookup("PASSPHRASE"); ok && (archive != "" || o.recipient(o.sign)) {
		given = append(given, p)
	}
	for _, text := range o.keyFiles {
		if s, err := pgp.NewKeySigner(text, o.sign, given, o.e.now); !errors.Is(err, pgp.ErrNoPublicKey) {
			return s, err
		}
	}
	options := gnupg.SignOptions{ID: o.sign, Passphrases: given, Now: o.e.now}
	if !known && !o.agent {
		options.More = func(context.Context) (string, error) {
			p, err := o.e.ask("GnuPG passphrase for signing key: ")
			if errors.Is(err, errPassphraseEOF) {
				err = errSignPassphraseEOF
			}
			return p, err
		}
	}
	return o.gpg.Signer(ctx, options)
}

// recipient reports whether a key is one of those that are encrypted to, as
// far as their ids tell.
func (o *openpgp) recipient(id string) bool {
	return slices.ContainsFunc(append(slices.Clone(o.to), o.hidden...), func(to string) bool {
		a, b := strings.TrimPrefix(strings.ToUpper(to), "0X"), strings.TrimPrefix(strings.ToUpper(id), "0X")
		return strings.HasSuffix(a, b) || strings.HasSuffix(b, a)
	})
}

// demandSigner makes keys accept only what the signing key has signed.
func (o *openpgp) demandSigner(ctx context.Context, keys *pgp.Keys) error {
	for _, text := range o.keyFiles {
		if err := keys.DemandSigner(text, o.sign, o.e.now()); !errors.Is(err, pgp.ErrNoPublicKey) {
			return err
		}
	}
	file, err := o.gpg.Export(ctx, o.sign)
	if err == nil {
		err = keys.DemandSigner(file, o.sign, o.e.now())
	}
	if err != nil {
		return fail(exitGPG, fmt.Errorf("--sign-key: %w", err), "`gpg --list-keys` shows the keys there are; see --key-file, too")
	}
	return nil
}

// catalog returns the name of the directory of an archive's catalogs. What was
// learned from files that nobody had to sign, or that anybody may have changed,
// is not used where that must not be.
func (o *openpgp) catalog() string {
	name := "catalog"
	if o.sign != "" {
		name += "-" + strings.TrimPrefix(strings.ToUpper(o.sign), "0X")
	}
	if o.unprotected {
		name += "-unauthenticated"
	}
	return name
}

// target returns the public key that an id names: of the key files if one has
// it, else GnuPG's.
func (o *openpgp) target(ctx context.Context, id string) (pgp.Target, error) {
	now := o.e.now()
	for _, text := range o.keyFiles {
		if key, err := pgp.EncryptionKeyOf(text, id, now); !errors.Is(err, pgp.ErrNoPublicKey) {
			return pgp.Target{Key: key}, err
		}
	}
	file, err := o.gpg.Export(ctx, id)
	if err != nil {
		return pgp.Target{}, err
	}
	disabled, err := o.gpg.Disabled(ctx, id)
	if err != nil {
		return pgp.Target{}, err
	}
	if disabled {
		return pgp.Target{}, fmt.Errorf("%w: key %s is disabled in GnuPG", pgp.ErrNoPublicKey, id)
	}
	trusted, err := o.gpg.Trusted(ctx, id)
	if err != nil {
		return pgp.Target{}, err
	}
	if !trusted {
		return pgp.Target{}, fmt.Errorf("there is no assurance that key %s belongs to whom it names: give its fingerprint, "+
			"or --gpg-options=--trust-model=always", id)
	}
	key, err := pgp.EncryptionKey(file, id, now)
	return pgp.Target{Key: key}, err
}

// gpgOptions splits options for gpg, as duplicity does at blanks, and keeps
// those that GnuPG still gets: where its keys are and which it trusts. Those
// that only shape what gpg would have written are passed over: dupfs writes
// AES-256 and deflate itself. What is not known here is an error.
func gpgOptions(values []string) ([]string, error) {
	var out []string
	args := strings.Fields(strings.Join(values, " "))
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		name, value, attached := strings.Cut(arg, "=")
		kind, ok := gpgOptionKinds()[name]
		if !ok {
			return nil, usagef("--gpg-options: %s is not understood here", arg)
		}
		if kind.value && !attached {
			if len(args) == 0 {
				return nil, usagef("--gpg-options: %s needs a value", name)
			}
			value, args = args[0], args[1:]
		}
		value = strings.Trim(value, `"'`)
		switch {
		case kind.ignored:
		case kind.value:
			out = append(out, name, value)
		default:
			out = append(out, name)
		}
	}
	return out, nil
}

// gpgOption tells what becomes of an option of gpg.
type gpgOption struct{ value, ignored bool }

func gpgOptionKinds() map[string]gpgOption {
	kinds := map[string]gpgOption{}
	for _, n := range strings.Fields("--homedir --keyring --primary-keyring --trust-model --options --agent-program --lock-once-value") {
		kinds[n] = gpgOption{value: true}
	}
	for _, n := range strings.Fields("--always-trust --no-options --no-default-keyring --no-auto-check-trustdb --no-permission-warning " +
		"--lock-never --lock-once --lock-multiple --no-autostart --no-random-seed-file --ignore-time-conflict --try-all-secrets --disable-ccid") {
		kinds[n] = gpgOption{}
	}
	for _, n := range strings.Fields("--cipher-algo --digest-algo --cert-digest-algo --compress-algo --compression-algo --compress-level " +
		"--bzip2-compress-level -z --s2k-cipher-algo --s2k-digest-algo --s2k-mode --s2k-count --personal-cipher-preferences " +
		"--personal-digest-preferences --personal-compress-preferences --pinentry-mode --secret-keyring --set-filename --comment") {
		kinds[n] = gpgOption{value: true, ignored: true}
	}
	for _, n := range strings.Fields("--force-mdc --no-tty --batch --use-agent --no-use-agent --no-secmem-warning --no-greeting --quiet -q " +
		"--yes --no-version --no-emit-version --no-comments --openpgp --no-encrypt-to --ignore-mdc-error --throw-keyids --no-throw-keyids") {
		kinds[n] = gpgOption{ignored: true}
	}
	delete(kinds, "--lock-once-value")
	delete(kinds, "--throw-keyids") // it would not be done: --hidden-encrypt-key does it
	delete(kinds, "--ignore-time-conflict")
	return kinds
}
