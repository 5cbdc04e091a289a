//! Names and parameters of the filters.

/// Returns the parameters of a filter and the number of required ones; `None` for an unknown filter.
pub(super) fn signature(name: &str) -> Option<(&'static [&'static str], usize)> {
    Some(match name {
        "abs" | "capitalize" | "count" | "e" | "escape" | "first" | "items" | "last" | "length" | "list"
        | "lower" | "reverse" | "safe" | "string" | "title" | "upper" => (&[], 0),
        "attr" => (&["name"], 1),
        "d" | "default" => (&["default_value", "boolean"], 0),
        "dictsort" => (&["case_sensitive", "by", "reverse"], 0),
        "float" => (&["default"], 0),
        "indent" => (&["width", "first", "blank"], 0),
        "int" => (&["default", "base"], 0),
        "join" => (&["d", "attribute"], 0),
        "max" | "min" | "unique" => (&["case_sensitive", "attribute"], 0),
        "replace" => (&["old", "new", "count"], 2),
        "round" => (&["precision", "method"], 0),
        "sort" => (&["reverse", "case_sensitive", "attribute"], 0),
        "sum" => (&["attribute", "start"], 0),
        "tojson" => (&["ensure_ascii", "indent", "separators", "sort_keys"], 0),
        "trim" => (&["chars"], 0),
        _ => return None,
    })
}

/// Filters that forward their arguments to another filter or test.
const FORWARDING: [&str; 6] = ["format", "map", "reject", "rejectattr", "select", "selectattr"];

pub(crate) fn is_known(name: &str) -> bool {
    signature(name).is_some() || FORWARDING.contains(&name)
}
