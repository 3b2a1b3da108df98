{{/*
What the operator may do in a namespace with ArbBots, the same in a ClusterRole and in a Role. What it grants to a bot it
must hold itself. There is nothing on Secrets: the kubelet mounts the key, the operator never sees it.
*/}}
{{- define "arbbot-operator.rules" -}}
# The bots themselves; patch sets and removes the finalizer. get, list and watch are also granted to each bot.
- apiGroups: [arbbot.io]
  resources: [arbbots]
  verbs: [get, list, watch, patch]
# Which restrictions apply to a bot; get: a policy's status is written from what the API server itself has.
- apiGroups: [arbbot.io]
  resources: [arbpolicies]
  verbs: [get, list, watch]
# The operator's part of a bot's status, also granted to each bot for its part.
- apiGroups: [arbbot.io]
  resources: [arbbots/status]
  verbs: [patch]
# What a policy's bots say, counted.
- apiGroups: [arbbot.io]
  resources: [arbpolicies/status]
  verbs: [patch]
# Only the bot's http port is open to the network.
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
# A bot's identity and its Service: applied, repaired after an edit, deleted after the drain.
- apiGroups: [""]
  resources: [serviceaccounts, services]
  verbs: [get, list, watch, create, patch, delete]
# The ledger's disk: created and adopted. It outlives the bot, so there is no delete.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, create, patch]
# The bot's pod.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
# The bot's own small Role. The operator can grant only what it holds itself.
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [get, list, watch, create, patch, delete]
# Why a pod does not start, and the proof that it has ended.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# The kubelet tells of a Secret or ConfigMap that is missing only in Events of the pod.
- apiGroups: [""]
  resources: [events]
  verbs: [list]
# Events on ArbBots and ArbPolicies.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
# Whether a bot is in contact (list once at the start, then get), the proof that its pod has ended (patch), the end of
# the bot (delete); create and update are there because they are granted to each bot.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, list, create, update, patch, delete]
# Whether a deletion comes from the end of the namespace, where nothing can be created any more. A Role can grant it for
# its own namespace.
- apiGroups: [""]
  resources: [namespaces]
  verbs: [get]
{{- end }}
