#!/bin/bash
# check.sh    gofmt, go vet, whether it compiles on macOS, staticcheck and govulncheck;
#             fails if one finds something
set -euo pipefail
cd "$(dirname "$0")/.."
export CGO_ENABLED=0 # as the product is built, so that nothing is compiled twice
staticcheck=honnef.co/go/tools/cmd/staticcheck@v0.8.2
govulncheck=golang.org/x/vuln/cmd/govulncheck@v1.9.0

say() { echo "check: $*"; }

say gofmt
unformatted=$(git ls-files -z '*.go' | xargs -0 -r gofmt -l)
[ -z "$unformatted" ] || { say "gofmt would change:" $unformatted; exit 1; }

say go vet
go vet ./...

say "types on macOS"
go run ./internal/typecheck darwin/arm64

say "$staticcheck"
go run "$staticcheck" ./...

# It asks vuln.go.dev what is known; where that cannot be reached there is no answer.
say "$govulncheck"
if ! out=$(go run "$govulncheck" ./... 2>&1); then
	unreachable=$(grep -m 1 'vuln\.go\.dev.*\(dial\|lookup\|timeout\|refused\|unreachable\)' <<<"$out") ||
		{ echo "$out"; say "govulncheck failed"; exit 1; }
	say "govulncheck NOT DONE, its database cannot be reached: $unreachable"
fi
say done
