{{- define "worker.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" (.Release.Name | trunc 30 | trimSuffix "-") .Chart.Name -}}
{{- end -}}
{{- end -}}

{{- define "worker.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "worker.labels" -}}
{{ include "worker.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* Environment of both containers. */}}
{{- define "worker.env" -}}
- name: AIRFLOW_REMOTE_WORKER_HOME
  value: /var/lib/airflow-remote-worker/state
- name: HOME
  value: /var/lib/airflow-remote-worker
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- if .Values.slots }}
- name: AIRFLOW_REMOTE_WORKER_SLOTS
  value: {{ .Values.slots | toString | quote }}
{{- end }}
- name: AIRFLOW_REMOTE_WORKER_DRAIN_TIMEOUT_S
  value: {{ .Values.drainSeconds | int | toString | quote }}
{{- if .Values.config }}
- name: AIRFLOW_REMOTE_WORKER_CONFIG
  value: /etc/airflow-remote-worker/config/worker.toml
{{- end }}
{{- if .Values.ca.configMap }}
- name: AIRFLOW_REMOTE_WORKER_CA_FILE
  value: /etc/airflow-remote-worker/ca/ca.crt
{{- end }}
{{- if .Values.proxy.url }}
- name: AIRFLOW_REMOTE_WORKER_PROXY
  value: {{ .Values.proxy.url | quote }}
{{- end }}
{{- if .Values.proxy.authSecret }}
- name: AIRFLOW_REMOTE_WORKER_PROXY_AUTH_FILE
  value: /etc/airflow-remote-worker/proxy/auth
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "worker.mounts" -}}
- {name: state, mountPath: /var/lib/airflow-remote-worker}
- {name: tmp, mountPath: /tmp}
{{- if .Values.config }}
- {name: config, mountPath: /etc/airflow-remote-worker/config, readOnly: true}
{{- end }}
{{- if .Values.ca.configMap }}
- {name: ca, mountPath: /etc/airflow-remote-worker/ca, readOnly: true}
{{- end }}
{{- if .Values.proxy.authSecret }}
- {name: proxy, mountPath: /etc/airflow-remote-worker/proxy, readOnly: true}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "worker.container" -}}
image: {{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}
