//! The disk of the bot's ledger, unless that is in PostgreSQL. It outlives the bot, and a later bot of the same name adopts it.

use arbbot_crds::names::ledger_claim_name;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::ObjectMeta;

use super::{ValidatedBot, metadata, strings};

/// The spec of an existing claim stays as it is: only a person resizes it.
pub fn build(bot: &ValidatedBot, live: Option<&PersistentVolumeClaim>) -> Option<PersistentVolumeClaim> {
    let ledger = &bot.spec().ledger;
    if ledger.postgres.is_some() {
        return None;
    }
    let sqlite = ledger.sqlite.clone().unwrap_or_default();
    let live = live.and_then(|claim| claim.spec.as_ref());
    let size = live
        .and_then(|spec| spec.resources.as_ref()?.requests.as_ref()?.get("storage").cloned())
        .unwrap_or_else(|| Quantity(sqlite.size.clone()));
    let storage_class_name = match live {
        Some(live) => live.storage_class_name.clone(),
        None => sqlite.storage_class_name.clone(),
    };
    let access_modes = live.and_then(|spec| spec.access_modes.clone()).unwrap_or_else(|| strings(["ReadWriteOnce"]));
    let spec = PersistentVolumeClaimSpec {
        access_modes: Some(access_modes),
        resources: Some(VolumeResourceRequirements {
            requests: Some([("storage".to_owned(), size)].into()),
            limits: None,
        }),
        storage_class_name,
        ..PersistentVolumeClaimSpec::default()
    };
    let metadata = ObjectMeta { name: Some(ledger_claim_name(bot.name())), ..metadata(bot) };
    Some(PersistentVolumeClaim { metadata, spec: Some(spec), status: None })
}

#[cfg(test)]
mod tests {
    use super::super::super::fixtures::{bot, validated};
    use super::*;

    #[test]
    fn an_existing_claim_keeps_its_size_and_class() {
        let bot = validated(&bot("  ledger: {sqlite: {size: 2Gi, storageClassName: fast}}\n"));
        let new = build(&bot, None).unwrap();
        let spec = new.spec.clone().unwrap();
        assert_eq!(spec.storage_class_name.as_deref(), Some("fast"));
        assert_eq!(spec.resources.unwrap().requests.unwrap()["storage"].0, "2Gi");

        let mut resized = new;
        let spec = resized.spec.as_mut().unwrap();
        spec.storage_class_name = Some("old".to_owned());
        spec.resources
            .as_mut()
            .unwrap()
            .requests
            .as_mut()
            .unwrap()
            .insert("storage".to_owned(), Quantity("9Gi".to_owned()));
        assert_eq!(build(&bot, Some(&resized)), Some(resized));
    }

    #[test]
    fn a_ledger_in_postgres_has_no_claim() {
        assert_eq!(build(&validated(&bot("  ledger: {postgres: {secretRef: {name: db}}}\n")), None), None);
        assert!(build(&validated(&bot("  ledger: {}\n")), None).is_some());
    }
}
