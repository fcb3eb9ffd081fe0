{{/* The parts of a pod. A chart that depends on this one includes them in its own pods. */}}

{{/* The folder that both containers mount. The socket is in a sub-folder: an emptyDir's own root is open to everybody. */}}
{{- define "wandb-cred.folder" -}}/run/wandb-cred/daemon{{- end }}

{{- define "wandb-cred.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: {{ .Values.user }}
runAsGroup: {{ .Values.group }}
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "wandb-cred.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}

{{/* Among the initContainers: starts before the others, and is done when they are. */}}
{{- define "wandb-cred.sidecar" -}}
name: wandb-cred
image: {{ .Values.image }}
restartPolicy: Always
env:
  - { name: WANDB_CRED_CONFIG, value: /etc/wandb-cred/config.toml }
  - { name: WANDB_CRED_SOCKET, value: {{ include "wandb-cred.folder" . }}/wandb-cred.sock }
securityContext:
  {{- include "wandb-cred.containerSecurityContext" . | nindent 2 }}
startupProbe:
  # The other containers start when there is a token.
  exec: { command: [/usr/bin/wandb-cred, status] }
  periodSeconds: 1
  failureThreshold: 120
  timeoutSeconds: 5
resources:
  requests: { cpu: 5m, memory: 16Mi }
  limits: { memory: 64Mi }
volumeMounts:
  - { name: wandb-cred-run, mountPath: /run/wandb-cred }
  - { name: wandb-cred-config, mountPath: /etc/wandb-cred, readOnly: true }
  - { name: wandb-cred-token, mountPath: /var/run/secrets/wandb, readOnly: true }
{{- end }}

{{/* What an unmodified SDK reads; the last one is for wandb-cred, curl and scripts in the container. */}}
{{- define "wandb-cred.env" -}}
- { name: WANDB_BASE_URL, value: {{ .Values.baseUrl | quote }} }
- { name: WANDB_IDENTITY_TOKEN_FILE, value: {{ include "wandb-cred.folder" . }}/profiles/pod/identity-token }
- { name: WANDB_CREDENTIALS_FILE, value: {{ include "wandb-cred.folder" . }}/profiles/pod/credentials.json }
- { name: WANDB_CRED_SOCKET, value: {{ include "wandb-cred.folder" . }}/wandb-cred.sock }
{{- end }}

{{- define "wandb-cred.volumeMounts" -}}
- { name: wandb-cred-run, mountPath: /run/wandb-cred }
{{- end }}

{{- define "wandb-cred.volumes" -}}
- name: wandb-cred-run
  emptyDir: { medium: Memory, sizeLimit: 16Mi }
- name: wandb-cred-config
  configMap: { name: {{ .Release.Name }}-wandb-cred }
- name: wandb-cred-token
  projected:
    sources:
      - serviceAccountToken:
          audience: {{ .Values.audience | quote }}
          expirationSeconds: {{ .Values.tokenSeconds }}
          path: token
{{- end }}
