package backup

import "dupfs/chain"

// hooks let tests change the source at the worst moment. All may be nil.
type hooks struct {
	onListed func(p chain.Path)                  // a directory was listed, none of its entries looked at
	onOpen   func(p chain.Path)                  // a file was opened
	onRead   func(p chain.Path, off int64) error // before content at off is read
}

func (h *hooks) listed(p chain.Path) {
	if h != nil && h.onListed != nil {
		h.onListed(p)
	}
}

func (h *hooks) opened(p chain.Path) {
	if h != nil && h.onOpen != nil {
		h.onOpen(p)
	}
}

func (h *hooks) read(p chain.Path, off int64) error {
	if h != nil && h.onRead != nil {
		return h.onRead(p, off)
	}
	return nil
}
