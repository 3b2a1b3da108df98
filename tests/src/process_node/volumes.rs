//! Volumes of a pod as directories of the host.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{ConfigMap, KeyToPath, PersistentVolume, PersistentVolumeClaim, Pod, Secret, Volume};
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::container::Mount;

/// Why a volume cannot be mounted: a kubelet's Event `FailedMount`.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error("MountVolume.SetUp failed for volume {volume:?} : {kind} {name:?} not found")]
    Missing { volume: String, kind: &'static str, name: String },
    #[error("MountVolume.SetUp failed for volume {volume:?} : references non-existent {kind} key: {key}")]
    MissingKey { volume: String, kind: &'static str, key: String },
    #[error("MountVolume.SetUp failed for volume {volume:?} : a process node does not know this kind of volume")]
    Unsupported { volume: String },
    #[error("MountVolume.SetUp failed for volume {volume:?} : {source}")]
    Io { volume: String, source: io::Error },
    #[error("MountVolume.SetUp failed for volume {volume:?} : {source}")]
    Api { volume: String, source: Box<kube::Error> },
}

/// Where volumes come from and go to.
pub struct Volumes {
    pub client: Client,
    pub namespace: String,
    /// Directory of this pod's volumes.
    pub directory: PathBuf,
    /// Directory of all claims: they outlive pods.
    pub claims: PathBuf,
}

type Files = BTreeMap<String, Vec<u8>>;

impl Volumes {
    /// Brings every volume of the pod's container up to date and says where each path of the container is.
    ///
    /// # Errors
    /// The first volume that cannot be mounted.
    pub async fn mount(&self, pod: &Pod) -> Result<Vec<Mount>, MountError> {
        let Some(spec) = &pod.spec else { return Ok(Vec::new()) };
        let mut directories = BTreeMap::new();
        for volume in spec.volumes.iter().flatten() {
            directories.insert(volume.name.clone(), self.set_up(volume).await?);
        }
        let mounts = spec.containers.iter().flat_map(|container| container.volume_mounts.iter().flatten());
        Ok(mounts
            .filter_map(|mount| {
                let directory = directories.get(&mount.name)?.clone();
                Some(Mount { path: mount.mount_path.clone(), directory })
            })
            .collect())
    }

    async fn set_up(&self, volume: &Volume) -> Result<PathBuf, MountError> {
        let directory = self.directory.join(&volume.name);
        if let Some(claim) = &volume.persistent_volume_claim {
            return self.claim(&volume.name, &claim.claim_name).await;
        }
        create(&volume.name, &directory)?;
        let files = if let Some(secret) = &volume.secret {
            let name = secret.secret_name.clone().unwrap_or_default();
            self.secret(&volume.name, &name, secret.optional, secret.items.as_deref()).await?
        } else if let Some(map) = &volume.config_map {
            self.config_map(&volume.name, &map.name, map.optional, map.items.as_deref()).await?
        } else if volume.empty_dir.is_some() || volume.projected.is_some() {
            // The projected volume of a ServiceAccount's token stays empty: the program finds a kubeconfig in KUBECONFIG.
            return Ok(directory);
        } else {
            return Err(MountError::Unsupported { volume: volume.name.clone() });
        };
        let volume = volume.name.clone();
        publish(&directory, &files).map_err(|source| MountError::Io { volume, source })?;
        Ok(directory)
    }

    async fn secret(
        &self,
        volume: &str,
        name: &str,
        optional: Option<bool>,
        items: Option<&[KeyToPath]>,
    ) -> Result<Files, MountError> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = api.get_opt(name).await.map_err(|source| api_error(volume, source))?;
        let files = found.map(|secret| secret.data.unwrap_or_default().into_iter().map(|(k, v)| (k, v.0)).collect());
        select(volume, "secret", name, files, optional, items)
    }

    async fn config_map(
        &self,
        volume: &str,
        name: &str,
        optional: Option<bool>,
        items: Option<&[KeyToPath]>,
    ) -> Result<Files, MountError> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = api.get_opt(name).await.map_err(|source| api_error(volume, source))?;
        let files = found.map(|map| {
            let text = map.data.unwrap_or_default().into_iter().map(|(k, v)| (k, v.into_bytes()));
            text.chain(map.binary_data.unwrap_or_default().into_iter().map(|(k, v)| (k, v.0))).collect()
        });
        select(volume, "configmap", name, files, optional, items)
    }

    /// The directory of a claim. A claim without a volume gets one, as a storage provisioner would do it.
    async fn claim(&self, volume: &str, name: &str) -> Result<PathBuf, MountError> {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &self.namespace);
        let claim = claims.get_opt(name).await.map_err(|source| api_error(volume, source))?;
        let kind = "persistentvolumeclaim";
        let missing = || MountError::Missing { volume: volume.to_owned(), kind, name: name.to_owned() };
        let claim = claim.ok_or_else(missing)?;
        let directory = self.claims.join(claim.uid().unwrap_or_default());
        create(volume, &directory)?;
        if claim.spec.as_ref().is_some_and(|spec| spec.volume_name.is_none()) {
            let persistent_volume = persistent_volume(&claim, &directory);
            let api: Api<PersistentVolume> = Api::all(self.client.clone());
            match api.create(&PostParams::default(), &persistent_volume).await {
                Err(kube::Error::Api(status)) if status.is_already_exists() => {}
                Err(source) => return Err(api_error(volume, source)),
                Ok(_) => {}
            }
        }
        Ok(directory)
    }
}

fn persistent_volume(claim: &PersistentVolumeClaim, directory: &Path) -> PersistentVolume {
    let spec = claim.spec.clone().unwrap_or_default();
    let requests = spec.resources.and_then(|resources| resources.requests).unwrap_or_default();
    let mut volume = PersistentVolume::default();
    volume.metadata.name = Some(format!("process-node-{}", claim.uid().unwrap_or_default()));
    // Built as JSON: most fields of the types are absent.
    volume.spec = serde_json::from_value(json!({
        "capacity": {"storage": requests.get("storage")},
        "accessModes": spec.access_modes,
        "storageClassName": spec.storage_class_name.unwrap_or_default(),
        "persistentVolumeReclaimPolicy": "Retain",
        "hostPath": {"path": directory},
        "claimRef": {
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "namespace": claim.namespace(), "name": claim.name_any(), "uid": claim.uid(),
        },
    }))
    .ok();
    volume
}

/// The files that a Secret or ConfigMap becomes: all its keys, or those that `items` names.
fn select(
    volume: &str,
    kind: &'static str,
    name: &str,
    found: Option<Files>,
    optional: Option<bool>,
    items: Option<&[KeyToPath]>,
) -> Result<Files, MountError> {
    let optional = optional.unwrap_or(false);
    let Some(mut files) = found else {
        let missing = || MountError::Missing { volume: volume.to_owned(), kind, name: name.to_owned() };
        return if optional { Ok(Files::new()) } else { Err(missing()) };
    };
    let Some(items) = items else { return Ok(files) };
    let mut selected = Files::new();
    for item in items {
        match files.remove(&item.key) {
            Some(content) => drop(selected.insert(item.path.clone(), content)),
            None if optional => {}
            None => return Err(MountError::MissingKey { volume: volume.to_owned(), kind, key: item.key.clone() }),
        }
    }
    Ok(selected)
}

fn create(volume: &str, directory: &Path) -> Result<(), MountError> {
    fs::create_dir_all(directory).map_err(|source| MountError::Io { volume: volume.to_owned(), source })
}

fn api_error(volume: &str, source: kube::Error) -> MountError {
    MountError::Api { volume: volume.to_owned(), source: Box::new(source) }
}

/// Makes the files visible all at once, as a kubelet does: they are links through `..data`, which is renamed over.
fn publish(directory: &Path, files: &Files) -> io::Result<()> {
    let current = directory.join("..data");
    let same = files.iter().all(|(name, content)| fs::read(current.join(name)).is_ok_and(|old| old == *content));
    let count = fs::read_dir(&current).map(Iterator::count).ok();
    if same && count == Some(files.len()) {
        return Ok(());
    }
    let old = fs::read_link(&current).ok();
    let new = tempfile::Builder::new().prefix("..").tempdir_in(directory)?.keep();
    for (name, content) in files {
        fs::write(new.join(name), content)?;
    }
    let link = directory.join("..data_tmp");
    std::os::unix::fs::symlink(&new, &link)?;
    fs::rename(&link, &current)?;
    for name in files.keys().filter(|name| !directory.join(name).is_symlink()) {
        std::os::unix::fs::symlink(Path::new("..data").join(name), directory.join(name))?;
    }
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !files.contains_key(&name) {
            fs::remove_file(directory.join(name))?;
        }
    }
    old.map_or(Ok(()), fs::remove_dir_all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(content: &[(&str, &str)]) -> Files {
        content.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect()
    }

    #[test]
    fn a_changed_secret_replaces_all_files_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let read = |name: &str| fs::read_to_string(directory.path().join(name)).ok();
        publish(directory.path(), &files(&[("name", "a"), ("old", "x")])).unwrap();
        assert_eq!((read("name"), read("old")), (Some("a".into()), Some("x".into())));
        publish(directory.path(), &files(&[("name", "b"), ("new", "y")])).unwrap();
        assert_eq!((read("name"), read("old"), read("new")), (Some("b".into()), None, Some("y".into())));
        let visible = fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(visible, 4, "..data, its directory and the two files");
    }

    #[test]
    fn a_missing_key_is_named() {
        let item = KeyToPath { key: "privateKey".into(), path: "privateKey".into(), mode: None };
        let error = select("key", "secret", "s", Some(files(&[("name", "a")])), None, Some(&[item])).unwrap_err();
        assert!(error.to_string().contains("non-existent secret key: privateKey"), "{error}");
    }
}
