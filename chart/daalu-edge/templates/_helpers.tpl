{{/* Names. */}}
{{- define "daalu-edge.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "daalu-edge.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "daalu-edge.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "daalu-edge.secretName" -}}{{ include "daalu-edge.fullname" . }}-key{{- end }}
{{- define "daalu-edge.configName" -}}{{ include "daalu-edge.fullname" . }}-config{{- end }}
{{- define "daalu-edge.bootstrapName" -}}{{ include "daalu-edge.fullname" . }}-bootstrap{{- end }}
{{- define "daalu-edge.tokenName" -}}{{ include "daalu-edge.fullname" . }}-token{{- end }}

{{/* Names of what is not in a namespace: two releases in two namespaces must not meet. */}}
{{- define "daalu-edge.clusterName" -}}{{ include "daalu-edge.fullname" . }}:{{ .Release.Namespace }}{{- end }}

{{/* Labels that never change: selectors are frozen. */}}
{{- define "daalu-edge.selectorLabels" -}}
app.kubernetes.io/name: {{ include "daalu-edge.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "daalu-edge.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "daalu-edge.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: daalu
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels of pods: without versions, so that nothing restarts for a label. */}}
{{- define "daalu-edge.podLabels" -}}
{{ include "daalu-edge.selectorLabels" .root }}
app.kubernetes.io/component: {{ .component }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- with .root.Values.podLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "daalu-edge.image" -}}
{{- $registry := (.Values.global).imageRegistry | default .Values.image.registry -}}
{{- $name := ternary (printf "%s/%s" $registry .Values.image.repository) .Values.image.repository (ne $registry "") -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $name .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end }}

{{- define "daalu-edge.pullSecrets" -}}
{{- with concat .Values.imagePullSecrets ((.Values.global).imagePullSecrets | default list) }}
imagePullSecrets:
{{- range . }}
  - name: {{ . | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- define "daalu-edge.hasToken" -}}
{{- if or .Values.bootstrap.token .Values.bootstrap.existingSecret.name }}true{{ end -}}
{{- end }}

{{/* What the schema cannot say so that people understand it. */}}
{{- define "daalu-edge.check" -}}
{{- if not .Values.hub.url -}}
{{- fail "hub.url is missing: add --set hub.url=https://... with the address of your hub" -}}
{{- end -}}
{{- if and .Values.bootstrap.token .Values.bootstrap.existingSecret.name -}}
{{- fail "bootstrap.token and bootstrap.existingSecret.name are both set: keep one of them" -}}
{{- end -}}
{{- if and .Values.hub.caBundle .Values.hub.existingCASecret.name -}}
{{- fail "hub.caBundle and hub.existingCASecret.name are both set: keep one of them" -}}
{{- end -}}
{{- end }}

{{/* Where pods run. */}}
{{- define "daalu-edge.placement" -}}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.hostAliases }}
hostAliases:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Pod Security "restricted"; in tun mode uid 0, since Kubernetes gives effective capabilities to no other user. */}}
{{- define "daalu-edge.podSecurity" -}}
{{- $isTun := and (eq .root.Values.wg.mode "tun") (eq .component "edge") -}}
runAsNonRoot: {{ not $isTun }}
runAsUser: {{ ternary 0 (int64 .root.Values.runAsUser) $isTun }}
runAsGroup: {{ int64 .root.Values.runAsUser }}
fsGroup: {{ int64 .root.Values.runAsUser }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "daalu-edge.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- if and (eq .root.Values.wg.mode "tun") (eq .component "edge") }}
  add: [NET_ADMIN]
{{- end }}
{{- end }}

{{/* Environment that every command reads. */}}
{{- define "daalu-edge.environment" -}}
- name: DAALU_HUB_URL
  value: {{ .Values.hub.url | quote }}
{{- if or .Values.hub.caBundle .Values.hub.existingCASecret.name }}
- name: DAALU_HUB_CA_FILE
  value: /run/daalu/ca/ca.crt
{{- end }}
- name: DAALU_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: DAALU_SECRET
  value: {{ include "daalu-edge.secretName" . }}
- name: DAALU_CONFIG_MAP
  value: {{ include "daalu-edge.configName" . }}
- name: DAALU_CLUSTER_IDENTITY
  value: {{ .Values.clusterIdentity.enabled | quote }}
{{- with .Values.rbac.namespaces }}
- name: DAALU_READ_NAMESPACES
  value: {{ join "," . | quote }}
{{- end }}
- name: DAALU_CHART_VERSION
  value: {{ .Chart.Version | quote }}
- name: DAALU_LOG_LEVEL
  value: {{ .Values.logLevel }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Certificate authorities of the hub, from a value or from a Secret. */}}
{{- define "daalu-edge.caVolume" -}}
{{- if .Values.hub.caBundle }}
- name: ca
  configMap:
    name: {{ include "daalu-edge.configName" . }}
    items:
      - key: ca.crt
        path: ca.crt
{{- else if .Values.hub.existingCASecret.name }}
- name: ca
  secret:
    secretName: {{ .Values.hub.existingCASecret.name }}
    items:
      - key: {{ .Values.hub.existingCASecret.key }}
        path: ca.crt
{{- end }}
{{- end }}

{{- define "daalu-edge.caMount" -}}
{{- if or .Values.hub.caBundle .Values.hub.existingCASecret.name }}
- name: ca
  mountPath: /run/daalu/ca
  readOnly: true
{{- end }}
{{- end }}

{{/* The Job's specification; its hash is part of the Job's name, since a Job's template cannot be changed. */}}
{{- define "daalu-edge.jobSpec" -}}
backoffLimit: {{ .Values.bootstrap.backoffLimit }}
activeDeadlineSeconds: {{ int64 .Values.bootstrap.activeDeadlineSeconds }}
{{- if not (kindIs "invalid" .Values.bootstrap.ttlSecondsAfterFinished) }}
ttlSecondsAfterFinished: {{ int64 .Values.bootstrap.ttlSecondsAfterFinished }}
{{- end }}
podFailurePolicy:
  rules:
    # What another try cannot heal ends the Job at once; its pod stays, and with it the line that says why.
    - action: FailJob
      onExitCodes:
        containerName: bootstrap
        operator: In
        values: [2, 10, 11, 12, 13, 14, 15, 20, 24]
    - action: Ignore
      onPodConditions:
        - type: DisruptionTarget
          status: "True"
template:
  metadata:
    labels:
      {{- include "daalu-edge.podLabels" (dict "root" . "component" "bootstrap") | nindent 6 }}
    {{- with .Values.podAnnotations }}
    annotations:
      {{- toYaml . | nindent 6 }}
    {{- end }}
  spec:
    restartPolicy: Never
    serviceAccountName: {{ include "daalu-edge.bootstrapName" . }}
    automountServiceAccountToken: true
    enableServiceLinks: false
    terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
    securityContext:
      {{- include "daalu-edge.podSecurity" (dict "root" . "component" "bootstrap") | nindent 6 }}
    {{- include "daalu-edge.pullSecrets" . | nindent 4 }}
    {{- include "daalu-edge.placement" . | nindent 4 }}
    containers:
      - name: bootstrap
        image: {{ include "daalu-edge.image" . | quote }}
        imagePullPolicy: {{ .Values.image.pullPolicy }}
        args: [bootstrap]
        securityContext:
          {{- include "daalu-edge.containerSecurity" (dict "root" . "component" "bootstrap") | nindent 10 }}
        env:
          {{- include "daalu-edge.environment" . | nindent 10 }}
          - name: DAALU_TOKEN_FILE
            value: /run/daalu/token/token
          - name: DAALU_DEADLINE
            # Sixty seconds before the Job's own end, so that the last line survives.
            value: {{ sub (int64 .Values.bootstrap.activeDeadlineSeconds) 60 | max 1 | quote }}
        resources:
          {{- toYaml .Values.resources | nindent 10 }}
        volumeMounts:
          - name: token
            mountPath: /run/daalu/token
            readOnly: true
          - name: scratch
            mountPath: /tmp
          {{- include "daalu-edge.caMount" . | nindent 10 }}
          {{- with .Values.extraVolumeMounts }}
          {{- toYaml . | nindent 10 }}
          {{- end }}
    volumes:
      - name: token
        secret:
          secretName: {{ .Values.bootstrap.existingSecret.name | default (include "daalu-edge.tokenName" .) }}
          defaultMode: 0440
          items:
            - key: {{ ternary .Values.bootstrap.existingSecret.key "token" (ne .Values.bootstrap.existingSecret.name "") }}
              path: token
      - name: scratch
        emptyDir:
          sizeLimit: 16Mi
      {{- include "daalu-edge.caVolume" . | nindent 6 }}
      {{- with .Values.extraVolumes }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
{{- end }}

{{- define "daalu-edge.jobName" -}}
{{- $hash := printf "%s\n%s" (include "daalu-edge.jobSpec" .) .Values.bootstrap.token | sha256sum | trunc 8 -}}
{{- printf "%s-%s" (include "daalu-edge.bootstrapName" .) $hash -}}
{{- end }}
