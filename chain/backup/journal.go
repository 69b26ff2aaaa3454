package backup

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sync"

	"dupfs/chain"
	"dupfs/chain/index"
	"dupfs/chain/manifest"
)

// The journal of a run is a file that says what its set holds so far, so that
// another run can go on with it: everything that the packer was told, in that
// order, and which volumes have arrived. It is
//
//	magic   "DUPFSJN1", the last byte being the version
//	frames  a flag byte, the length and the CRC-32C of the body as 32-bit
//	        numbers, the body
//
// A body is one event as encoding/gob has it; the flag is 1 where an encoder
// begins, which is once for each run that wrote to the file. What follows the
// first frame that is not whole is what a crash left, and does not count.
//
// It holds names, signatures and the keys of volumes, in plain as the local
// catalog does, and is readable by its owner alone.
const journalMagic = "DUPFSJN1"

const (
	journalFrame  = 9        // bytes before a body
	maxEvent      = 64 << 20 // bytes of a body
	maxEventSig   = 64 << 10 // bytes of a signature in one event
	journalBuffer = 256 << 10
)

// eventKind tells what an event is.
type eventKind uint8

const (
	evHead     eventKind = iota + 1 // what the run is; the first event
	evPiece                         // a piece of a file of which more will come
	evRuns                          // runs of the file whose record comes next
	evRecord                        // an entry, all of which is placed
	evSig                           // a part of the signature of the last record
	evChange                        // a line of the manifest's list of changed files
	evKnown                         // what the file system says of an entry
	evVolume                        // a volume is sealed
	evUploaded                      // a volume has arrived
	evKept                          // another run goes on with the first Number volumes
)

// event is what a journal notes. Which fields mean something depends on Kind.
type event struct {
	Kind   eventKind
	Head   *journalHead
	Runs   []index.Run
	Record *index.Record
	Holes  bool // the record's map of data is empty, not missing
	Sig    []byte
	Word   string // of a change
	Path   chain.Path
	Known  *Known
	Volume *volumeNote
	Number int    // of a volume or a piece
	Sum    []byte // of all pieces of the file so far
	Bare   bool   // the file was stored without its xattrs
}

// journalHead says what a run is.
type journalHead struct {
	Full       bool
	Start, End int64 // seconds since 1970
	Layer      chain.Layer
	Source     string
	Owner      string
	Claim      string // token of the claim that the run has stored; "": none
}

// volumeNote is a volume that is sealed, and the statistics so far.
type volumeNote struct {
	File   string
	Size   int64
	Row    manifest.Volume
	Layout []byte
	Counts counts
}

// counts are the statistics that the packer makes.
type counts struct {
	NewFiles, NewFileSize                           int64
	DeletedFiles                                    int64
	ChangedFiles, ChangedFileSize, ChangedDeltaSize int64
	DeltaEntries, RawDeltaSize                      int64
}

func countsOf(s *Stats) counts {
	return counts{s.NewFiles, s.NewFileSize, s.DeletedFiles, s.ChangedFiles, s.ChangedFileSize, s.ChangedDeltaSize, s.DeltaEntries, s.RawDeltaSize}
}

func (c counts) apply(s *Stats) {
	s.NewFiles, s.NewFileSize, s.DeletedFiles = c.NewFiles, c.NewFileSize, c.DeletedFiles
	s.ChangedFiles, s.ChangedFileSize, s.ChangedDeltaSize = c.ChangedFiles, c.ChangedFileSize, c.ChangedDeltaSize
	s.DeltaEntries, s.RawDeltaSize = c.DeltaEntries, c.RawDeltaSize
}

// journal writes events. The first error ends it: a run goes on without one,
// and cannot be resumed then. A nil journal takes everything. Safe for
// concurrent use.
type journal struct {
	mu    sync.Mutex
	file  *os.File
	w     *bufio.Writer
	enc   *gob.Encoder
	body  bytes.Buffer
	begun bool // the encoder has written something
	err   error
}

// newJournal makes a journal at path.
func newJournal(path string, head *journalHead) *journal {
	j := &journal{}
	if j.file, j.err = os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600); j.err != nil {
		return j
	}
	j.start()
	_, j.err = j.w.WriteString(journalMagic)
	j.add(&event{Kind: evHead, Head: head})
	j.sync()
	if j.err == nil {
		j.err = syncDir(filepath.Dir(path))
	}
	return j
}

// resumeJournal goes on with the journal of an interrupted run, behind what
// of it is kept.
func resumeJournal(in *Interrupted) *journal {
	j := &journal{}
	if j.file, j.err = os.OpenFile(in.path, os.O_WRONLY, 0); j.err != nil {
		return j
	}
	j.start()
	j.rewind(in.cut)
	j.add(&event{Kind: evKept, Number: len(in.Kept)})
	j.sync()
	return j
}

func (j *journal) start() {
	j.begun = false
	j.w = bufio.NewWriterSize(j.file, journalBuffer)
	j.enc = gob.NewEncoder(&j.body)
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// add notes an event.
func (j *journal) add(e *event) {
	if j == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return
	}
	j.body.Reset()
	if j.err = j.enc.Encode(e); j.err != nil {
		return
	}
	if j.body.Len() > maxEvent {
		j.err = fmt.Errorf("an event of %d bytes", j.body.Len())
		return
	}
	var head [journalFrame]byte
	if !j.begun {
		head[0], j.begun = 1, true
	}
	binary.BigEndian.PutUint32(head[1:], uint32(j.body.Len()))
	binary.BigEndian.PutUint32(head[5:], crc32.Checksum(j.body.Bytes(), castagnoli))
	if _, j.err = j.w.Write(head[:]); j.err == nil {
		_, j.err = j.w.Write(j.body.Bytes())
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// failure returns why the journal is none.
func (j *journal) failure() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.err
}

// sync makes durable what was noted.
func (j *journal) sync() {
	if j == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err == nil {
		j.err = j.w.Flush()
	}
	if j.err == nil {
		j.err = j.file.Sync()
	}
}

// Write notes a part of a signature.
func (j *journal) Write(p []byte) (int, error) {
	for part := range chunks(p, maxEventSig) {
		j.add(&event{Kind: evSig, Sig: part})
	}
	return len(p), nil
}

// chunks yields b in parts of at most n bytes.
func chunks(b []byte, n int) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) > 0 {
			k := min(n, len(b))
			if !yield(b[:k]) {
				return
			}
			b = b[k:]
		}
	}
}

// record notes an entry.
func (j *journal) record(rec *index.Record) {
	if j != nil {
		j.add(&event{Kind: evRecord, Record: rec, Holes: rec.Data != nil && len(rec.Data) == 0})
	}
}

// uploaded notes that a volume has arrived.
func (j *journal) uploaded(number int) {
	j.add(&event{Kind: evUploaded, Number: number})
	j.sync()
}

// offset returns the length of the journal so far.
func (j *journal) offset() (off int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err == nil {
		j.err = j.w.Flush()
	}
	if j.err == nil {
		off, j.err = j.file.Seek(0, io.SeekCurrent)
	}
	return off
}

// rewind forgets what was noted after offset.
func (j *journal) rewind(off int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err == nil {
		j.err = j.w.Flush()
	}
	if j.err == nil {
		j.err = j.file.Truncate(off)
	}
	if j.err == nil {
		_, j.err = j.file.Seek(off, io.SeekStart)
	}
	j.start()
}

// close closes the file and returns the first error there was.
func (j *journal) close() error {
	if j == nil || j.file == nil {
		return nil
	}
	j.sync()
	j.mu.Lock()
	defer j.mu.Unlock()
	err := errors.Join(j.err, j.file.Close())
	j.file = nil
	if j.err == nil {
		j.err = os.ErrClosed
	}
	return err
}

// journalReader reads events.
type journalReader struct {
	r    *bufio.Reader
	dec  *gob.Decoder
	body bytes.Buffer
	off  int64 // behind the last event
}

// ErrJournal says that a file is no journal that is understood here.
var ErrJournal = errors.New("not a journal of a backup")

func newJournalReader(r io.Reader) (*journalReader, error) {
	j := &journalReader{r: bufio.NewReaderSize(r, journalBuffer)}
	var magic [len(journalMagic)]byte
	if _, err := io.ReadFull(j.r, magic[:]); err != nil || string(magic[:]) != journalMagic {
		return nil, ErrJournal
	}
	j.off = int64(len(magic))
	return j, nil
}

// next returns the next event, io.EOF behind the last whole one.
func (j *journalReader) next() (*event, error) {
	var head [journalFrame]byte
	if _, err := io.ReadFull(j.r, head[:]); err != nil {
		return nil, tornIsEnd(err)
	}
	n := binary.BigEndian.Uint32(head[1:])
	if head[0] > 1 || n > maxEvent || j.dec == nil && head[0] == 0 {
		return nil, io.EOF
	}
	if head[0] == 1 {
		j.dec = gob.NewDecoder(&j.body)
	}
	j.body.Reset()
	if _, err := io.CopyN(&j.body, j.r, int64(n)); err != nil {
		return nil, tornIsEnd(err)
	}
	if crc32.Checksum(j.body.Bytes(), castagnoli) != binary.BigEndian.Uint32(head[5:]) {
		return nil, io.EOF
	}
	e := new(event)
	if err := j.dec.Decode(e); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrJournal, err)
	}
	j.off += journalFrame + int64(n)
	if e.Holes && e.Record != nil {
		e.Record.Data = []chain.Extent{}
	}
	return e, e.check()
}

// tornIsEnd makes an end in the middle of a frame the end.
func tornIsEnd(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return io.EOF
	}
	return err
}

// check makes sure that an event has what its kind needs.
func (e *event) check() error {
	ok := true
	switch e.Kind {
	case evHead:
		ok = e.Head != nil
	case evRecord:
		ok = e.Record != nil
	case evKnown:
		ok = e.Known != nil
	case evVolume:
		ok = e.Volume != nil
	case evPiece:
		ok = len(e.Sum) == len(trail{})
	}
	if !ok {
		return ErrJournal
	}
	return nil
}
