package pods

import (
	corev1 "k8s.io/api/core/v1"
)

// Reasons that many fields share.
const (
	whyPlain       = "means the same in the super cluster"
	whyNested      = "each field in it is decided by itself"
	whyMember      = "part of a field that is passed"
	whyMarked      = "the replica has a name that the operator's objects do not have"
	whyOwnClaim    = "only of a replica of the tenant's claim; until there is one, the pod waits"
	whyAccount     = "only of a replica of the tenant's account, or default, which every namespace has; until there is one, the pod waits"
	whyBaseline    = "the Pod Security levels baseline and restricted refuse it"
	whyVolumeType  = "volumes of this type are not offered; use configMap, secret, emptyDir, projected, downwardAPI, persistentVolumeClaim, ephemeral or image"
	whyClaims      = "resource claims are not offered here"
	whyNodeStatus  = "as the node reports it"
	whyPriority    = "only of a class that the super cluster offers: priorities of the tenant's own say nothing about other tenants' pods"
	whyMergedKeys  = "keys that the tenant's API server already merged into the label selector are left out, they would be refused as duplicates"
	whyPodLabels   = "pods have the same labels on both sides; keys that do not go down have the same replacement on pods and in selectors"
	whyNodes       = "nodes have the same names and labels on both sides; where labels of the tenant's own matter, names of nodes take its place"
	whyClaimStatus = "names objects that only exist in the super cluster"
)

// table is the decision about every field that a pod is made of. It is both what the translation does and what the
// documentation says: a field that is not in it is not copied, and a test fails until somebody decides.
func table() []rules {
	return append(specTable(), statusTable()...)
}

func specTable() []rules {
	containerRules := []rule{
		pass(whyPlain, "Name", "Image", "Command", "Args", "WorkingDir", "ResizePolicy", "RestartPolicy", "RestartPolicyRules",
			"VolumeMounts", "VolumeDevices", "TerminationMessagePath", "TerminationMessagePolicy", "ImagePullPolicy", "Stdin", "StdinOnce", "TTY"),
		pass(whyNested, "Ports", "EnvFrom", "Resources", "LivenessProbe", "ReadinessProbe", "StartupProbe", "Lifecycle", "SecurityContext"),
		mapped("the address of the tenant's API server comes first, where the kubelet would put the super cluster's", "Env"),
	}
	return []rules{
		decidedBy(finishSpec,
			pass(whyNested, "Volumes", "InitContainers", "Containers", "SecurityContext", "Affinity", "TopologySpreadConstraints", "Resources", "HostAliases", "ReadinessGates", "OS", "ResourceClaims"),
			pass(whyPlain, "RestartPolicy", "TerminationGracePeriodSeconds", "ActiveDeadlineSeconds", "ShareProcessNamespace", "Hostname", "EnableServiceLinks"),
			pass("a container that runs first writes the name that follows from it in the tenant into /etc/hosts", "Subdomain"),
			pass(whyAccount, "ServiceAccountName"),
			pass(whyNested, "ImagePullSecrets"),
			pass(whyNodes, "NodeSelector"),
			mapped("added through the ephemeralcontainers subresource once the pod exists", "EphemeralContainers"),
			mapped("ClusterFirst means the tenant's DNS, with the search path of the tenant's namespace", "DNSPolicy", "DNSConfig"),
			mapped("a node chosen in advance becomes a required node affinity, so that the scheduler has its say", "NodeName"),
			mapped("those for the operator's own taints are left out, and one for all taints covers those of the node life cycle and the others that the tenant sees", "Tolerations"),
			mapped("becomes hostnameOverride, because the kubelet would take the names of the super cluster", "SetHostnameAsFQDN", "HostnameOverride"),
			mapped("only false passes: a user namespace of its own", "HostUsers"),
			set("false: tokens of the super cluster are never mounted", "AutomountServiceAccountToken"),
			drop("the API server fills it from serviceAccountName", "DeprecatedServiceAccount"),
			drop("pods are scheduled by the default scheduler of the super cluster, which the event SchedulerIgnored says, or were by the one of the tenant that has the name", "SchedulerName"),
			mapped(whyPriority, "PriorityClassName"),
			drop("follow from the priority class of the super cluster", "Priority", "PreemptionPolicy"),
			drop("follows from the runtime class of the super cluster", "Overhead"),
			drop("the pod is not replicated before the last gate is removed", "SchedulingGates"),
			privilege(whyBaseline, "HostNetwork", "HostPID", "HostIPC"),
			mapped("an offered class, or one with the handler of the tenant's own; without one the pod is refused", "RuntimeClassName"),
			refused("scheduling in groups is not offered", "SchedulingGroup"),
		),

		decidedBy(finishContainer, containerRules...),
		decidedBy(finishEphemeral, containerRules...),
		decided[corev1.EphemeralContainer](
			pass(whyNested, "EphemeralContainerCommon"),
			pass(whyPlain, "TargetContainerName")),
		decided[corev1.ContainerPort](
			pass(whyMember, "Name", "ContainerPort", "Protocol"),
			privilege(whyBaseline, "HostPort", "HostIP")),
		decided[corev1.ResourceRequirements](
			pass("means the same in the super cluster; resources that stand for devices only of classes that are offered", "Limits", "Requests"),
			pass(whyMember, "Claims")),
		decided[corev1.ResourceClaim](pass(whyMember, "Name", "Request")),
		decidedBy(finishClaim,
			pass(whyMember, "Name"),
			mapped("the claim that the tenant's control plane made of the template takes its place", "ResourceClaimName", "ResourceClaimTemplateName")),
		decided[corev1.ContainerResizePolicy](pass(whyMember, "ResourceName", "RestartPolicy")),
		decided[corev1.ContainerRestartRule](pass(whyMember, "Action", "ExitCodes")),
		decided[corev1.ContainerRestartRuleOnExitCodes](pass(whyMember, "Operator", "Values")),
		decided[corev1.VolumeMount](pass(whyMember, "Name", "ReadOnly", "RecursiveReadOnly", "MountPath", "SubPath", "MountPropagation", "SubPathExpr")),
		decided[corev1.VolumeDevice](pass(whyMember, "Name", "DevicePath")),

		decided[corev1.EnvVar](
			pass(whyMember, "Name", "Value"),
			pass(whyNested, "ValueFrom")),
		decided[corev1.EnvVarSource](
			pass(whyNested, "FieldRef", "ResourceFieldRef", "ConfigMapKeyRef", "SecretKeyRef"),
			pass("reads a volume of the same pod", "FileKeyRef")),
		decided[corev1.FileKeySelector](pass(whyMember, "VolumeName", "Path", "Key", "Optional")),
		decidedBy(finishFieldRef,
			pass(whyMember, "APIVersion"),
			mapped("what differs between tenant and super cluster is read from annotations that hold the tenant's view", "FieldPath")),
		decided[corev1.ResourceFieldSelector](pass(whyMember, "ContainerName", "Resource", "Divisor")),
		decidedBy(func(_ *translation, dst, src *corev1.ConfigMapKeySelector) error {
			return configMap(&dst.Name, src.Name)
		},
			mapped(whyMarked, "LocalObjectReference"),
			pass(whyMember, "Key", "Optional")),
		decidedBy(func(_ *translation, dst, src *corev1.SecretKeySelector) error { return secret(&dst.Name, src.Name) },
			mapped(whyMarked, "LocalObjectReference"),
			pass(whyMember, "Key", "Optional")),
		decided[corev1.EnvFromSource](
			pass(whyMember, "Prefix"),
			pass(whyNested, "ConfigMapRef", "SecretRef")),
		decidedBy(func(_ *translation, dst, src *corev1.ConfigMapEnvSource) error { return configMap(&dst.Name, src.Name) },
			mapped(whyMarked, "LocalObjectReference"),
			pass(whyMember, "Optional")),
		decidedBy(func(_ *translation, dst, src *corev1.SecretEnvSource) error { return secret(&dst.Name, src.Name) },
			mapped(whyMarked, "LocalObjectReference"),
			pass(whyMember, "Optional")),
		decidedBy(func(_ *translation, dst, src *corev1.LocalObjectReference) error { return secret(&dst.Name, src.Name) },
			mapped("names a Secret: "+whyMarked, "Name")),

		decided[corev1.Probe](
			pass(whyNested, "ProbeHandler"),
			pass(whyMember, "InitialDelaySeconds", "TimeoutSeconds", "PeriodSeconds", "SuccessThreshold", "FailureThreshold", "TerminationGracePeriodSeconds")),
		decided[corev1.ProbeHandler](pass(whyNested, "Exec", "HTTPGet", "TCPSocket", "GRPC")),
		decided[corev1.Lifecycle](
			pass(whyNested, "PostStart", "PreStop"),
			pass(whyPlain, "StopSignal")),
		decided[corev1.LifecycleHandler](pass(whyNested, "Exec", "HTTPGet", "TCPSocket", "Sleep")),
		decided[corev1.ExecAction](pass(whyMember, "Command")),
		decided[corev1.HTTPGetAction](
			pass(whyMember, "Path", "Port", "Scheme", "HTTPHeaders"),
			privilege("the kubelet would call other hosts from the node's network", "Host")),
		decided[corev1.HTTPHeader](pass(whyMember, "Name", "Value")),
		decided[corev1.TCPSocketAction](
			pass(whyMember, "Port"),
			privilege("the kubelet would call other hosts from the node's network", "Host")),
		decided[corev1.GRPCAction](pass(whyMember, "Port", "Service")),
		decided[corev1.SleepAction](pass(whyMember, "Seconds")),

		decided[corev1.SecurityContext](
			pass("as far as the tenant's Pod Security level allows", "Capabilities", "SELinuxOptions", "WindowsOptions", "RunAsUser", "RunAsGroup", "RunAsNonRoot",
				"ReadOnlyRootFilesystem", "AllowPrivilegeEscalation", "ProcMount", "SeccompProfile", "AppArmorProfile"),
			privilege(whyBaseline, "Privileged")),
		decided[corev1.PodSecurityContext](
			pass("as far as the tenant's Pod Security level allows", "SELinuxOptions", "WindowsOptions", "RunAsUser", "RunAsGroup", "RunAsNonRoot", "SupplementalGroups",
				"SupplementalGroupsPolicy", "FSGroup", "Sysctls", "FSGroupChangePolicy", "SeccompProfile", "AppArmorProfile", "SELinuxChangePolicy")),
		decided[corev1.Capabilities](pass(whyMember, "Add", "Drop")),
		decided[corev1.SELinuxOptions](pass(whyMember, "User", "Role", "Type", "Level")),
		decided[corev1.WindowsSecurityContextOptions](
			pass(whyMember, "RunAsUserName"),
			refused("GMSA credential specs of the super cluster are not offered", "GMSACredentialSpecName", "GMSACredentialSpec"),
			privilege(whyBaseline, "HostProcess")),
		decided[corev1.SeccompProfile](pass(whyMember, "Type", "LocalhostProfile")),
		decided[corev1.AppArmorProfile](pass(whyMember, "Type", "LocalhostProfile")),
		decided[corev1.Sysctl](pass(whyMember, "Name", "Value")),

		decided[corev1.Affinity](pass(whyNested, "NodeAffinity", "PodAffinity", "PodAntiAffinity")),
		decided[corev1.NodeAffinity](pass(whyNested, "RequiredDuringSchedulingIgnoredDuringExecution", "PreferredDuringSchedulingIgnoredDuringExecution")),
		decided[corev1.NodeSelector](pass(whyMember, "NodeSelectorTerms")),
		decided[corev1.NodeSelectorTerm](pass(whyNodes, "MatchExpressions", "MatchFields")),
		decided[corev1.NodeSelectorRequirement](pass(whyMember, "Key", "Operator", "Values")),
		decided[corev1.PreferredSchedulingTerm](pass(whyMember, "Weight", "Preference")),
		decided[corev1.PodAffinity](pass(whyNested, "RequiredDuringSchedulingIgnoredDuringExecution", "PreferredDuringSchedulingIgnoredDuringExecution")),
		decided[corev1.PodAntiAffinity](pass(whyNested, "RequiredDuringSchedulingIgnoredDuringExecution", "PreferredDuringSchedulingIgnoredDuringExecution")),
		decided[corev1.WeightedPodAffinityTerm](
			pass(whyMember, "Weight"),
			pass(whyNested, "PodAffinityTerm")),
		decidedBy(finishAffinityTerm,
			mapped(whyPodLabels, "LabelSelector"),
			pass("nodes have the same names and labels on both sides", "TopologyKey"),
			mapped("become super namespaces of the tenant", "Namespaces"),
			mapped("becomes the names of the super namespaces that it selects in the tenant when the pod is created; later changes of labels have no effect on it", "NamespaceSelector"),
			mapped(whyMergedKeys, "MatchLabelKeys", "MismatchLabelKeys")),
		decidedBy(finishSpread,
			mapped(whyPodLabels, "LabelSelector"),
			pass("nodes have the same names and labels on both sides", "TopologyKey", "NodeAffinityPolicy", "NodeTaintsPolicy"),
			pass(whyMember, "MaxSkew", "WhenUnsatisfiable", "MinDomains"),
			mapped(whyMergedKeys, "MatchLabelKeys")),
		decided[corev1.Toleration](pass(whyMember, "Key", "Operator", "Value", "Effect", "TolerationSeconds")),
		decided[corev1.HostAlias](pass("only the pod's own hosts file is concerned", "IP", "Hostnames")),
		decided[corev1.PodDNSConfig](pass(whyMember, "Nameservers", "Searches", "Options")),
		decided[corev1.PodDNSConfigOption](pass(whyMember, "Name", "Value")),
		decided[corev1.PodReadinessGate](pass("the tenant's conditions of that type are copied to the replica", "ConditionType")),
		decided[corev1.PodOS](pass(whyMember, "Name")),

		decidedBy(finishVolume,
			pass(whyMember, "Name"),
			pass(whyNested, "VolumeSource")),
		decided[corev1.VolumeSource](
			pass(whyPlain, "EmptyDir", "Image"),
			pass(whyNested, "Secret", "PersistentVolumeClaim", "ConfigMap", "DownwardAPI", "Projected"),
			mapped("becomes a reference to the claim, which the tenant's control plane makes", "Ephemeral"),
			privilege(whyBaseline, "HostPath"),
			refused(whyVolumeType, "GCEPersistentDisk", "AWSElasticBlockStore", "GitRepo", "NFS", "ISCSI", "Glusterfs", "RBD", "FlexVolume", "Cinder", "CephFS",
				"Flocker", "FC", "AzureFile", "VsphereVolume", "Quobyte", "AzureDisk", "PhotonPersistentDisk", "PortworxVolume", "ScaleIO", "StorageOS", "CSI")),
		decided[corev1.HostPathVolumeSource](pass(whyMember, "Path", "Type")),
		decided[corev1.EmptyDirVolumeSource](pass(whyMember, "Medium", "SizeLimit")),
		decided[corev1.ImageVolumeSource](pass(whyMember, "Reference", "PullPolicy")),
		decidedBy(func(_ *translation, dst, src *corev1.SecretVolumeSource) error {
			return secret(&dst.SecretName, src.SecretName)
		},
			mapped(whyMarked, "SecretName"),
			pass(whyMember, "Items", "DefaultMode", "Optional")),
		decided[corev1.PersistentVolumeClaimVolumeSource](
			pass(whyOwnClaim, "ClaimName"),
			pass(whyMember, "ReadOnly")),
		decided[corev1.EphemeralVolumeSource](drop("the tenant's control plane makes the claim from it", "VolumeClaimTemplate")),
		decidedBy(func(_ *translation, dst, src *corev1.ConfigMapVolumeSource) error {
			return configMap(&dst.Name, src.Name)
		},
			mapped(whyMarked, "LocalObjectReference"),
			pass(whyMember, "Items", "DefaultMode", "Optional")),
		decided[corev1.KeyToPath](pass(whyMember, "Key", "Path", "Mode")),
		decided[corev1.DownwardAPIVolumeSource](pass(whyMember, "Items", "DefaultMode")),
		decided[corev1.DownwardAPIVolumeFile](
			pass(whyMember, "Path", "Mode"),
			pass(whyNested, "FieldRef", "ResourceFieldRef")),
		decided[corev1.ProjectedVolumeSource](pass(whyMember, "Sources", "DefaultMode")),
		decided[corev1.VolumeProjection](
			pass(whyNested, "Secret", "DownwardAPI", "ConfigMap"),
			mapped("becomes a Secret with a token of the tenant's API server", "ServiceAccountToken"),
			refused("trust bundles are not offered", "ClusterTrustBundle"),
			refused("pod certificates are not offered", "PodCertificate")),
		decidedBy(func(_ *translation, dst, src *corev1.SecretProjection) error { return secret(&dst.Name, src.Name) },
			mapped(whyMarked, "LocalObjectReference"),
			pass(whyMember, "Items", "Optional")),
		decided[corev1.DownwardAPIProjection](pass(whyMember, "Items")),
		decidedBy(func(_ *translation, dst, src *corev1.ConfigMapProjection) error {
			return configMap(&dst.Name, src.Name)
		},
			mapped(whyMarked, "LocalObjectReference"),
			pass(whyMember, "Items", "Optional")),
		decided[corev1.ServiceAccountTokenProjection](
			mapped("asked for when the token is requested", "Audience", "ExpirationSeconds"),
			mapped("the path of the key in the Secret; the mode is that of the kubelet, as far as a file of root can have it", "Path")),
	}
}

func statusTable() []rules {
	return []rules{
		decidedBy(finishStatus,
			pass(whyNodeStatus, "Phase", "Reason", "HostIP", "HostIPs", "PodIP", "PodIPs", "StartTime", "Resize", "AllocatedResources", "Resources"),
			mapped("the tenant's generation, once the node has seen what the tenant asked for", "ObservedGeneration"),
			mapped("those of the node and the scheduler, with those that the tenant's own controllers set", "Conditions"),
			mapped("without names of the super cluster", "Message"),
			mapped("until the pod is bound", "NominatedNodeName"),
			mapped("only of containers that the tenant knows", "InitContainerStatuses", "ContainerStatuses", "EphemeralContainerStatuses"),
			set("the tenant's API server decides it when the pod is created", "QOSClass"),
			set("belongs to the tenant's control plane", "ResourceClaimStatuses"),
			drop(whyClaimStatus, "ExtendedResourceClaimStatus", "NodeAllocatableResourceClaimStatuses")),
		decidedBy(finishCondition,
			pass(whyNodeStatus, "Type", "Status", "LastProbeTime", "LastTransitionTime", "Reason"),
			mapped("without names of the super cluster", "Message"),
			mapped("the tenant's generation, once the node has seen what the tenant asked for", "ObservedGeneration")),
		decided[corev1.HostIP](pass(whyMember, "IP")),
		decided[corev1.PodIP](pass(whyMember, "IP")),
		decidedBy(finishContainerStatus,
			pass(whyNodeStatus, "Name", "Ready", "RestartCount", "Image", "ImageID", "ContainerID", "Started", "AllocatedResources", "Resources", "User", "StopSignal"),
			pass(whyNested, "State", "LastTerminationState"),
			mapped("only of volumes that the tenant knows", "VolumeMounts"),
			drop("names devices of the node", "AllocatedResourcesStatus")),
		decided[corev1.ContainerState](pass(whyNested, "Waiting", "Running", "Terminated")),
		decidedBy(func(t *translation, dst, src *corev1.ContainerStateWaiting) error {
			return t.scrub(&dst.Message, src.Message)
		},
			pass(whyNodeStatus, "Reason"),
			mapped("without names of the super cluster", "Message")),
		decided[corev1.ContainerStateRunning](pass(whyNodeStatus, "StartedAt")),
		decidedBy(func(t *translation, dst, src *corev1.ContainerStateTerminated) error {
			return t.scrub(&dst.Message, src.Message)
		},
			pass(whyNodeStatus, "ExitCode", "Signal", "Reason", "StartedAt", "FinishedAt", "ContainerID"),
			mapped("without names of the super cluster", "Message")),
		decided[corev1.VolumeMountStatus](pass(whyNodeStatus, "Name", "MountPath", "ReadOnly", "RecursiveReadOnly", "VolumeStatus")),
		decided[corev1.VolumeStatus](pass(whyMember, "Image")),
		decided[corev1.ImageVolumeStatus](pass(whyNodeStatus, "ImageRef")),
		decided[corev1.ContainerUser](pass(whyMember, "Linux")),
		decided[corev1.LinuxContainerUser](pass(whyNodeStatus, "UID", "GID", "SupplementalGroups")),
	}
}
