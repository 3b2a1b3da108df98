//! An ArbBot in a YAML file. Without an API server nobody else checks it, so it is checked here: unknown fields, bounds
//! and the rules that the CustomResourceDefinition states in CEL. Pure but for [`load`].

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use arbbot_crds::ArbBot;
use arbbot_crds::arbbot::{ActiveKey, ArbBotSpec, KeyFailover};
use arbbot_crds::decode::{self, DecodeError, Unreadable};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{JSONSchemaProps, JSONSchemaPropsOrBool};
use kube::CustomResourceExt;
use kube::api::ObjectMeta;
use serde_json::{Value, json};

/// Largest file that is read; the API server takes no larger object either.
const MAX_FILE: u64 = 1024 * 1024;

/// Why a file gives no ArbBot.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    #[error("{path} cannot be read: {cause}; give the file of an ArbBot")]
    Read { path: PathBuf, cause: io::Error },
    #[error("{path} is not an ArbBot: {problem}")]
    NotAnArbBot { path: PathBuf, problem: String },
    #[error("{path} is not valid: {problems}")]
    Invalid { path: PathBuf, problems: String },
    #[error("{path}: {cause}")]
    Decode { path: PathBuf, cause: DecodeError },
}

/// An ArbBot as its file has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Name, namespace, labels and annotations; the rest is the API server's.
    pub metadata: ObjectMeta,
    pub spec: Value,
}

/// Reads the file's text.
///
/// # Errors
/// It is not there, not text, or too large.
pub fn read(path: &Path) -> Result<String, DocumentError> {
    let mut text = String::new();
    let result = File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text));
    let too_large = || io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 1 MiB");
    match result {
        Ok(read) if read as u64 > MAX_FILE => Err(too_large()),
        Ok(_) => Ok(text),
        Err(error) => Err(error),
    }
    .map_err(|cause| DocumentError::Read { path: path.to_owned(), cause })
}

/// Reads a valid ArbBot.
///
/// # Errors
/// The file cannot be read, or anything in it is wrong; the error names the field.
pub fn load(path: &Path) -> Result<ArbBot, DocumentError> {
    let text = read(path)?;
    let document = parse(&text).map_err(|problem| DocumentError::NotAnArbBot { path: path.to_owned(), problem })?;
    if let Some(problem) = document.problem(None) {
        return Err(DocumentError::Invalid { path: path.to_owned(), problems: problem.to_string() });
    }
    let decoded = decode::arb_bot(document.metadata, &json!({"spec": document.spec}), None)
        .map_err(|cause| DocumentError::Decode { path: path.to_owned(), cause })?;
    if decoded.unreadable.is_empty() {
        return Ok(decoded.object);
    }
    let problems = decoded.unreadable.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    Err(DocumentError::Invalid { path: path.to_owned(), problems })
}

/// Takes YAML apart.
///
/// # Errors
/// It is not YAML, or not one ArbBot; the text says what to do.
pub fn parse(text: &str) -> Result<Document, String> {
    let value: Value =
        serde_yaml::from_str(text).map_err(|error| format!("it is not YAML: {error}; mend the line that it names"))?;
    let field = |path: &str| value.pointer(path).and_then(Value::as_str).unwrap_or_default();
    for (path, expected) in [("/apiVersion", "arbbot.io/v1alpha1"), ("/kind", "ArbBot")] {
        if field(path) != expected {
            return Err(format!("{} must be {expected}, not {:?}", path.trim_start_matches('/'), field(path)));
        }
    }
    if field("/metadata/name").is_empty() {
        return Err("metadata.name is missing: name the bot".to_owned());
    }
    let strings = |path: &str| match value.pointer(path) {
        None | Some(Value::Null) => Ok(None),
        Some(map) => serde_json::from_value(map.clone()).map(Some).map_err(|_| format!("{path} must map text to text")),
    };
    let metadata = ObjectMeta {
        name: Some(field("/metadata/name").to_owned()),
        namespace: Some(field("/metadata/namespace").to_owned()).filter(|namespace| !namespace.is_empty()),
        labels: strings("/metadata/labels")?,
        annotations: strings("/metadata/annotations")?,
        ..ObjectMeta::default()
    };
    let spec = value.get("spec").cloned().filter(Value::is_object).ok_or("spec is missing")?;
    Ok(Document { metadata, spec })
}

/// Whether a text that is no YAML nevertheless engages a kill switch: a kill is never unread.
#[must_use]
pub fn engages(text: &str) -> bool {
    let without_comments = text.lines().filter_map(|line| line.split('#').next());
    without_comments.map(|line| line.replace([' ', '\t', '"', '\''], "")).any(|line| line.contains("engaged:true"))
}

impl Document {
    /// The first thing for which an API server would refuse this object, after `before` where there was one.
    #[must_use]
    pub fn problem(&self, before: Option<&ArbBotSpec>) -> Option<Unreadable> {
        let schema = ArbBot::crd().spec.versions.into_iter().next().and_then(|v| v.schema?.open_api_v3_schema);
        let spec = schema.and_then(|schema| schema.properties?.remove("spec"));
        let mut problems = Vec::new();
        if let Some(schema) = spec {
            check("spec", &schema, &self.spec, &mut problems);
        }
        // What has the wrong type is decode's to say.
        if let Ok(spec) = serde_json::from_value::<ArbBotSpec>(self.spec.clone()) {
            rules(&spec, before, &mut problems);
        }
        problems.into_iter().next()
    }
}

/// Unknown fields and bounds.
fn check(path: &str, schema: &JSONSchemaProps, value: &Value, problems: &mut Vec<Unreadable>) {
    let mut refuse = |why: String| problems.push(Unreadable { field: path.to_owned(), why });
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let below = format!("{path}.{name}");
                let known = schema.properties.as_ref().and_then(|properties| properties.get(name));
                match (known, &schema.additional_properties) {
                    (Some(schema), _) => check(&below, schema, value, problems),
                    (None, Some(JSONSchemaPropsOrBool::Schema(schema))) => check(&below, schema, value, problems),
                    (None, Some(JSONSchemaPropsOrBool::Bool(true))) => {}
                    _ if schema.x_kubernetes_preserve_unknown_fields == Some(true) => {}
                    _ if schema.x_kubernetes_int_or_string == Some(true) => {}
                    (None, _) => problems.push(Unreadable {
                        field: below,
                        why: "there is no such field; check its spelling and where it belongs".to_owned(),
                    }),
                }
            }
        }
        Value::Array(items) => {
            let items_schema = schema.items.as_ref().and_then(|items| match items {
                k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaPropsOrArray::Schema(
                    schema,
                ) => Some(schema),
                _ => None,
            });
            let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
            if schema.min_items.is_some_and(|least| count < least) || schema.max_items.is_some_and(|most| count > most)
            {
                refuse(format!("it has {count} items; allowed are {}", range(schema.min_items, schema.max_items)));
            }
            for (index, item) in items.iter().enumerate() {
                if let Some(schema) = items_schema {
                    check(&format!("{path}[{index}]"), schema, item, problems);
                }
            }
        }
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or_default();
            let outside =
                schema.minimum.is_some_and(|least| number < least) || schema.maximum.is_some_and(|most| number > most);
            if outside {
                refuse(format!("{number} is outside of {}", range(schema.minimum, schema.maximum)));
            }
        }
        Value::String(text) => {
            let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
            let outside = schema.min_length.is_some_and(|least| length < least)
                || schema.max_length.is_some_and(|most| length > most);
            if outside {
                refuse(format!(
                    "it has {length} characters; allowed are {}",
                    range(schema.min_length, schema.max_length)
                ));
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

fn range<T: ToString>(least: Option<T>, most: Option<T>) -> String {
    match (least, most) {
        (Some(least), Some(most)) => format!("{} to {}", least.to_string(), most.to_string()),
        (Some(least), None) => format!("at least {}", least.to_string()),
        (None, Some(most)) => format!("at most {}", most.to_string()),
        (None, None) => "any".to_owned(),
    }
}

/// What the CustomResourceDefinition says in CEL.
fn rules(spec: &ArbBotSpec, before: Option<&ArbBotSpec>, problems: &mut Vec<Unreadable>) {
    let mut require = |holds: bool, field: &str, why: &str| {
        if !holds {
            problems.push(Unreadable { field: format!("spec.{field}"), why: why.to_owned() });
        }
    };
    let second = std::time::Duration::from_secs(1);
    let timeouts = &spec.control_timeouts;
    let (lease, stale, lost) = (timeouts.lease.0, timeouts.stale.0, timeouts.lost.0);
    let ordered = second <= lease && lease < stale && stale < lost;
    require(ordered, "controlTimeouts", "they must keep the order 1s <= lease < stale < lost");
    let carry = &spec.strategy.funding_carry;
    let rest = carry.orders.max_rest.0;
    require(5 * second <= rest && rest <= 600 * second, "strategy.fundingCarry.orders.maxRest", "it must be 5s to 10m");
    let leg = carry.orders.leg_timeout.0;
    require(leg >= second, "strategy.fundingCarry.orders.legTimeout", "it must be at least 1s");
    require(
        !carry.future_product.ends_with("-INTX"),
        "strategy.fundingCarry.futureProduct",
        "INTX perpetuals over Advanced Trade ended on 1 October 2026: choose a US perpetual-style future, for example \
         BIP-20DEC30-CDE",
    );
    let credentials = &spec.credentials;
    let wants_backup = credentials.active != ActiveKey::Primary || credentials.failover != KeyFailover::Never;
    let has_backup = credentials.backup_secret_ref.is_some();
    require(has_backup || !wants_backup, "credentials", "active Backup and failover OnRefused need backupSecretRef");
    if let Some(field) = spec.lacks_for_live() {
        require(false, field, "it is missing, and execution Live needs it; to try a bot without a key use Paper");
    }
    let Some(before) = before else { return };
    let old = &before.strategy.funding_carry;
    let immutable = "it is immutable: run another bot, with another --state-dir";
    require(spec.execution == before.execution, "execution", immutable);
    let balance = |spec: &ArbBotSpec| spec.paper.as_ref().map(|paper| paper.balance);
    let kept = balance(before).is_none_or(|_| balance(spec) == balance(before));
    require(kept, "paper.balance", immutable);
    let portfolio = &before.venue.coinbase.portfolio;
    require(spec.venue.coinbase.portfolio == *portfolio, "venue.coinbase.portfolio", immutable);
    require(carry.spot_product == old.spot_product, "strategy.fundingCarry.spotProduct", immutable);
    require(carry.future_product == old.future_product, "strategy.fundingCarry.futureProduct", immutable);
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub const BOT: &str = "
apiVersion: arbbot.io/v1alpha1
kind: ArbBot
metadata: {name: carry, labels: {desk: a}}
spec:
  execution: Live
  venue: {coinbase: {portfolio: 00000000-0000-0000-0000-000000000001}}
  strategy: {fundingCarry: {spotProduct: BTC-USD, futureProduct: BIP-20DEC30-CDE, targetNotional: '1000'}}
  credentials: {secretRef: {name: key}}
";

    fn problem(more: &str) -> String {
        let document = parse(&format!("{BOT}{more}")).unwrap();
        document.problem(None).map(|problem| problem.to_string()).unwrap_or_default()
    }

    #[test]
    fn the_same_yaml_as_for_a_cluster_is_valid() {
        assert_eq!(problem("  mode: Halted\n  killSwitch: {engaged: true}\n  podTemplate: {labels: {a: b}}\n"), "");
        assert_eq!(problem("  resources: {limits: {cpu: 1, memory: 64Mi}}\n"), "");
    }

    #[test]
    fn what_an_api_server_would_refuse_is_named() {
        for (more, field) in [
            ("  killSwich: {engaged: true}\n", "spec.killSwich"),
            ("  killSwitch: {engage: true}\n", "spec.killSwitch.engage"),
            ("  risk: {maxOrderNotional: '1'}\n", "spec.risk.maxOrderNotional"),
            ("  risk: {limits: {maxOpenOrders: 100000}}\n", "spec.risk.limits.maxOpenOrders"),
            ("  controlTimeouts: {lease: 2m}\n", "spec.controlTimeouts"),
        ] {
            assert!(problem(more).starts_with(field), "{more} {}", problem(more));
        }
    }

    #[test]
    fn account_and_products_cannot_change_under_a_running_bot() {
        let before = parse(BOT).unwrap();
        let before: ArbBotSpec = serde_json::from_value(before.spec).unwrap();
        for (from, to) in [("000001", "000002"), ("BTC-USD", "ETH-USD"), ("BIP-20", "BIP-21")] {
            let edited = parse(&BOT.replace(from, to)).unwrap();
            let problem = edited.problem(Some(&before)).map(|problem| problem.why).unwrap_or_default();
            assert!(problem.contains("immutable"), "{to}");
        }
        assert_eq!(parse(BOT).unwrap().problem(Some(&before)), None);
    }

    #[test]
    fn what_is_no_arbbot_says_what_is_missing() {
        for (text, word) in [
            ("{", "YAML"),
            ("kind: Pod", "apiVersion"),
            (&BOT.replace("name: carry,", ""), "metadata.name"),
            ("", "apiVersion"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_kill_in_broken_yaml_is_found_and_one_in_a_comment_is_not() {
        assert!(engages("spec:\n killSwitch: {engaged: true\n mode: ["));
        assert!(engages("  engaged:   true   # now"));
        assert!(!engages("# engaged: true\nspec: ["));
        assert!(!engages("engaged: false\nspec: ["));
    }
}
