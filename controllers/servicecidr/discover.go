package servicecidr

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

const (
	// validRange is how API servers begin to say what their range is.
	validRange = "The range of valid IPs is "
	// elsewhereIPv4 and elsewhereIPv6 are for documentation, so no range contains them.
	elsewhereIPv4, elsewhereIPv6 = "192.0.2.1", "2001:db8::1"
)

// UnknownRangeError says why the ranges of a super cluster are not known although it answers.
type UnknownRangeError struct{ Message string }

// Error implements error.
func (e *UnknownRangeError) Error() string { return e.Message }

// DiscoverRanges returns the ranges that the super cluster was started with, the primary one first: those of the ServiceCIDR
// "kubernetes", or, before Kubernetes 1.33, those that the API server names when it refuses addresses of Services. It creates
// nothing. The error is an UnknownRangeError when the API server answers and does not tell.
func DiscoverRanges(ctx context.Context, live client.Reader, dryRun client.Writer) (iprange.Ranges, error) {
	object := &networkingv1.ServiceCIDR{}
	err := live.Get(ctx, client.ObjectKey{Name: defaultName}, object)
	if err == nil {
		ranges, err := iprange.Parse(strings.Join(object.Spec.CIDRs, ","))
		if err != nil {
			return nil, fmt.Errorf("reading ServiceCIDR %s: %w", defaultName, err)
		}
		return ranges, nil
	}
	if !Absent(err) {
		return nil, fmt.Errorf("reading ServiceCIDR %s: %w", defaultName, err)
	}
	// With the API, ranges that an API server names in a dry run can be any of those that it has.
	if err := live.List(ctx, &networkingv1.ServiceCIDRList{}, client.Limit(1)); err == nil {
		return nil, &UnknownRangeError{Message: "the super cluster serves ServiceCIDRs, but has none with the name " + defaultName}
	} else if !Absent(err) {
		return nil, fmt.Errorf("listing ServiceCIDRs: %w", err)
	}
	return named(ctx, dryRun)
}

// named returns the ranges that the API server names.
func named(ctx context.Context, dryRun client.Writer) (iprange.Ranges, error) {
	var ranges iprange.Ranges
	var told []string
	for _, elsewhere := range []string{elsewhereIPv4, elsewhereIPv6} {
		_, err := TryService(ctx, dryRun, "", elsewhere)
		prefix, ok := rangeIn(err)
		switch {
		case ok:
			ranges = append(ranges, prefix)
		case err == nil:
			told = append(told, elsewhere+" is an address of it")
		case IsAnswer(err):
			told = append(told, err.Error())
		default:
			return nil, fmt.Errorf("asking for the range of Services: %w", err)
		}
	}
	if len(ranges) == 0 {
		return nil, &UnknownRangeError{Message: "the API server does not name its range: " + strings.Join(told, "; ")}
	}
	if len(ranges) == 1 {
		return ranges, nil
	}
	service, err := TryService(ctx, dryRun, "", "")
	if err != nil {
		return nil, fmt.Errorf("asking for the first IP family of Services: %w", err)
	}
	if families := service.Spec.IPFamilies; len(families) > 0 && families[0] == corev1.IPv6Protocol {
		ranges[0], ranges[1] = ranges[1], ranges[0]
	}
	return ranges, nil
}

// TryService creates a Service with the given cluster IP, or with one that the API server chooses, in a dry run. Without an IP
// family, the API server chooses that.
func TryService(ctx context.Context, dryRun client.Writer, family corev1.IPFamily, clusterIP string) (*corev1.Service, error) {
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: "vc-preflight"},
		Spec:       corev1.ServiceSpec{ClusterIP: clusterIP, Ports: []corev1.ServicePort{{Port: 443}}},
	}
	if family != "" {
		service.Spec.IPFamilies = []corev1.IPFamily{family}
	}
	err := dryRun.Create(ctx, service, client.DryRunAll, client.FieldOwner(names.Manager))
	return service, err
}

// rangeIn returns the range that an error of the API server names.
func rangeIn(err error) (netip.Prefix, bool) {
	if err == nil {
		return netip.Prefix{}, false
	}
	_, after, _ := strings.Cut(err.Error(), validRange)
	text := after
	if end := strings.IndexFunc(after, func(r rune) bool { return !strings.ContainsRune("0123456789abcdefABCDEF.:/", r) }); end >= 0 {
		text = after[:end]
	}
	prefix, err := netip.ParsePrefix(text)
	return prefix.Masked(), err == nil
}

// IsAnswer says whether an error is an answer to the request itself, rather than a failure on the way or of the API server.
func IsAnswer(err error) bool {
	status, ok := errors.AsType[*apierrors.StatusError](err)
	// A webhook that fails is an internal error.
	return ok && (status.ErrStatus.Code < 500 || apierrors.IsInternalError(err)) && !apierrors.IsTooManyRequests(err) && !apierrors.IsUnauthorized(err)
}
