//! Names that the programs agree on: labels, annotations, finalizer, field managers and the names of a bot's children.

/// API group of both kinds.
pub const GROUP: &str = "arbbot.io";

/// Label on every child: the uid of the ArbBot it belongs to. Ownership is decided by it, never by a name.
pub const LABEL_BOT_UID: &str = "arbbot.io/bot-uid";
/// Label on every child: the name of the ArbBot it belongs to.
pub const LABEL_BOT: &str = "arbbot.io/bot";

/// Finalizer on an ArbBot: held until `spec.deletionPolicy` is carried out.
pub const FINALIZER: &str = "arbbot.io/position";

/// Annotation on an ArbBot with the value "true": the operator leaves the bot's children alone. Control, claim, fencing,
/// deletion and status go on.
pub const ANNOTATION_PAUSED: &str = "arbbot.io/paused";

/// Annotation that the operator writes on a bot's Lease once the pod with this uid is shown terminated.
pub const ANNOTATION_TERMINATED: &str = "arbbot.io/terminated";

/// Field manager of the operator, for children and for its part of status.
pub const MANAGER_OPERATOR: &str = "arbbot-operator";
/// Field manager of a bot for its part of status.
pub const MANAGER_BOT: &str = "arb-bot";
/// Field manager that a person uses in an incident, so that GitOps tools leave the patch alone.
pub const MANAGER_INCIDENT: &str = "arb-incident";

/// Port of a bot's `/livez /readyz /metrics /status`.
pub const BOT_PORT: u16 = 8080;
/// Port of the operator's `/livez /readyz /metrics`.
pub const OPERATOR_PORT: u16 = 8081;

/// Where a bot's pod mounts the Secret of `spec.credentials.secretRef` (files `name` and `privateKey`).
pub const CREDENTIALS_DIR: &str = "/etc/arbbot/credentials";
/// Where a bot's pod mounts the Secret of `spec.credentials.backupSecretRef`, which may come later than the bot.
pub const BACKUP_CREDENTIALS_DIR: &str = "/etc/arbbot/credentials-backup";
/// Where a bot's pod mounts the ConfigMap of `spec.venue.coinbase.caBundle` (file `ca.crt`).
pub const CA_DIR: &str = "/etc/arbbot/ca";
/// Where a bot's pod mounts the PersistentVolumeClaim of its ledger; with a ledger in PostgreSQL a directory that ends
/// with the pod, for the kill journal.
pub const LEDGER_DIR: &str = "/var/lib/arbbot";
/// Where a bot's pod mounts the Secret of `spec.ledger.postgres.secretRef` (files `url` and perhaps `ca.crt`).
pub const LEDGER_SECRET_DIR: &str = "/etc/arbbot/ledger";

/// Lease of the operator's leader, in the operator's namespace.
pub const LEADER_LEASE: &str = "arbbot-operator-leader";

/// Names that no bot may have: in the operator's own namespace its children would have the names of the operator's
/// ServiceAccount and of its Lease.
pub const RESERVED: [&str; 2] = ["operator", "operator-leader"];

/// Name of a bot's ServiceAccount, Role, RoleBinding, Deployment, Service and Lease.
pub fn child_name(bot: &str) -> String {
    format!("arbbot-{bot}")
}

/// Name of the schema of a bot's ledger in PostgreSQL; a longer one than 63 characters is cut there. No name of
/// Kubernetes has a slash: two bots of a cluster never share one.
pub fn ledger_schema(namespace: &str, bot: &str) -> String {
    format!("{namespace}/{bot}")
}

/// Name of the PersistentVolumeClaim of a bot's ledger. It outlives the bot.
pub fn ledger_claim_name(bot: &str) -> String {
    format!("arbbot-{bot}-ledger")
}
