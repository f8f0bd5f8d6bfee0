{{/* What runs before the server: keys with the mode that it asks for, and the repository from an object store. */}}

{{/* A Secret's files belong to root and the pod's group, and `serve` takes a private key that its owner alone reads. */}}
{{- define "astmfr.keysContainer" -}}
- name: keys
  image: {{ include "astmfr.image" .root }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  command: [sh, -ec]
  args:
    - |
      umask 077
      cp /secrets/tls/tls.crt /secrets/tls/tls.key /tls/
{{- if .root.Values.tls.clientCaSecret }}
      cp /secrets/client-ca/ca.crt /tls/
{{- end }}
      chmod 600 /tls/*
  resources:
    requests: {cpu: 10m, memory: 16Mi}
    limits: {memory: 64Mi}
  securityContext: {{- include "astmfr.containerSecurity" . | nindent 4 }}
  volumeMounts:
    - {name: certificates, mountPath: /tls}
    - {name: tls, mountPath: /secrets/tls, readOnly: true}
{{- if .root.Values.tls.clientCaSecret }}
    - {name: client-ca, mountPath: /secrets/client-ca, readOnly: true}
{{- end }}
{{- end -}}

{{/* The models of the shard's categories and those that all share, not those of other shards. */}}
{{- define "astmfr.syncContainer" -}}
{{- $repository := .root.Values.repository -}}
{{- $store := $repository.s3 | default $repository.gcs -}}
- name: sync
  image: {{ $repository.syncImage }}
  args:
    - sync
    - {{ printf "store:%s" ($store.url | trimPrefix "s3://" | trimPrefix "gs://") | quote }}
    - /models
    - --config=/tmp/rclone.conf
    - --cache-dir=/tmp
    - --links
    - --transfers=16
    - --filter=+ /.releases/**
    - --filter=+ /*.py
{{- range list "alignment" "distance_fusion" "foreground" "image_decoder" "teacher" }}
    - --filter=+ /{{ . }}*/**
{{- end }}
{{- range $category := .shard.categories }}
{{- range list "" "_alignment" "_alignment_*" "_encoded" "_student" "_student_fp16" "_student_int8" }}
    - --filter=+ /{{ $category }}{{ . }}/**
{{- end }}
{{- end }}
    - --filter=- *
  env:
    # Its settings come from the environment alone; an identity of the pod, or the Secret's variables.
{{- if $repository.s3 }}
    - {name: RCLONE_CONFIG_STORE_TYPE, value: s3}
    - {name: RCLONE_CONFIG_STORE_PROVIDER, value: {{ ternary "Other" "AWS" (not (empty $store.endpoint)) }}}
    - {name: RCLONE_CONFIG_STORE_ENV_AUTH, value: "true"}
{{- with $store.region }}
    - {name: RCLONE_CONFIG_STORE_REGION, value: {{ . | quote }}}
{{- end }}
{{- with $store.endpoint }}
    - {name: RCLONE_CONFIG_STORE_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- else }}
    - {name: RCLONE_CONFIG_STORE_TYPE, value: google cloud storage}
    - {name: RCLONE_CONFIG_STORE_ENV_AUTH, value: "true"}
    - {name: RCLONE_CONFIG_STORE_BUCKET_POLICY_ONLY, value: "true"}
{{- if $store.secret }}
    - {name: GOOGLE_APPLICATION_CREDENTIALS, value: /secrets/store/key.json}
{{- end }}
{{- end }}
{{- if and $repository.s3 $store.secret }}
  # AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
  envFrom:
    - secretRef: {name: {{ $store.secret }}}
{{- end }}
  resources:
    requests: {cpu: 100m, memory: 128Mi}
    limits: {memory: 1Gi}
  securityContext: {{- include "astmfr.containerSecurity" . | nindent 4 }}
  volumeMounts:
    - {name: repository, mountPath: /models}
    - {name: tmp, mountPath: /tmp}
{{- if and $repository.gcs $store.secret }}
    - {name: store-key, mountPath: /secrets/store, readOnly: true}
{{- end }}
{{- end -}}
