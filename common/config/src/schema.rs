//! The JSON schema of a run file, which defines its keys.

use serde_json::{Map, Value};

use crate::run_file::RunFile;

/// The JSON schema of a run file.
pub(crate) fn schema() -> Value {
    schemars::schema_for!(RunFile).to_value()
}

/// Returns the properties of an object schema, following references.
pub(crate) fn properties<'a>(schema: &'a Value, root: &'a Value) -> Option<&'a Map<String, Value>> {
    follow(schema, root).get("properties")?.as_object()
}

pub(crate) fn follow<'a>(schema: &'a Value, root: &'a Value) -> &'a Value {
    let target =
        schema.get("$ref").and_then(Value::as_str).and_then(|path| root.pointer(path.strip_prefix('#')?));
    target.map_or(schema, |target| follow(target, root))
}
