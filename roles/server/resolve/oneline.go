package resolve

import "strings"

// OneLine makes one error of several, as errors.Join does, for a line of a log or a table; nil: there are none.
func OneLine(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	return oneLine(errs)
}

type oneLine []error

func (e oneLine) Error() string {
	var texts []string
	for _, err := range e {
		texts = append(texts, err.Error())
	}
	return strings.Join(texts, "; ")
}

func (e oneLine) Unwrap() []error { return e }
