{{/* A pod of a shard: dict "root" . "shard" SHARD "container" NAME. */}}

{{- define "astmfr.podLabels" -}}
{{ include "astmfr.selector" . }}
{{- range .shard.categories }}
{{ include "astmfr.categoryLabel" . }}: "true"
{{- end }}
{{- end -}}

{{- define "astmfr.podAnnotations" -}}
astmfr/revision: {{ .root.Values.repository.revision | quote }}
{{- end -}}

{{- define "astmfr.podSpec" -}}
{{- $values := .root.Values -}}
serviceAccountName: {{ include "astmfr.serviceAccount" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
# What a pod has accepted is answered: preStop, then --grace-s, then 30 s for tritonserver to end.
terminationGracePeriodSeconds: {{ add $values.preStopSeconds $values.graceSeconds 30 }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ $values.user }}
  runAsGroup: {{ $values.user }}
  fsGroup: {{ $values.user }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with $values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- with $values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- include "astmfr.antiAffinity" . }}
{{- if or $values.tls.secret (not $values.repository.pvc) }}
initContainers:
{{- if $values.tls.secret }}
{{ include "astmfr.keysContainer" . | indent 2 }}
{{- end }}
{{- if not $values.repository.pvc }}
{{ include "astmfr.syncContainer" . | indent 2 }}
{{- end }}
{{- end }}
containers:
  - name: {{ .container }}
    image: {{ include "astmfr.image" .root }}
    imagePullPolicy: {{ $values.image.pullPolicy }}
    # As of the image: the supervisor, which starts tritonserver again and mends its steps.
    command: [/opt/astmfr/venv/bin/python, -m, deploy, serve]
    args:
{{- include "astmfr.arguments" . | nindent 6 }}
{{- if $values.tracing.collector }}
    env:
      - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
      - {name: OTEL_RESOURCE_ATTRIBUTES, value: k8s.pod.name=$(POD_NAME)}
{{- with $values.tracing.secret }}
      - name: OTEL_EXPORTER_OTLP_HEADERS
        valueFrom: {secretKeyRef: {name: {{ . }}, key: headers}}
{{- end }}
{{- end }}
    ports:
      # KServe tells gRPC by the name of the port.
      - {name: h2c, containerPort: 8001, protocol: TCP}
      - {name: metrics, containerPort: 8002, protocol: TCP}
      - {name: health, containerPort: 8003, protocol: TCP}
    # The supervisor's port, since Triton's own readiness does not see a step whose process is dead.
    startupProbe:
      httpGet: {path: /v2/health/ready, port: health}
      periodSeconds: 5
      failureThreshold: {{ add 6 (div $values.timeoutSeconds 5) }}
    readinessProbe:
      httpGet: {path: /v2/health/ready, port: health}
      periodSeconds: 2
      timeoutSeconds: 2
      failureThreshold: 2
    # Also for dead steps: the supervisor has as long to mend them, or to start another server, as a start takes.
    livenessProbe:
      httpGet: {path: /v2/health/ready, port: health}
      periodSeconds: 15
      timeoutSeconds: 5
      failureThreshold: {{ add 8 (div $values.timeoutSeconds 15) }}
    lifecycle:
      preStop:
        exec:
          command: [sleep, {{ $values.preStopSeconds | quote }}]
    resources: {{- include "astmfr.resources" . | nindent 6 }}
    securityContext: {{- include "astmfr.containerSecurity" . | nindent 6 }}
    volumeMounts:
      - name: repository
        mountPath: /models
{{- if $values.repository.pvc }}
        readOnly: true
{{- end }}
{{- with $values.repository.pvc }}
{{- with .path }}
        subPath: {{ . | quote }}
{{- end }}
{{- end }}
      - {name: shm, mountPath: /dev/shm}
      - {name: tmp, mountPath: /tmp}
      - {name: logs, mountPath: /var/log/astmfr}
{{- if $values.tls.secret }}
      - {name: certificates, mountPath: /tls, readOnly: true}
{{- end }}
{{- if $values.adminKey.secret }}
      - {name: admin-key, mountPath: /keys, readOnly: true}
{{- end }}
volumes:
  - name: repository
{{- if $values.repository.pvc }}
    persistentVolumeClaim: {claimName: {{ $values.repository.pvc.claim }}, readOnly: true}
{{- else }}
    emptyDir: {sizeLimit: {{ $values.repository.size }}}
{{- end }}
  - name: shm
    emptyDir: {medium: Memory, sizeLimit: {{ .shard.shm }}}
  - name: tmp
    emptyDir: {sizeLimit: 1Gi}
  - name: logs
    emptyDir: {sizeLimit: 1Gi}
{{- if $values.tls.secret }}
  - name: certificates
    emptyDir: {medium: Memory, sizeLimit: 1Mi}
  - name: tls
    secret: {secretName: {{ $values.tls.secret }}, defaultMode: 0440}
{{- end }}
{{- if $values.tls.clientCaSecret }}
  - name: client-ca
    secret: {secretName: {{ $values.tls.clientCaSecret }}, defaultMode: 0440}
{{- end }}
{{- with ($values.repository.gcs | default dict).secret }}
  - name: store-key
    secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- if $values.adminKey.secret }}
  - name: admin-key
    secret: {secretName: {{ $values.adminKey.secret }}, defaultMode: 0440}
{{- end }}
{{- end -}}

{{- define "astmfr.arguments" -}}
{{- $values := .root.Values -}}
- --repository=/models
- --host=0.0.0.0
- --http-port=8000
- --grpc-port=8001
- --metrics-port=8002
- --health-port=8003
- --log=/var/log/astmfr/tritonserver.log
- --timeout-s={{ $values.timeoutSeconds }}
- --grace-s={{ $values.graceSeconds }}
- --connection-age-s={{ $values.connectionAgeSeconds }}
- --threads={{ .shard.threads }}
- --max-categories={{ .shard.maxCategories }}
{{- if $values.tls.secret }}
- --tls-cert=/tls/tls.crt
- --tls-key=/tls/tls.key
{{- end }}
{{- if $values.tls.clientCaSecret }}
- --tls-client-ca=/tls/ca.crt
{{- end }}
{{- if $values.adminKey.secret }}
- --key-file=/keys/admin.key
{{- end }}
{{- if $values.insecure }}
- --insecure
{{- end }}
{{- if $values.tracing.collector }}
- --trace={{ $values.tracing.collector }}
- --trace-rate={{ int $values.tracing.rate }}
{{- end }}
{{- range .shard.categories }}
- --category={{ . }}
{{- end }}
{{- end -}}

{{- define "astmfr.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "astmfr.resources" -}}
{{- $resources := deepCopy .shard.resources -}}
{{- if .shard.gpus -}}
{{- $_ := set $resources "limits" (merge (dict "nvidia.com/gpu" .shard.gpus) ($resources.limits | default dict)) -}}
{{- end -}}
{{ toYaml $resources }}
{{- end -}}

{{- define "astmfr.antiAffinity" -}}
{{- if ne .root.Values.antiAffinity "none" }}
affinity:
  podAntiAffinity:
{{- if eq .root.Values.antiAffinity "required" }}
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels: {{- include "astmfr.selector" . | nindent 12 }}
{{- else }}
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels: {{- include "astmfr.selector" . | nindent 14 }}
{{- end }}
{{- end }}
{{- end -}}
