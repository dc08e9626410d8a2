package vnagent

import (
	"encoding/json"
	"mime"
	"net/http"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Texts for refusals whose real reason is about the super cluster. The real reason is logged.
const (
	messageForbidden   = "the administrator of this cluster does not allow the request"
	messageBusy        = "the node is busy, try again later"
	messageUnavailable = "the node cannot answer at the moment, try again later"
)

// keepHeaders removes from a response what the tenant has no use for: the rest tells about the super kube-apiserver.
func keepHeaders(header http.Header) {
	for name := range header {
		switch name {
		case "Content-Type", "Connection", "Upgrade", "X-Stream-Protocol-Version",
			"Sec-Websocket-Accept", "Sec-Websocket-Protocol", "Sec-Websocket-Version":
		default:
			header.Del(name)
		}
	}
}

// TranslateError returns what a tenant is told when the super kube-apiserver refused with the given code and body.
// Reasons that are about the tenant's own pod pass, with the tenant's namespace in place of the super namespace; others
// become a fixed text.
func TranslateError(code int, contentType string, body []byte, superNamespace, namespace string) *RequestError {
	switch {
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return &RequestError{Code: http.StatusForbidden, Message: messageForbidden}
	case code == http.StatusTooManyRequests:
		return &RequestError{Code: code, Message: messageBusy}
	case code != http.StatusInternalServerError && (code < 400 || code >= 500):
		return &RequestError{Code: http.StatusServiceUnavailable, Message: messageUnavailable}
	}
	message := strings.TrimSpace(string(body))
	if mediaType, _, _ := mime.ParseMediaType(contentType); mediaType == "application/json" {
		status := metav1.Status{}
		if err := json.Unmarshal(body, &status); err != nil || status.Message == "" {
			return &RequestError{Code: http.StatusServiceUnavailable, Message: messageUnavailable}
		}
		message = status.Message
	}
	mentions := func(text string) bool { return strings.Contains(message, text) }
	if slices.ContainsFunc([]string{"admission webhook", "ValidatingAdmissionPolicy"}, mentions) {
		return &RequestError{Code: http.StatusForbidden, Message: messageForbidden}
	}
	// Failures to reach the kubelet or the runtime name addresses and sockets of the node.
	if slices.ContainsFunc([]string{"dial tcp", "dial unix", "error dialing backend", "x509:"}, mentions) {
		return &RequestError{Code: http.StatusServiceUnavailable, Message: messageUnavailable}
	}
	return &RequestError{Code: code, Message: strings.ReplaceAll(message, superNamespace, namespace)}
}
