//! Label selectors.

use serde_json::Value;

/// Terms that all must hold: label, value, and whether they must be equal.
#[derive(Clone, Default)]
pub(crate) struct Selector(Vec<(String, String, bool)>);

impl Selector {
    pub(crate) fn parse(text: &str) -> Self {
        let term = |text: &str| {
            let (key, value, equal) = match text.split_once("!=") {
                Some((key, value)) => (key, value, false),
                None => text.split_once('=').map(|(key, value)| (key, value, true)).unwrap(),
            };
            (key.to_owned(), value.to_owned(), equal)
        };
        Self(text.split(',').filter(|text| !text.is_empty()).map(term).collect())
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.0.iter().all(|(key, value, equal)| (labels[key] == **value) == *equal)
    }
}
