{{/* The text of the topology in force. */}}
{{- define "st.text" -}}
{{- .Values.topology | default (.Files.Get "topology.yaml") -}}
{{- end }}

{{/* The topology as JSON; the chart fails when it is no YAML. */}}
{{- define "st.topology" -}}
{{- $t := include "st.text" . | fromYaml -}}
{{- if hasKey $t "Error" }}{{ fail (printf "read topology.yaml: %s" $t.Error) }}{{ end -}}
{{- if not $t.workloads }}{{ fail "read topology.yaml: no workloads" }}{{ end -}}
{{- toJson $t -}}
{{- end }}

{{/* {"rows": …}: the rows of .kind that run something. */}}
{{- define "st.rows" -}}
{{- $rows := list -}}
{{- $kind := .kind -}}
{{- range (include "st.topology" .root | fromJson).workloads -}}
{{- if and .binary (eq .kind $kind) }}{{ $rows = append $rows . }}{{ end -}}
{{- end -}}
{{- dict "rows" $rows | toJson -}}
{{- end }}

{{/* The Service of a row: the same rule as topology.Workload.Host. */}}
{{- define "st.service" -}}
{{- .service | default (printf "%s-svc" .name) -}}
{{- end }}

{{- define "st.image" -}}
{{- .repository }}:{{ .tag }}{{ with .digest }}@{{ . }}{{ end -}}
{{- end }}

{{/* gemini or stub. */}}
{{- define "st.backend" -}}
{{- $key := or .Values.global.geminiApiKey .Values.global.geminiSecret -}}
{{- $backend := .Values.llm.backend | default (ternary "gemini" "stub" (not (empty $key))) -}}
{{- if and (eq $backend "gemini") (not $key) }}{{ fail "llm.backend is gemini: set global.geminiSecret, or global.geminiApiKey" }}{{ end -}}
{{- $backend -}}
{{- end }}

{{/* The Secret with the gateway's key, empty if there is none. */}}
{{- define "st.geminiSecret" -}}
{{- if .Values.global.geminiSecret }}{{ .Values.global.geminiSecret }}{{ else if .Values.global.geminiApiKey }}gemini-api-key{{ end -}}
{{- end }}

{{/* The provider of identities, empty if there is none. */}}
{{- define "st.issuer" -}}
{{- with .Values.lms.oidc }}
{{- if and .issuer (not (and .clientID .redirectURL)) }}{{ fail "lms.oidc.issuer is set: set lms.oidc.clientID and lms.oidc.redirectURL" }}{{ end -}}
{{- .issuer -}}
{{- end }}
{{- end }}

{{/* Labels of a pod; .name and .kind are of a row or of a part of SPIRE. No label has the chart's version, since a new version
alone must not restart pods. */}}
{{- define "st.podLabels" -}}
app: {{ .name }}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/part-of: security-training
security-training/kind: {{ .kind }}
{{- end }}

{{/* Labels of the other objects of the row or part. */}}
{{- define "st.labels" -}}
{{ include "st.podLabels" . }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{/* Labels of objects that belong to no single part. */}}
{{- define "st.commonLabels" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: security-training
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "st.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{- define "st.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* .uid is the pod's account. */}}
{{- define "st.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .uid }}
runAsGroup: {{ .uid }}
fsGroup: {{ .uid }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* The folder on a node where the agent makes its socket. */}}
{{- define "st.socketFolder" -}}
/run/spire/{{ .Values.namespace }}/agent-sockets
{{- end }}

{{- define "st.socketVolume" -}}
- name: spire-agent-socket
{{- if eq .Values.spire.socket "csi" }}
  csi: {driver: csi.spiffe.io, readOnly: true}
{{- else }}
  hostPath: {path: {{ include "st.socketFolder" . }}, type: DirectoryOrCreate}
{{- end }}
{{- end }}

{{/*
Go's memory limit in bytes: a million for each MiB of the container's limit, which is 95% of it. Without a limit the heap may grow to
double of what is in use before it is collected, and the kernel ends the process at the container's limit.
*/}}
{{- define "st.memory" -}}
- {name: MEMORY_LIMIT_MIB, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}
- {name: GOMEMLIMIT, value: "$(MEMORY_LIMIT_MIB)000000"}
{{- end }}

{{/* The environment of every workload, which is the same as lab/local gives a process. */}}
{{- define "st.environment" -}}
{{- $topo := include "st.topology" .root | fromJson -}}
- {name: WORKLOAD, value: {{ .row.name }}}
- {name: SPIFFE_ENDPOINT_SOCKET, value: "unix:///run/spire/agent-sockets/api.sock"}
- {name: TRUST_DOMAIN, value: {{ $topo.trustDomain }}}
- {name: TOPOLOGY_FILE, value: /etc/security-training/topology.yaml}
- {name: AUDIT_FILE, value: /var/lib/security-training/audit}
- {name: DATA_DIR, value: /var/lib/security-training/state}
{{- if .row.database }}
{{- range $topo.workloads }}
{{- if eq .kind "database" }}
- {name: DB_HOST, value: {{ include "st.service" . }}}
- {name: DB_PORT, value: {{ int .port | quote }}}
- {name: DB_NAME, value: security_training}
{{- end }}
{{- end }}
{{- end }}
{{- if .row.source }}
- {name: SOURCE_SECRET_FILE, value: /etc/source/secret}
{{- end }}
{{- if eq .row.kind "gateway" }}
- {name: LLM_BACKEND, value: {{ include "st.backend" .root }}}
- {name: GEMINI_MODEL, value: {{ .root.Values.llm.model | quote }}}
{{- if include "st.geminiSecret" .root }}
- {name: GEMINI_API_KEY_FILE, value: /etc/gemini/key}
{{- end }}
{{- end }}
{{- if and .row.webTLS .root.Values.lms.peopleTLSSecret }}
- {name: PEOPLE_TLS_DIR, value: /etc/people-tls}
{{- end }}
{{- if and .row.web .root.Values.lms.hosts }}
- {name: PEOPLE_HOSTS, value: {{ join "," .root.Values.lms.hosts | quote }}}
{{- end }}
{{- if and (eq .row.kind "dashboard") (include "st.issuer" .root) }}
- {name: OIDC_ISSUER, value: {{ include "st.issuer" .root | quote }}}
- {name: OIDC_CLIENT_ID, value: {{ .root.Values.lms.oidc.clientID | quote }}}
- {name: OIDC_REDIRECT_URL, value: {{ .root.Values.lms.oidc.redirectURL | quote }}}
{{- if .root.Values.lms.oidc.clientSecret }}
- {name: OIDC_CLIENT_SECRET_FILE, value: /etc/oidc/secret}
{{- end }}
{{- end }}
{{- end }}

{{/* The workload's folders. Kubernetes makes the state's folder, since the image has no tool for it. */}}
{{- define "st.mounts" -}}
- {name: topology, mountPath: /etc/security-training, readOnly: true}
- {name: spire-agent-socket, mountPath: /run/spire/agent-sockets, readOnly: true}
- {name: state, mountPath: /var/lib/security-training}
- {name: state, mountPath: /var/lib/security-training/state, subPath: state}
{{- if .row.source }}
- {name: source, mountPath: /etc/source, readOnly: true}
{{- end }}
{{- if and (eq .row.kind "gateway") (include "st.geminiSecret" .root) }}
- {name: gemini, mountPath: /etc/gemini, readOnly: true}
{{- end }}
{{- if and .row.webTLS .root.Values.lms.peopleTLSSecret }}
- {name: people-tls, mountPath: /etc/people-tls, readOnly: true}
{{- end }}
{{- if and (eq .row.kind "dashboard") (include "st.issuer" .root) .root.Values.lms.oidc.clientSecret }}
- {name: oidc, mountPath: /etc/oidc, readOnly: true}
{{- end }}
{{- end }}

{{- define "st.volumes" -}}
- name: topology
  configMap: {name: topology}
{{ include "st.socketVolume" .root }}
- name: state
  persistentVolumeClaim: {claimName: {{ .row.name }}-state}
{{- if .row.source }}
- name: source
  secret: {secretName: source-{{ .row.source }}, defaultMode: 0440, items: [{key: secret, path: secret}]}
{{- end }}
{{- if and (eq .row.kind "gateway") (include "st.geminiSecret" .root) }}
- name: gemini
  secret: {secretName: {{ include "st.geminiSecret" .root }}, defaultMode: 0440, items: [{key: key, path: key}]}
{{- end }}
{{- if and .row.webTLS .root.Values.lms.peopleTLSSecret }}
- name: people-tls
  secret:
    secretName: {{ .root.Values.lms.peopleTLSSecret }}
    defaultMode: 0440
    items: [{key: server.pem, path: server.pem}, {key: server.key, path: server.key}, {key: clients.pem, path: clients.pem}]
{{- end }}
{{- if and (eq .row.kind "dashboard") (include "st.issuer" .root) .root.Values.lms.oidc.clientSecret }}
- name: oidc
  secret: {secretName: {{ .root.Values.lms.oidc.clientSecret }}, defaultMode: 0440, items: [{key: secret, path: secret}]}
{{- end }}
{{- end }}

{{/* A program answers on its health port once it has an identity. Until then it counts as starting. */}}
{{- define "st.probes" -}}
startupProbe:
  httpGet: {path: /live, port: health}
  periodSeconds: 1
  timeoutSeconds: 2
  failureThreshold: 600
readinessProbe:
  httpGet: {path: /ready, port: health}
  periodSeconds: 2
  timeoutSeconds: 3
  failureThreshold: 2
livenessProbe:
  httpGet: {path: /live, port: health}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- end }}

{{/* The container of a row. */}}
{{- define "st.container" -}}
- name: {{ .row.name }}
  image: {{ include "st.image" .root.Values.image }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  command: ["/app/{{ .row.binary }}"]
  env:
  {{- include "st.memory" . | nindent 2 }}
  {{- include "st.environment" . | nindent 2 }}
  {{- with .env }}
  {{- . | nindent 2 }}
  {{- end }}
  ports:
  {{- if .row.serves }}
  - {name: mesh, containerPort: {{ int .row.port }}}
  {{- end }}
  - {name: health, containerPort: {{ int .row.health }}}
  {{- with .row.web }}
  - {name: web, containerPort: {{ int . }}}
  {{- end }}
  {{- with .row.webTLS }}
  - {name: web-tls, containerPort: {{ int . }}}
  {{- end }}
  {{- include "st.probes" . | nindent 2 }}
  securityContext:
    {{- include "st.containerSecurity" . | nindent 4 }}
  resources:
    {{- toYaml .root.Values.resources.app | nindent 4 }}
  volumeMounts:
  {{- include "st.mounts" . | nindent 2 }}
  {{- with .mounts }}
  {{- . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* Account, claim and Service of a row. */}}
{{- define "st.belongings" -}}
{{- $labels := include "st.labels" (dict "root" .root "name" .row.name "kind" .row.kind) }}
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ .row.name }}-sa
  namespace: {{ .root.Values.namespace }}
  labels:
    {{- $labels | nindent 4 }}
automountServiceAccountToken: false
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {{ .row.name }}-state
  namespace: {{ .root.Values.namespace }}
  labels:
    {{- $labels | nindent 4 }}
spec:
  accessModes: [ReadWriteOnce]
  {{- with .root.Values.persistence.storageClass }}
  storageClassName: {{ . }}
  {{- end }}
  resources: {requests: {storage: {{ .root.Values.persistence.size }}}}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ include "st.service" .row }}
  namespace: {{ .root.Values.namespace }}
  labels:
    {{- $labels | nindent 4 }}
spec:
  selector: {app: {{ .row.name }}}
  ports:
  - {name: mesh, port: {{ int .row.port }}, targetPort: {{ int .row.port }}}
  {{- with .row.web }}
  - {name: web, port: {{ int . }}, targetPort: web}
  {{- end }}
  {{- with .row.webTLS }}
  - {name: web-tls, port: {{ int . }}, targetPort: web-tls}
  {{- end }}
{{- end }}

{{/* Everything of one row that is a single process. */}}
{{- define "st.workload" -}}
{{- $labels := include "st.labels" (dict "root" .root "name" .row.name "kind" .row.kind) }}
{{- include "st.belongings" . }}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .row.name }}
  namespace: {{ .root.Values.namespace }}
  labels:
    {{- $labels | nindent 4 }}
spec:
  replicas: 1 # a chain of decisions and a spool belong to one process
  strategy: {type: Recreate}
  selector:
    matchLabels: {app: {{ .row.name }}}
  template:
    metadata:
      labels:
        {{- include "st.podLabels" (dict "root" .root "name" .row.name "kind" .row.kind) | nindent 8 }}
    spec:
      serviceAccountName: {{ .row.name }}-sa
      automountServiceAccountToken: false
      enableServiceLinks: false
      terminationGracePeriodSeconds: 15
      {{- include "st.pullSecrets" .root | nindent 6 }}
      securityContext:
        {{- include "st.podSecurity" (dict "uid" 10001) | nindent 8 }}
      containers:
      {{- include "st.container" . | nindent 6 }}
      volumes:
      {{- include "st.volumes" . | nindent 6 }}
{{- end }}
