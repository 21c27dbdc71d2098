package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"trafficd/roles/internal/exitcode"
)

// MaxBody is the longest request body, in bytes.
const MaxBody = 64 << 10

// Read decodes the body of a request into v, which is one of this package's request
// types. An empty body is the zero value. The error is an *Error with status 400 or 413.
func Read(w http.ResponseWriter, r *http.Request, v any) error {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return Errorf(http.StatusRequestEntityTooLarge, exitcode.Usage, "request body is longer than %d bytes", MaxBody)
	case err != nil:
		return Errorf(http.StatusBadRequest, exitcode.Failed, "read request: %v", err)
	}
	return Decode(b, v)
}

// Decode decodes a request body strictly: one JSON value, no unknown fields, nothing
// after it. The error is an *Error.
func Decode(b []byte, v any) error {
	if len(bytes.TrimSpace(b)) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return Errorf(http.StatusBadRequest, exitcode.Usage, "request body: %v", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return Errorf(http.StatusBadRequest, exitcode.Usage, "request body: more than one value")
	}
	return nil
}

// Errorf makes an Error.
func Errorf(status int, exit exitcode.Code, format string, args ...any) *Error {
	return &Error{Text: fmt.Sprintf(format, args...), Exit: exit, Status: status}
}

// Write answers with v, status 200.
func Write(w http.ResponseWriter, v any) { write(w, http.StatusOK, v) }

// Refuse answers with err; one that is no *Error is an internal error of status 500.
func Refuse(w http.ResponseWriter, err error) {
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{Text: err.Error(), Exit: exitcode.Of(err)}
	}
	status := e.Status
	if status < 400 {
		status = http.StatusInternalServerError
	}
	write(w, status, errorBody{e})
}

func write(w http.ResponseWriter, status int, v any) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// The client may be gone; then nobody is left to be told.
	_ = json.NewEncoder(w).Encode(v)
}
