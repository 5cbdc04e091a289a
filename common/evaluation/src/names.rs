//! Display names of policies.

use std::path::Path;

/// Returns the name of each folder: the last two components of its path, more of them for equal names, and a number for
/// equal paths.
pub(crate) fn of<'a>(folders: impl Iterator<Item = &'a Path>) -> Vec<String> {
    let folders: Vec<&Path> = folders.collect();
    let tail = |folder: &Path, length: usize| -> String {
        let parts: Vec<String> =
            folder.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
        parts[parts.len().saturating_sub(length)..].join("/")
    };
    let longest = folders.iter().map(|folder| folder.components().count()).max().unwrap_or(2);
    let mut names: Vec<String> = Vec::new();
    for folder in &folders {
        let others = || folders.iter().filter(|other| *other != folder);
        let length = (2..longest)
            .find(|&length| others().all(|other| tail(other, length) != tail(folder, length)))
            .unwrap_or(longest);
        let name = tail(folder, length);
        let before =
            names.iter().filter(|other| **other == name || other.starts_with(&format!("{name} ("))).count();
        names.push(if before == 0 { name } else { format!("{name} ({})", before + 1) });
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_have_distinct_names() {
        let named = |folders: &[&str]| of(folders.iter().map(Path::new));
        assert_eq!(named(&["runs/a/policy/40", "runs/start"]), ["policy/40", "runs/start"]);
        assert_eq!(named(&["runs/a/policy/40", "runs/b/policy/40"]), ["a/policy/40", "b/policy/40"]);
        assert_eq!(named(&["p", "p", "p"]), ["p", "p (2)", "p (3)"]);
    }
}
