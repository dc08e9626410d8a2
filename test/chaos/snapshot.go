package main

import (
	"context"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// read lists the objects of all kinds that are compared.
func read(ctx context.Context, c client.Client, opts ...client.ListOption) ([]client.Object, error) {
	var out []client.Object
	for _, list := range []client.ObjectList{
		&corev1.NamespaceList{}, &corev1.PodList{}, &corev1.ServiceList{}, &corev1.ConfigMapList{}, &corev1.SecretList{}, &corev1.PersistentVolumeClaimList{},
	} {
		if err := c.List(ctx, list, opts...); err != nil {
			return nil, fmt.Errorf("listing %T: %w", list, err)
		}
		items, err := apimeta.ExtractList(list)
		if err != nil {
			return nil, fmt.Errorf("reading %T: %w", list, err)
		}
		for _, item := range items {
			if o, ok := item.(client.Object); ok {
				out = append(out, o)
			}
		}
	}
	return out, nil
}

// tenantSide reads a tenant.
func tenantSide(ctx context.Context, name string, c client.Client) (side, error) {
	all, err := read(ctx, c)
	if err != nil {
		return side{}, fmt.Errorf("reading %s: %w", name, err)
	}
	s := side{Name: name}
	referred := map[key]bool{}
	for _, o := range all {
		pod, ok := o.(*corev1.Pod)
		if !ok {
			continue
		}
		for _, k := range references(pod) {
			referred[k] = true
			if k.Kind == kindToken {
				s.Objects = append(s.Objects, object{Key: k, UID: string(pod.UID), Deleting: pod.DeletionTimestamp != nil})
			}
		}
	}
	for _, o := range all {
		flat := flatten(o)
		flat.Key = key{kindOf(o), o.GetNamespace(), o.GetName()}
		flat.UID = string(o.GetUID())
		flat.Unneeded = (flat.Key.Kind == kindConfigMap || flat.Key.Kind == kindSecret) && !referred[flat.Key]
		s.Objects = append(s.Objects, flat)
	}
	return s, nil
}

// references lists what a pod needs that has a replica only because of that.
func references(pod *corev1.Pod) []key {
	var out []key
	add := func(kind, name string) { out = append(out, key{kind, pod.Namespace, name}) }
	for _, v := range pod.Spec.Volumes {
		switch {
		case v.ConfigMap != nil:
			add(kindConfigMap, v.ConfigMap.Name)
		case v.Secret != nil:
			add(kindSecret, v.Secret.SecretName)
		case v.Projected != nil:
			for _, from := range v.Projected.Sources {
				switch {
				case from.ServiceAccountToken != nil:
					add(kindToken, pod.Name)
				case from.ConfigMap != nil:
					add(kindConfigMap, from.ConfigMap.Name)
				}
			}
		}
	}
	return out
}

// superSide reads the replicas of all tenants.
func superSide(ctx context.Context, c client.Client) ([]object, error) {
	all, err := read(ctx, c, client.MatchingLabels{names.LabelManagedBy: names.Syncer})
	if err != nil {
		return nil, fmt.Errorf("reading the super cluster: %w", err)
	}
	var out []object
	for _, o := range all {
		flat := flatten(o)
		annotations := o.GetAnnotations()
		flat.Key = key{kindOf(o), annotations[names.AnnotationNamespace], annotations[names.AnnotationName]}
		if flat.Key.Name == "" {
			flat.Key.Name = o.GetName()
		}
		flat.UID = annotations[names.AnnotationUID]
		flat.Tenant, flat.Place, flat.Replica = names.TenantID(o.GetLabels()[names.LabelTenant]), o.GetNamespace(), o.GetName()+" of UID "+string(o.GetUID())
		switch flat.Key.Kind {
		case kindNamespace:
			flat.Place = o.GetName()
			flat.Key = key{Kind: kindNamespace, Name: annotations[names.AnnotationNamespace]}
		case kindToken:
			flat.Key.Name, flat.Content = annotations[names.AnnotationPod], nil
		}
		out = append(out, flat)
	}
	return out, nil
}

func kindOf(o client.Object) string {
	switch o.(type) {
	case *corev1.Namespace:
		return kindNamespace
	case *corev1.Pod:
		return kindPod
	case *corev1.Service:
		return kindService
	case *corev1.ConfigMap:
		return kindConfigMap
	case *corev1.PersistentVolumeClaim:
		return kindClaim
	}
	if o.GetLabels()[names.LabelToken] != "" {
		return kindToken
	}
	return kindSecret
}

// flatten reads what must be the same on both sides. A map that has nothing is nil.
func flatten(o client.Object) object {
	out := object{Deleting: o.GetDeletionTimestamp() != nil, Content: map[string]string{}}
	for _, k := range []string{owner, revisionKey} {
		if text, ok := o.GetLabels()[k]; ok {
			out.Content[k] = text
		}
	}
	switch o := o.(type) {
	case *corev1.Namespace:
		out.Content = nil
	case *corev1.ConfigMap:
		out.Content = map[string]string{}
		for k, text := range o.Data {
			out.Content[k] = text
		}
	case *corev1.Secret:
		out.Content = map[string]string{}
		for k, text := range o.Data {
			out.Content[k] = string(text)
		}
	case *corev1.Service:
		out.Content["clusterIP"] = o.Spec.ClusterIP
		for _, p := range o.Spec.Ports {
			out.Content["port "+p.Name] = strconv.Itoa(int(p.Port))
		}
	case *corev1.PersistentVolumeClaim:
		out.Content["size"] = o.Spec.Resources.Requests.Storage().String()
		out.Status = map[string]string{"phase": string(o.Status.Phase)}
	case *corev1.Pod:
		out.Content["image"] = o.Spec.Containers[0].Image
		out.Status = map[string]string{"phase": string(o.Status.Phase), "ip": o.Status.PodIP, "node": o.Spec.NodeName, "ready": podReady(o)}
	}
	return out
}

func podReady(pod *corev1.Pod) string {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return string(c.Status)
		}
	}
	return string(metav1.ConditionUnknown)
}
