{{- /* Names and decisions that several templates share. */ -}}

{{- /* The name of all objects: the release's, with `-deployer` behind it unless it says so itself. It is a name that a Service
may have, and at most 47 characters, so that names made of it stay within 63. What would not be gets a checksum at its end, so
that no two become the same. */ -}}
{{- define "deployer.fullname" -}}
{{- $name := .Values.fullnameOverride | default (contains "deployer" .Release.Name | ternary .Release.Name (printf "%s-deployer" .Release.Name)) -}}
{{- if regexMatch "^[a-z][a-z0-9-]{0,46}$" $name -}}
{{- $name -}}
{{- else -}}
{{- printf "deployer-%s-%s" (regexReplaceAll "[^a-z0-9-]" $name "-" | trunc 29 | trimSuffix "-") (sha256sum $name | trunc 8) -}}
{{- end -}}
{{- end -}}

{{- define "deployer.selector" -}}
app.kubernetes.io/name: kube-deployer
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "deployer.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "deployer.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "deployer.account" -}}
{{- .Values.serviceAccount.name | default (include "deployer.fullname" .) -}}
{{- end -}}

{{- define "deployer.claim" -}}
{{- .Values.persistence.existingClaim | default (printf "%s-data" (include "deployer.fullname" .)) -}}
{{- end -}}

{{- /* Where records are. */ -}}
{{- define "deployer.store" -}}
{{- if ne .Values.store "auto" -}}{{ .Values.store }}
{{- else if include "deployer.endpoints" . -}}etcd
{{- else -}}sqlite
{{- end -}}
{{- end -}}

{{- define "deployer.endpoints" -}}
{{- if .Values.etcd.bundled.enabled -}}
{{- printf "http://%s-etcd:2379" (include "deployer.fullname" .) -}}
{{- else -}}
{{- join "," .Values.etcd.endpoints -}}
{{- end -}}
{{- end -}}

{{- /* The setting `instance`, which tells the objects of two Deployers in one cluster apart. A release `deployer` in the
namespace `deployer` has the usual one, every other release one of its own. */ -}}
{{- define "deployer.instance" -}}
{{- $name := include "deployer.fullname" . -}}
{{- if .Values.config.instance -}}
{{- .Values.config.instance -}}
{{- else if and (eq $name "deployer") (eq .Release.Namespace "deployer") -}}
deployer
{{- else -}}
{{- printf "%s-%s" $name (printf "%s/%s" .Release.Namespace $name | sha256sum | trunc 8) -}}
{{- end -}}
{{- end -}}

{{- /* All settings: those of the values, and what the chart decides. As JSON, for fromJson. */ -}}
{{- define "deployer.settings" -}}
{{- $settings := deepCopy .Values.config -}}
{{- $instance := include "deployer.instance" . -}}
{{- $_ := set $settings "instance" $instance -}}
{{- $_ := set $settings "store" (include "deployer.store" .) -}}
{{- if include "deployer.metrics" . -}}
{{- $_ := set $settings "metrics_port" 9090 -}}
{{- end -}}
{{- if include "deployer.endpoints" . -}}
{{- $_ := set $settings "etcd" (include "deployer.endpoints" .) -}}
{{- if not (or $settings.etcd_prefix (eq $instance "deployer")) -}}
{{- $_ := set $settings "etcd_prefix" (printf "/deployer-%s/store/" $instance) -}}
{{- end -}}
{{- if .Values.etcd.tlsSecret -}}
{{- $_ := set $settings "etcd_ca_file" "/etc/deployer/etcd/ca.crt" -}}
{{- if .Values.etcd.clientCertificate -}}
{{- $_ := set $settings "etcd_cert_file" "/etc/deployer/etcd/tls.crt" -}}
{{- $_ := set $settings "etcd_key_file" "/etc/deployer/etcd/tls.key" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (eq (include "deployer.auth" .) "none") (not (hasKey $settings "allowed_hosts")) -}}
{{- $name := include "deployer.fullname" . -}}
{{- $service := printf "%s.%s" $name .Release.Namespace -}}
{{- $hosts := list $name $service (printf "%s.svc" $service) (printf "%s.svc.cluster.local" $service) -}}
{{- if .Values.ingress.enabled }}{{ $hosts = append $hosts .Values.ingress.host }}{{ end -}}
{{- if .Values.httpRoute.enabled }}{{ $hosts = concat $hosts .Values.httpRoute.hostnames }}{{ end -}}
{{- $_ := set $settings "allowed_hosts" $hosts -}}
{{- end -}}
{{- toJson $settings -}}
{{- end -}}

{{- /* The name of an item of `namespaces`. */ -}}
{{- define "deployer.namespace" -}}
{{- if kindIs "string" . }}{{ . }}{{ else }}{{ .name }}{{ end -}}
{{- end -}}

{{- define "deployer.auth" -}}
{{- .Values.config.auth | default "none" -}}
{{- end -}}

{{- /* Does /metrics have a port of its own? Empty when not. */ -}}
{{- define "deployer.metrics" -}}
{{- or .Values.metrics.enabled .Values.serviceMonitor.enabled | ternary "true" "" -}}
{{- end -}}

{{- /* May the pod's own account deploy, for `kubectl exec`? Empty when not. */ -}}
{{- define "deployer.exec" -}}
{{- and .Values.execMayDeploy (eq (include "deployer.auth" .) "kubernetes") | ternary "true" "" -}}
{{- end -}}

{{- /* A value as TOML. JSON's texts, numbers and booleans are TOML's too. */ -}}
{{- define "deployer.toml" -}}
{{- if kindIs "map" . -}}
{ {{- range $i, $key := keys . | sortAlpha }}{{ if $i }},{{ end }} {{ include "deployer.tomlKey" $key }} = {{ include "deployer.toml" (get $ $key) }}{{ end }} }
{{- else if kindIs "slice" . -}}
[{{- range $i, $value := . }}{{ if $i }}, {{ end }}{{ include "deployer.toml" $value }}{{ end -}}]
{{- else -}}
{{- toRawJson . -}}
{{- end -}}
{{- end -}}

{{- define "deployer.tomlKey" -}}
{{- regexMatch "^[A-Za-z0-9_-]+$" . | ternary . (toRawJson .) -}}
{{- end -}}

{{- /* Values that do not go together: one sentence, before anything is made. */ -}}
{{- define "deployer.check" -}}
{{- $store := include "deployer.store" . -}}
{{- if and (gt (int .Values.replicas) 1) (eq $store "sqlite") -}}
{{- fail (printf "replicas is %d, but a store on a volume is for one process: keep records in etcd (etcd.endpoints), or set replicas to 1." (int .Values.replicas)) -}}
{{- end -}}
{{- if and (eq $store "etcd") (not (include "deployer.endpoints" .)) -}}
{{- fail "store is etcd, but there is no address of one: give etcd.endpoints." -}}
{{- end -}}
{{- if and (or .Values.etcd.tlsSecret .Values.etcd.authSecret) (not (include "deployer.endpoints" .)) -}}
{{- fail "etcd.tlsSecret and etcd.authSecret are for an etcd of which there is no address: give etcd.endpoints." -}}
{{- end -}}
{{- if and .Values.etcd.endpoints .Values.etcd.bundled.enabled -}}
{{- fail "etcd.endpoints and etcd.bundled.enabled are both given: keep one of them." -}}
{{- end -}}
{{- if and .Values.etcd.clientCertificate (not .Values.etcd.tlsSecret) -}}
{{- fail "etcd.clientCertificate needs etcd.tlsSecret, the name of the Secret with tls.crt and tls.key." -}}
{{- end -}}
{{- if and (eq (include "deployer.auth" .) "none") (not .Values.config.insecure_no_auth) -}}
{{- fail "config.auth is none, so that everybody who reaches the port may deploy: set config.auth to kubernetes or jwt, or config.insecure_no_auth to true if you want that." -}}
{{- end -}}
{{- if and .Values.users (ne (include "deployer.auth" .) "kubernetes") -}}
{{- fail (printf "users is for config.auth kubernetes, and config.auth is %s: leave users out." (include "deployer.auth" .)) -}}
{{- end -}}
{{- $names := list -}}
{{- range .Values.namespaces -}}{{- $names = append $names (include "deployer.namespace" .) -}}{{- end -}}
{{- if ne (len $names) (len (uniq $names)) -}}
{{- fail (printf "namespaces has a name twice: %s." (join ", " $names)) -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) -}}
{{- fail "ingress.enabled needs ingress.host, the name under which the Deployer is reached." -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not (and .Values.httpRoute.parentRefs .Values.httpRoute.hostnames)) -}}
{{- fail "httpRoute.enabled needs httpRoute.parentRefs, the Gateways, and httpRoute.hostnames, the names under which the Deployer is reached." -}}
{{- end -}}
{{- $there := lookup "apps/v1" "StatefulSet" .Release.Namespace (include "deployer.fullname" .) -}}
{{- $before := dig "metadata" "annotations" "kube-deployer/store" $store ($there | default dict) -}}
{{- if and (ne $before $store) (or (dig "spec" "replicas" 0 $there) (dig "status" "replicas" 0 $there)) -}}
{{- fail (printf "records are in %s now and would be in %s, while a process still works on the old ones: move them as docs/installation.md says, and set replicas to 0 in between." $before $store) -}}
{{- end -}}
{{- if and .Values.rbac.create .Values.rbac.checkNamespaces .Values.namespaces -}}
{{- if lookup "v1" "Namespace" "" "default" -}}
{{- range $name := $names -}}
{{- if not (lookup "v1" "Namespace" "" $name) -}}
{{- fail (printf "namespace %s of namespaces does not exist: create it with `kubectl create namespace %s`, then run this again." $name $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
