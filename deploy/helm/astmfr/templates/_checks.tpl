{{/* What the schema cannot say: each fault is one sentence with what was found and what to do. */}}

{{- define "astmfr.checks" -}}
{{- include "astmfr.checkShards" . -}}
{{- include "astmfr.checkReplicas" . -}}
{{- include "astmfr.checkSafety" . -}}
{{- include "astmfr.checkTracing" . -}}
{{- include "astmfr.checkRepository" . -}}
{{- include "astmfr.checkVolume" (dict "root" . "deployments" (lookup "apps/v1" "Deployment" .Release.Namespace "").items) -}}
{{- end -}}

{{- define "astmfr.checkShards" -}}
{{- $shardOf := dict -}}
{{- $services := dict "metrics" "this chart's own Service" -}}
{{- if not .Values.shards -}}
{{- fail "shards is empty; give at least one, with a name and the categories that it serves." -}}
{{- end -}}
{{- range .Values.shards -}}
{{- $shard := .name -}}
{{- if not .categories -}}
{{- fail (printf "Shard %s has no categories, and its pods would serve every one there is; list those that it serves, or remove it." $shard) -}}
{{- end -}}
{{- if hasKey $shardOf (printf "shard %s" $shard) -}}
{{- fail (printf "Two shards are called %s; give each a name of its own." $shard) -}}
{{- end -}}
{{- $_ := set $shardOf (printf "shard %s" $shard) "" -}}
{{- range $category := .categories -}}
{{- $other := get $shardOf $category -}}
{{- if and $other (not (has $category $.Values.sharedCategories)) -}}
{{- fail (printf "Category %s is in the shards %s and %s; take it out of one, or name it in sharedCategories where both are to serve it." $category $other $shard) -}}
{{- end -}}
{{- $_ := set $shardOf $category $shard -}}
{{- $dns := include "astmfr.dns" $category -}}
{{- $holder := get $services $dns | default $category -}}
{{- if ne $holder $category -}}
{{- fail (printf "Category %s would have the Service %s-%s, which is that of %s; publish it under another name, or in another release of this chart." $category $.Release.Name $dns $holder) -}}
{{- end -}}
{{- $_ := set $services $dns $category -}}
{{- if gt (len (printf "%s-%s" $.Release.Name $dns)) 63 -}}
{{- fail (printf "The Service %s-%s of category %s would have %d characters, and Kubernetes takes 63; choose a shorter release name, or publish the category under a shorter one." $.Release.Name $dns $category (len (printf "%s-%s" $.Release.Name $dns))) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range .Values.sharedCategories -}}
{{- if not (hasKey $shardOf .) -}}
{{- fail (printf "Category %s of sharedCategories is in no shard; correct its name, or add it to shards." .) -}}
{{- end -}}
{{- end -}}
{{- range .Values.monitoring.categoryLimits -}}
{{- if not (hasKey $shardOf .category) -}}
{{- fail (printf "Category %s of monitoring.categoryLimits is in no shard; correct its name." .category) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "astmfr.checkReplicas" -}}
{{- range $shard := include "astmfr.shards" . | fromJsonArray -}}
{{- $scaled := $shard.autoscaling.enabled -}}
{{- if and $scaled (lt $shard.autoscaling.maxReplicas $shard.replicas) -}}
{{- fail (printf "Shard %s begins with %v replicas, and its autoscaling.maxReplicas is %v; raise that, or lower replicas." $shard.name $shard.replicas $shard.autoscaling.maxReplicas) -}}
{{- end -}}
{{- if and (or $scaled $.Values.kserve.enabled) (eq (int $shard.replicas) 0) -}}
{{- fail (printf "Shard %s has 0 replicas, and %s keeps at least 1; set replicas to 1 or more, or remove the shard." $shard.name (ternary "its autoscaler" "KServe" $scaled)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "astmfr.checkSafety" -}}
{{- if not (or .Values.image.tag .Values.image.digest) -}}
{{- fail "image.tag and image.digest are empty; give one, so that all pods run the same image." -}}
{{- end -}}
{{- if not (or .Values.tls.secret .Values.insecure) -}}
{{- fail "tls.secret is empty, and the network could read and change every picture and verdict; name a Secret of type kubernetes.io/tls, or set insecure to true where something else encrypts." -}}
{{- end -}}
{{- if and .Values.tls.secret .Values.insecure -}}
{{- fail "tls.secret and insecure contradict each other; keep one." -}}
{{- end -}}
{{- if and .Values.tls.clientCaSecret (not .Values.tls.secret) -}}
{{- fail "tls.clientCaSecret asks for TLS; name the server's own Secret in tls.secret too." -}}
{{- end -}}
{{- end -}}

{{- define "astmfr.checkTracing" -}}
{{- $tracing := .Values.tracing -}}
{{- if not $tracing.collector -}}
{{- if ne (int $tracing.rate) 100 -}}
{{- fail (printf "tracing.rate is %v, and tracing.collector is empty, so that nothing is traced; name a collector, or leave the rate out." $tracing.rate) -}}
{{- end -}}
{{- if $tracing.secret -}}
{{- fail "tracing.secret names what a collector asks for, and tracing.collector is empty; name the collector, or leave the secret out." -}}
{{- end -}}
{{- end -}}
{{- $port := regexFind ":[0-9]+$" (regexFind "^https?://[^/]*" $tracing.collector) | trimPrefix ":" -}}
{{- if and $port (or (lt (atoi $port) 1) (gt (atoi $port) 65535)) -}}
{{- fail (printf "tracing.collector is %s, and there is no port %s; give one from 1 to 65535." $tracing.collector $port) -}}
{{- end -}}
{{- if and $port (eq (atoi $port) 4317) -}}
{{- fail (printf "tracing.collector is %s; at port 4317 collectors take OTLP over gRPC, and Triton sends it over HTTP; give the port of that, 4318 as a rule." $tracing.collector) -}}
{{- end -}}
{{- if and .Values.tracing.collector .Values.networkPolicy.enabled (not .Values.networkPolicy.egress) -}}
{{- fail (printf "tracing.collector is %s, and the NetworkPolicy lets no pod reach it; add a rule for it to networkPolicy.egress." .Values.tracing.collector) -}}
{{- end -}}
{{- end -}}

{{- define "astmfr.checkRepository" -}}
{{- $repository := .Values.repository -}}
{{- $sources := list -}}
{{- range list "pvc" "s3" "gcs" -}}
{{- if get $repository . -}}{{- $sources = append $sources . -}}{{- end -}}
{{- end -}}
{{- if ne (len $sources) 1 -}}
{{- fail (printf "The repository comes from %s; give exactly one of repository.pvc, repository.s3 and repository.gcs." (join " and " $sources | default "nowhere")) -}}
{{- end -}}
{{- $path := ($repository.pvc | default dict).path | default "" -}}
{{- $names := splitList "/" $path -}}
{{- if or (hasPrefix "/" $path) (has "." $names) (has ".." $names) -}}
{{- fail (printf "repository.pvc.path is %s; give a folder as it is called within the claim, without a / before it and without . and .. in it." $path) -}}
{{- end -}}
{{- end -}}

{{/* Two releases of this chart on one folder of a claim: dict "root" . "deployments" LIST, as the cluster knows them. */}}
{{- define "astmfr.checkVolume" -}}
{{- $pvc := .root.Values.repository.pvc -}}
{{- if and $pvc (not $pvc.shared) -}}
{{- range .deployments -}}
{{- $deployment := . -}}
{{- $labels := .metadata.labels | default dict -}}
{{- $release := get $labels "app.kubernetes.io/instance" -}}
{{- if and (eq (get $labels "app.kubernetes.io/name") "astmfr") (ne $release $.root.Release.Name) -}}
{{- $pod := .spec.template.spec -}}
{{- range $volume := $pod.volumes -}}
{{- if and .persistentVolumeClaim (eq .persistentVolumeClaim.claimName $pvc.claim) -}}
{{- range $container := $pod.containers -}}
{{- range .volumeMounts -}}
{{- if and (eq .name $volume.name) (eq (.subPath | default "" | trimAll "/" | clean) ($pvc.path | default "" | trimAll "/" | clean)) -}}
{{- fail (printf "The claim %s%s is mounted by Deployment %s of release %s already; give this release a claim or a path of its own, or set repository.pvc.shared to true where both are to serve the same files." $pvc.claim (ternary (printf " at %s" $pvc.path) "" (not (empty $pvc.path))) $deployment.metadata.name ($release | default "none")) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
