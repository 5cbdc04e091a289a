//! Every declared metric of a process, including those without values: the content of `/metrics/declared`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use serde_json::{Value, json};

#[derive(Debug)]
struct Declared {
    kind: &'static str,
    help: String,
}

/// The declared metrics. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Catalogue(Arc<Mutex<BTreeMap<String, Declared>>>);

impl Catalogue {
    fn add(&self, kind: &'static str, key: &KeyName, help: &SharedString) {
        let declared = Declared { kind, help: help.to_string() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key.as_str().to_owned(), declared);
    }

    /// `{"name": {"type": "counter", "help": "…"}, …}`
    pub(crate) fn render(&self) -> String {
        let declared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = |(name, declared): (&String, &Declared)| {
            (name.clone(), json!({"type": declared.kind, "help": declared.help}))
        };
        Value::Object(declared.iter().map(entry).collect()).to_string()
    }
}

/// A recorder that also maintains the catalogue.
pub(crate) struct Listing<R> {
    pub(crate) inner: R,
    pub(crate) catalogue: Catalogue,
}

impl<R: Recorder> Recorder for Listing<R> {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, help: SharedString) {
        self.catalogue.add("counter", &key, &help);
        self.inner.describe_counter(key, unit, help);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, help: SharedString) {
        self.catalogue.add("gauge", &key, &help);
        self.inner.describe_gauge(key, unit, help);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, help: SharedString) {
        self.catalogue.add("histogram", &key, &help);
        self.inner.describe_histogram(key, unit, help);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.inner.register_counter(key, metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.inner.register_gauge(key, metadata)
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        self.inner.register_histogram(key, metadata)
    }
}
