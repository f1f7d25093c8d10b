package jsonread

import "fmt"

// Members says what to do with the values of an object's members, by key.
type Members[R Source] map[string]func(R) error

// Source is what members are read from.
type Source interface {
	Object(member func(key []byte) error) error
	Skip() error
}

// Read walks an object. Members that are not listed are skipped; a listed one may be there once.
func (m Members[R]) Read(r R) error {
	var seen map[string]bool // made for the first key that is known: empty objects cost nothing
	return r.Object(func(key []byte) error {
		do, ok := m[string(key)]
		if !ok {
			if err := r.Skip(); err != nil {
				return fmt.Errorf("%.60q: %w", key, err)
			}
			return nil
		}
		if seen[string(key)] {
			return fmt.Errorf("%.60q is there twice", key)
		}
		if seen == nil {
			seen = make(map[string]bool, len(m))
		}
		seen[string(key)] = true
		if err := do(r); err != nil {
			return fmt.Errorf("%.60q: %w", key, err)
		}
		return nil
	})
}
