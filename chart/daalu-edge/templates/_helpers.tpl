{{/* Names: of letters, digits, "-" and ".", none of the two at an end, wherever they were cut. */}}
{{- define "daalu-edge.cut" -}}
{{- . | trunc 40 | trimAll "-." -}}
{{- end }}

{{- define "daalu-edge.name" -}}
{{- include "daalu-edge.cut" (.Values.nameOverride | default .Chart.Name) -}}
{{- end }}

{{- define "daalu-edge.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- include "daalu-edge.cut" .Values.fullnameOverride -}}
{{- else -}}
{{- $name := include "daalu-edge.name" . -}}
{{- if contains $name .Release.Name -}}
{{- include "daalu-edge.cut" .Release.Name -}}
{{- else -}}
{{- include "daalu-edge.cut" (printf "%s-%s" .Release.Name $name) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "daalu-edge.secretName" -}}{{ include "daalu-edge.fullname" . }}-key{{- end }}
{{- define "daalu-edge.configName" -}}{{ include "daalu-edge.fullname" . }}-config{{- end }}
{{- define "daalu-edge.bootstrapName" -}}{{ include "daalu-edge.fullname" . }}-bootstrap{{- end }}
{{- define "daalu-edge.tokenName" -}}{{ include "daalu-edge.fullname" . }}-token{{- end }}

{{/* Names of what is not in a namespace: two releases in two namespaces must not meet. */}}
{{- define "daalu-edge.clusterName" -}}{{ include "daalu-edge.fullname" . }}:{{ .Release.Namespace }}{{- end }}

{{/* A map as YAML, each value a string: what looks like a number or a truth value is text here. */}}
{{- define "daalu-edge.texts" -}}
{{- range $key, $value := . }}
{{ $key | quote }}: {{ $value | toString | quote }}
{{- end }}
{{- end }}

{{/* Labels that never change: selectors are frozen. */}}
{{- define "daalu-edge.selectorLabels" -}}
app.kubernetes.io/name: {{ include "daalu-edge.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* Labels of objects. What the owner sets wins over what informs, never over what selectors and Helm look at. */}}
{{- define "daalu-edge.labels" -}}
{{- $own := include "daalu-edge.selectorLabels" . | fromYaml }}
{{- $own = merge $own (dict "app.kubernetes.io/managed-by" .Release.Service) (dict "app.kubernetes.io/component" "") }}
{{- $version := printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- $info := dict "helm.sh/chart" $version "app.kubernetes.io/version" .Chart.AppVersion "app.kubernetes.io/part-of" "daalu" }}
{{- include "daalu-edge.texts" (omit (merge $own .Values.commonLabels $info) "app.kubernetes.io/component") | trim }}
{{- end }}

{{/* Labels of pods: without versions, so that nothing restarts for a label. */}}
{{- define "daalu-edge.podLabels" -}}
{{- $own := include "daalu-edge.selectorLabels" .root | fromYaml }}
{{- $own = set $own "app.kubernetes.io/component" .component }}
{{- include "daalu-edge.texts" (merge $own .root.Values.podLabels .root.Values.commonLabels) | trim }}
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

{{/* Names, or objects with a name as Kubernetes writes them; each once. */}}
{{- define "daalu-edge.pullSecrets" -}}
{{- $names := list }}
{{- range concat .Values.imagePullSecrets ((.Values.global).imagePullSecrets | default list) }}
{{- $names = append $names (kindIs "map" . | ternary (get (kindIs "map" . | ternary . dict) "name") .) }}
{{- end }}
{{- with $names | uniq }}
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
{{- range .Values.extraEnv -}}
{{- if has .name (splitList " " (include "daalu-edge.ownVariables" $)) -}}
{{- fail (printf "extraEnv: %s is the chart's to set: use the value that it comes from" .name) -}}
{{- end -}}
{{- end -}}
{{- range .Values.extraVolumes -}}
{{- if has .name (list "ca" "config" "scratch" "secret" "token" "tun") -}}
{{- fail (printf "extraVolumes: the chart has a volume %s already: choose another name" .name) -}}
{{- end -}}
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
{{- $user := .root.Values.runAsUser -}}
runAsNonRoot: {{ not $isTun }}
{{- if $isTun }}
runAsUser: 0
{{- else if not (kindIs "invalid" $user) }}
runAsUser: {{ int64 $user }}
{{- end }}
{{- if not (kindIs "invalid" $user) }}
runAsGroup: {{ int64 $user }}
fsGroup: {{ int64 $user }}
{{- end }}
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

{{/* Every variable that the chart sets: a list that names one twice is refused by the API server. */}}
{{- define "daalu-edge.ownVariables" -}}
DAALU_CHART_VERSION DAALU_CLUSTER_IDENTITY DAALU_CONFIG_DIR DAALU_CONFIG_MAP DAALU_DEADLINE DAALU_DEPLOYMENT {{ "" -}}
DAALU_HEALTH_PORT DAALU_HUB_CA_FILE DAALU_HUB_URL DAALU_LOG_LEVEL DAALU_NAMESPACE DAALU_READ_NAMESPACES {{ "" -}}
DAALU_SECRET DAALU_SECRET_DIR DAALU_SELECTOR DAALU_SERVICE_ACCOUNT DAALU_TOKEN_FILE DAALU_WG_HEARTBEAT {{ "" -}}
DAALU_WG_INTERFACE DAALU_WG_KEEPALIVE DAALU_WG_MODE DAALU_WG_MTU
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
  value: {{ include "daalu-edge.secretName" . | quote }}
- name: DAALU_CONFIG_MAP
  value: {{ include "daalu-edge.configName" . | quote }}
- name: DAALU_CLUSTER_IDENTITY
  value: {{ .Values.clusterIdentity.enabled | quote }}
{{- with .Values.rbac.namespaces }}
- name: DAALU_READ_NAMESPACES
  value: {{ join "," . | quote }}
{{- end }}
- name: DAALU_CHART_VERSION
  value: {{ .Chart.Version | quote }}
- name: DAALU_LOG_LEVEL
  value: {{ .Values.logLevel | quote }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Certificate authorities of the hub, from a value or from a Secret. */}}
{{- define "daalu-edge.caVolume" -}}
{{- if .Values.hub.caBundle }}
- name: ca
  configMap:
    name: {{ include "daalu-edge.configName" . | quote }}
    items:
      - key: ca.crt
        path: ca.crt
{{- else if .Values.hub.existingCASecret.name }}
- name: ca
  secret:
    secretName: {{ .Values.hub.existingCASecret.name | quote }}
    items:
      - key: {{ .Values.hub.existingCASecret.key | quote }}
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
      {{- include "daalu-edge.texts" . | nindent 6 }}
    {{- end }}
  spec:
    restartPolicy: Never
    serviceAccountName: {{ include "daalu-edge.bootstrapName" . | quote }}
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
        imagePullPolicy: {{ .Values.image.pullPolicy | quote }}
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
          secretName: {{ .Values.bootstrap.existingSecret.name | default (include "daalu-edge.tokenName" .) | quote }}
          # A token that is spent may be deleted: a cluster that has joined needs none.
          optional: true
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

{{/* TCP ports of the hub: those named, and the one of its address. */}}
{{- define "daalu-edge.hubPorts" -}}
{{- $port := regexFind ":[0-9]+$" (urlParse .Values.hub.url).host | trimPrefix ":" | default "443" -}}
{{- append .Values.networkPolicy.hubPorts (int $port) | uniq | toJson -}}
{{- end }}
