//! What a request asks of the API server, told from its method and path. Pure.

use std::fmt;

use axum::http::{Method, Uri};

/// A request as RBAC and a person name it: `patch arbbots/status`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    pub verb: &'static str,
    /// With its subresource; of a request for no resource, the path.
    pub resource: String,
}

impl Call {
    pub fn of(method: &Method, uri: &Uri) -> Self {
        let path: Vec<&str> = uri.path().split('/').filter(|part| !part.is_empty()).collect();
        let of_group = match path.as_slice() {
            ["api", _, rest @ ..] | ["apis", _, _, rest @ ..] => rest,
            _ => &[],
        };
        let parts = match of_group {
            ["namespaces", _, rest @ ..] if !rest.is_empty() => rest,
            other => other,
        };
        let (resource, named) = match parts {
            [] => (uri.path().to_owned(), true),
            [resource] => ((*resource).to_owned(), false),
            [resource, _] => ((*resource).to_owned(), true),
            [resource, _, subresource, ..] => (format!("{resource}/{subresource}"), true),
        };
        let watches = uri.query().is_some_and(|query| query.contains("watch=true") || query.contains("watch=1"));
        let verb = match (method.as_str(), watches, named) {
            ("GET", true, _) => "watch",
            ("GET", false, true) => "get",
            ("GET", false, false) => "list",
            ("POST", ..) => "create",
            ("PUT", ..) => "update",
            ("PATCH", ..) => "patch",
            ("DELETE", ..) => "delete",
            _ => "other",
        };
        Self { verb, resource }
    }

    pub fn is_watch(&self) -> bool {
        self.verb == "watch"
    }

    /// Whether somebody else may have changed the object meanwhile.
    pub fn can_conflict(&self) -> bool {
        matches!(self.verb, "update" | "patch" | "delete")
    }

    /// Whether its resourceVersion may be too old.
    pub fn can_be_too_old(&self) -> bool {
        matches!(self.verb, "list" | "watch")
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_verb_and_a_resource() {
        for (method, uri, expected) in [
            ("GET", "/apis/arbbot.io/v1alpha1/arbbots?&watch=true&timeoutSeconds=290", "watch arbbots"),
            ("GET", "/apis/arbbot.io/v1alpha1/namespaces/a/arbbots/b", "get arbbots"),
            ("PATCH", "/apis/arbbot.io/v1alpha1/namespaces/a/arbbots/b/status?fieldManager=x", "patch arbbots/status"),
            ("GET", "/api/v1/pods?limit=500", "list pods"),
            ("GET", "/api/v1/namespaces/a", "get namespaces"),
            ("POST", "/apis/events.k8s.io/v1/namespaces/a/events", "create events"),
            ("DELETE", "/api/v1/namespaces/a/services/s", "delete services"),
            ("GET", "/version", "get /version"),
        ] {
            let call = Call::of(&method.parse().unwrap(), &uri.parse().unwrap());
            assert_eq!(call.to_string(), expected);
        }
    }
}
