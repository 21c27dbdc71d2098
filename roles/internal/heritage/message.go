package heritage

import (
	"encoding/json"
	"errors"
	"fmt"

	"trafficd/queue"
)

// manifest is the body of a message that carries a Set: the name of each of
// its descriptors, in their order.
type manifest struct {
	Heritage []string `json:"heritage"`
}

// Marshal returns the Set as the body of a message and the descriptors to send
// with it, in that order. They stay the Set's, which must not be changed until
// the message is sent.
func (s *Set) Marshal() (body []byte, fds []int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := manifest{Heritage: s.namesLocked()}
	for _, name := range m.Heritage {
		fds = append(fds, s.fds[name])
	}
	if m.Heritage == nil {
		m.Heritage = []string{}
	}
	body, err = json.Marshal(m)
	if err != nil {
		return nil, nil, fmt.Errorf("heritage: marshal: %w", err)
	}
	return body, fds, nil
}

// Unmarshal makes a Set of a message that Marshal wrote. It takes over fds in
// every case: on an error all of them are closed. Each is checked (see Check).
func Unmarshal(body []byte, fds []int) (*Set, error) {
	names, err := parseManifest(body, len(fds))
	if err != nil {
		queue.CloseAll(fds)
		return nil, err
	}
	s := New()
	for i, name := range names {
		err := Check(name, fds[i])
		if err == nil {
			err = s.Put(name, fds[i])
		}
		if err != nil {
			queue.CloseAll(fds[i:])
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

func parseManifest(body []byte, fds int) ([]string, error) {
	var m manifest
	if err := json.Unmarshal(body, &m); err != nil {
		return nil, fmt.Errorf("heritage: unmarshal: %w", err)
	}
	if len(m.Heritage) != fds {
		return nil, fmt.Errorf("heritage: unmarshal: %d names for %d descriptors", len(m.Heritage), fds)
	}
	seen := make(map[string]bool)
	for _, name := range m.Heritage {
		if err := checkName(name); err != nil {
			return nil, err
		}
		if seen[name] {
			return nil, fmt.Errorf("heritage: unmarshal: %s named twice", name)
		}
		seen[name] = true
	}
	return m.Heritage, nil
}
