//! An object as a watch delivers it: its metadata, and the rest undecoded. One object that cannot be decoded must not
//! keep a whole list from being read.

use std::borrow::Cow;
use std::marker::PhantomData;

use arbbot_crds::decode::ReadableStatus;
use kube::Resource;
use kube::api::ObjectMeta;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

/// kubectl's copy of the whole object: not needed in memory.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// An object of kind `K`, undecoded.
#[derive(Clone, Debug)]
pub struct Raw<K> {
    pub metadata: ObjectMeta,
    /// The object with empty metadata.
    pub rest: Value,
    kind: PhantomData<fn() -> K>,
}

impl<K> Default for Raw<K> {
    fn default() -> Self {
        Self { metadata: ObjectMeta::default(), rest: Value::Null, kind: PhantomData }
    }
}

impl<K> Raw<K> {
    /// Splits an object.
    ///
    /// # Errors
    /// Its metadata is none.
    pub fn new(mut object: Value) -> Result<Self, serde_json::Error> {
        let Some(fields) = object.as_object_mut() else {
            return Err(serde_json::Error::custom("an object of Kubernetes is a JSON object"));
        };
        let metadata = fields.insert("metadata".to_owned(), json!({})).unwrap_or_default();
        Ok(Self { metadata: serde_json::from_value(metadata)?, rest: object, kind: PhantomData })
    }

    /// What is worth keeping: without managedFields and kubectl's copy.
    pub fn strip(&mut self) {
        self.metadata.managed_fields = None;
        if let Some(annotations) = &mut self.metadata.annotations {
            annotations.remove(LAST_APPLIED);
        }
    }

    /// The whole object as JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut whole = self.rest.clone();
        whole["metadata"] = json!(self.metadata);
        whole.to_string().into_bytes()
    }
}

impl<K: DeserializeOwned + Resource + ReadableStatus> Raw<K> {
    /// The object, decoded; what of its status cannot be read is left out.
    ///
    /// # Errors
    /// Its spec does not fit the type: stored under another schema. The message names the field.
    pub fn decode(&self) -> Result<K, serde_json::Error> {
        if let Ok(object) = K::deserialize(&self.rest) {
            return Ok(self.with_metadata(object));
        }
        let mut rest = self.rest.clone();
        if let Some(status) = rest.get_mut("status") {
            *status = K::readable_status(status);
        }
        // serde_json alone says what is wrong, not where.
        let object = serde_path_to_error::deserialize(&rest).map_err(serde_json::Error::custom)?;
        Ok(self.with_metadata(object))
    }
}

impl<K: DeserializeOwned + Resource> Raw<K> {
    /// The object of a built-in kind, decoded: its types are many and large, and its errors nobody can mend.
    #[must_use]
    pub fn decode_built_in(&self) -> Option<K> {
        Some(self.with_metadata(K::deserialize(&self.rest).ok()?))
    }

    fn with_metadata(&self, mut object: K) -> K {
        *object.meta_mut() = self.metadata.clone();
        object
    }
}

impl<'de, K> Deserialize<'de> for Raw<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl<K: Resource<DynamicType = ()>> Resource for Raw<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind(_: &()) -> Cow<'_, str> {
        K::kind(&())
    }

    fn group(_: &()) -> Cow<'_, str> {
        K::group(&())
    }

    fn version(_: &()) -> Cow<'_, str> {
        K::version(&())
    }

    fn plural(_: &()) -> Cow<'_, str> {
        K::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arbbot_crds::{ArbBot, ArbPolicy};

    #[test]
    fn an_object_of_another_schema_keeps_its_metadata_and_says_what_does_not_fit() {
        let object = json!({"apiVersion": "arbbot.io/v1alpha1", "kind": "ArbBot", "metadata": {"name": "old", "uid": "u"}, "spec": {"mode": "Paused"}});
        let raw = Raw::<ArbBot>::new(object).unwrap();
        assert_eq!(raw.metadata.name.as_deref(), Some("old"));
        assert!(raw.decode().unwrap_err().to_string().contains("Paused"));
    }

    #[test]
    fn a_status_of_another_release_is_read_as_far_as_it_goes() {
        let mut object = json!(crate::reconcile::fixtures::bot(""));
        object["status"] = json!({
            "observedGeneration": 3,
            "bot": {"appliedGeneration": 3, "effectiveMode": "Hibernating", "podUid": "x"},
            "killSwitch": {"incidents": [{"id": "0b9d6bcd-3", "phase": "Arbitrating"}]},
        });
        let status = Raw::<ArbBot>::new(object).unwrap().decode().unwrap().status.unwrap();
        let said = status.bot.unwrap();
        assert_eq!((said.applied_generation, said.pod_uid.as_deref()), (Some(3), Some("x")));
        assert_eq!(said.effective_mode, None);
        assert_eq!(status.kill_switch.unwrap().incidents[0].id, "0b9d6bcd-3", "a latch is never left out");
        let mut policy = json!(crate::reconcile::fixtures::policy("mode: Halted"));
        policy["status"] = json!({"observedGeneration": 3, "bots": "many"});
        let status = Raw::<ArbPolicy>::new(policy).unwrap().decode().unwrap().status.unwrap();
        assert_eq!(status.observed_generation, Some(3));
    }

    #[test]
    fn what_is_kept_has_no_copies_of_the_object() {
        let object = json!({"metadata": {"name": "a", "annotations": {LAST_APPLIED: "{}", "b": "c"}, "managedFields": [{"manager": "m"}]}});
        let mut raw = Raw::<ArbBot>::new(object).unwrap();
        raw.strip();
        let kept: Value = serde_json::from_slice(&raw.to_json()).unwrap();
        assert_eq!(kept, json!({"metadata": {"name": "a", "annotations": {"b": "c"}}}));
    }
}
