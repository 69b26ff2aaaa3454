package swift

import (
	"net/http"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/applicationcredentials"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/tokens"
)

// makeCredential makes an application credential for whoever p is.
func makeCredential(t *testing.T, p *gophercloud.ProviderClient, ks string) (name, id, secret string) {
	t.Helper()
	p.IdentityBase = ks + "/"
	p.HTTPClient = *http.DefaultClient
	c, err := openstack.NewIdentityV3(p, gophercloud.EndpointOpts{})
	if err != nil {
		t.Fatal(err)
	}
	user, err := tokens.Get(t.Context(), c, p.Token()).ExtractUser()
	if err != nil {
		t.Fatal(err)
	}
	name = "dupfs-" + time.Now().Format("150405.000000000")
	made, err := applicationcredentials.Create(t.Context(), c, user.ID, applicationcredentials.CreateOpts{Name: name}).Extract()
	if err != nil {
		t.Fatal(err)
	}
	return name, made.ID, made.Secret
}
