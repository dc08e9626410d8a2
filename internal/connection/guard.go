package connection

import (
	"context"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
)

const (
	// watchGrace is how much longer a watch may last than what was asked for; watchTimeout is for a watch that does not say.
	watchGrace   = 30 * time.Second
	watchTimeout = time.Hour
	// maxRetryAfter bounds, in seconds, how long an answer can make a client wait before it asks again.
	maxRetryAfter = 30
	// maxError bounds the bytes of an answer that says that the request failed.
	maxError = 64 << 10
	// maxWatch bounds the bytes of a whole watch. The initial events of one fill a cache, so this bounds a list that is streamed.
	maxWatch = 1 << 30
)

// guard bounds what comes back from an API server. It is safe for concurrent use.
type guard struct {
	next      http.RoundTripper
	transport *http.Transport
	max       int64
	// heavy is held by the one answer that may be heavier than a light one.
	heavy chan struct{}
}

// CloseIdleConnections is called by http.Client.
func (g *guard) CloseIdleConnections() { g.transport.CloseIdleConnections() }

// RoundTrip implements http.RoundTripper.
func (g *guard) RoundTrip(request *http.Request) (*http.Response, error) {
	timeout, watching := deadline(request.URL.Query())
	ctx, cancel := context.WithTimeout(request.Context(), timeout)
	response, err := g.next.RoundTrip(request.WithContext(ctx))
	if err != nil {
		cancel()
		if watching {
			// Clients take a watch that times out for one that ended, and would open the next without a word.
			return nil, fmt.Errorf("opening a watch: %w", err)
		}
		return nil, err
	}
	if err := check(response); err != nil {
		_ = response.Body.Close()
		cancel()
		return nil, fmt.Errorf("the API server's answer for %s is refused: %w", place(request.URL), err)
	}
	if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err != nil || seconds > maxRetryAfter {
		response.Header.Del("Retry-After")
	}
	response.Body = g.body(ctx, request, response, watching, cancel)
	return response, nil
}

// deadline returns how long a request may take, and whether it is a watch.
func deadline(query url.Values) (time.Duration, bool) {
	if watching, err := strconv.ParseBool(query.Get("watch")); err != nil || !watching {
		return requestTimeout, false
	}
	seconds, err := strconv.Atoi(query.Get("timeoutSeconds"))
	asked := time.Duration(seconds) * time.Second
	if err != nil || asked <= 0 || asked > watchTimeout {
		return watchTimeout, true
	}
	return asked + watchGrace, true
}

// check says what is wrong with an answer. Of the types of content, only those are taken that are weighed. It sets the type
// when there is none: otherwise the answer would be decoded as what was asked for.
func check(response *http.Response) error {
	mediaType, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	switch code := response.StatusCode; {
	case code < http.StatusOK || code >= http.StatusMultipleChoices && code < http.StatusBadRequest:
		return fmt.Errorf("its status is %d, which leads elsewhere", code)
	case mediaType == "":
		response.Header.Set("Content-Type", runtime.ContentTypeJSON)
	case mediaType != runtime.ContentTypeJSON && mediaType != runtime.ContentTypeProtobuf && code < http.StatusBadRequest:
		return fmt.Errorf("its type is %s", Shorten(mediaType))
	}
	return nil
}

// body returns the body of the answer, bounded by what kind of answer it is.
func (g *guard) body(ctx context.Context, request *http.Request, response *http.Response, watching bool, cancel context.CancelFunc) *body {
	tally := &tally{what: place(request.URL), max: g.max, heavy: g.heavy, done: ctx.Done()}
	b := &body{
		tally: tally, in: response.Body, cancel: cancel,
		rest: maxWatch, over: fmt.Errorf("%w: the API server sends more than %d bytes for %s", ErrTooLarge, maxWatch, tally.what),
	}
	if response.StatusCode >= http.StatusBadRequest {
		// What is cut off cannot be decoded; the status code still says what failed.
		b.rest, b.over, watching = maxError, io.EOF, false
	}
	mediaType, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	switch {
	case mediaType != runtime.ContentTypeProtobuf:
		b.next = (&jsonScanner{in: b, events: watching}).next
	case watching:
		b.next = (&protobufEvents{in: b}).next
	default:
		b.next = (&protobufAnswer{in: b}).next
	}
	return b
}
