{{/* Labels of every object. Call with (dict "root" $ "component" NAME). */}}
{{- define "virtualcluster.labels" -}}
{{ include "virtualcluster.selector" . }}
app.kubernetes.io/part-of: virtualcluster
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{/* Labels by which the pods of a component are selected. */}}
{{- define "virtualcluster.selector" -}}
app.kubernetes.io/name: {{ .component }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end }}

{{/* Name of the image of a component. */}}
{{- define "virtualcluster.ref" -}}
{{ printf "%s/%s:%s" .root.Values.image.repository .component (.root.Values.image.tag | default .root.Chart.AppVersion) }}
{{- end }}

{{/* Image of a component. */}}
{{- define "virtualcluster.image" -}}
image: {{ include "virtualcluster.ref" . | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
{{- end }}

{{/* Names in a list of references, separated by commas. */}}
{{- define "virtualcluster.names" -}}
{{- $names := list }}
{{- range . }}{{ $names = append $names .name }}{{ end }}
{{- join "," $names }}
{{- end }}

{{/* Arguments that every component has. */}}
{{- define "virtualcluster.logging" -}}
- --zap-log-level={{ .Values.logging.level }}
- --zap-encoder={{ .Values.logging.format }}
{{- end }}

{{/* Fields of every pod. Call with (dict "root" $ "component" NAME "values" VALUES). */}}
{{- define "virtualcluster.pod" -}}
serviceAccountName: {{ .component }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 0 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{- toYaml . | nindent 0 }}
{{- end }}
{{- with .values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* Security context of every container. */}}
{{- define "virtualcluster.confined" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* A Deployment with leader election. Call with (dict "root" $ "component" NAME "values" VALUES "args" LIST). */}}
{{- define "virtualcluster.deployment" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "virtualcluster.labels" . | nindent 4 }}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "virtualcluster.labels" . | nindent 4 }}
spec:
  replicas: {{ .values.replicas }}
  selector:
    matchLabels: {{- include "virtualcluster.selector" . | nindent 6 }}
  template:
    metadata:
      labels: {{- include "virtualcluster.labels" . | nindent 8 }}
      {{- with .values.podAnnotations }}
      annotations: {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      {{- include "virtualcluster.pod" . | nindent 6 }}
      containers:
      - name: {{ .component }}
        {{- include "virtualcluster.image" . | nindent 8 }}
        args:
        - --namespace={{ .root.Release.Namespace }}
        - --leader-elect
        - --metrics-bind-address=:8080
        - --health-probe-bind-address=:8081
        {{- range concat .args .values.extraArgs }}
        - {{ . | quote }}
        {{- end }}
        {{- include "virtualcluster.logging" .root | nindent 8 }}
        ports:
        - {name: metrics, containerPort: 8080}
        - {name: health, containerPort: 8081}
        livenessProbe:
          httpGet: {path: /healthz, port: health}
          periodSeconds: 10
        readinessProbe:
          httpGet: {path: /readyz, port: health}
          periodSeconds: 2
        resources: {{- toYaml .values.resources | nindent 10 }}
        {{- include "virtualcluster.confined" . | nindent 8 }}
{{- if gt (int .values.replicas) 1 }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "virtualcluster.labels" . | nindent 4 }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels: {{- include "virtualcluster.selector" . | nindent 6 }}
{{- end }}
{{- if kindIs "slice" .root.Values.metrics.from }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "virtualcluster.labels" . | nindent 4 }}
spec:
  podSelector:
    matchLabels: {{- include "virtualcluster.selector" . | nindent 6 }}
  policyTypes: [Ingress]
  ingress:
  - ports: [{port: metrics, protocol: TCP}]
    from: {{- toYaml .root.Values.metrics.from | nindent 4 }}
{{- end }}
{{- end }}

{{/* Rights of a component: its ClusterRole, a Role for its leader election, and their bindings. Call with (dict "root" $
"component" NAME "rules" YAML). */}}
{{- define "virtualcluster.rights" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ .component }}
  labels: {{- include "virtualcluster.labels" . | nindent 4 }}
rules: {{- .rules | nindent 0 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ .component }}
  labels: {{- include "virtualcluster.labels" . | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {{ .component }}}
subjects:
- {kind: ServiceAccount, name: {{ .component }}, namespace: {{ .root.Release.Namespace }}}
{{- if .elects }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ .component }}-leader-election
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "virtualcluster.labels" . | nindent 4 }}
rules:
# A lease that does not exist has no name to grant rights to.
- {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [create]}
- {apiGroups: [coordination.k8s.io], resources: [leases], resourceNames: [{{ .component }}], verbs: [get, update, patch]}
- {apiGroups: ["", events.k8s.io], resources: [events], verbs: [create, patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ .component }}-leader-election
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "virtualcluster.labels" . | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ .component }}-leader-election}
subjects:
- {kind: ServiceAccount, name: {{ .component }}, namespace: {{ .root.Release.Namespace }}}
{{- end }}
{{- end }}
