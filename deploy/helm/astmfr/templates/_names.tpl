{{/* Names and labels. A shard is passed as the dictionary that `astmfr.shards` makes of it. */}}

{{- define "astmfr.labels" -}}
app.kubernetes.io/name: astmfr
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{/* Those of a shard's pods: dict "root" . "shard" SHARD. */}}
{{- define "astmfr.selector" -}}
app.kubernetes.io/name: astmfr
app.kubernetes.io/instance: {{ .root.Release.Name }}
astmfr/shard: {{ .shard.name }}
{{- end -}}

{{/* And one a category, by which its Service finds them; a label is shorter than a category's name may be. */}}
{{- define "astmfr.categoryLabel" -}}
serves.astmfr/{{ . | trunc 52 | trimAll "-._" }}-{{ sha256sum . | trunc 8 }}
{{- end -}}

{{/* A category as part of a DNS name: Metal_Nut is metal-nut. */}}
{{- define "astmfr.dns" -}}
{{ . | lower | replace "_" "-" | replace "." "-" | trimSuffix "-" }}
{{- end -}}

{{- define "astmfr.serviceAccount" -}}
{{ .Values.serviceAccount.name | default .Release.Name }}
{{- end -}}

{{- define "astmfr.image" -}}
{{- $image := .Values.image -}}
{{ $image.repository }}{{ if $image.tag }}:{{ $image.tag }}{{ end }}{{ if $image.digest }}@{{ $image.digest }}{{ end }}
{{- end -}}

{{/* The shards as JSON, each with what holds for all of them where it says nothing itself. */}}
{{- define "astmfr.shards" -}}
{{- $shards := list -}}
{{- range .Values.shards -}}
{{- $shards = append $shards (mergeOverwrite (deepCopy $.Values.shard) (deepCopy .)) -}}
{{- end -}}
{{ toJson $shards }}
{{- end -}}
