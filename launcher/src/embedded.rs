//! Embedded files: the run file of `podium demo` and, if included, the initial policy of the demo.

use std::path::Path;

use podium_config::RunFile;
use podium_files::durable;

/// The demo's run file.
pub(crate) const RUN_FILE: &str = include_str!("../../deploy/configs/embedded.toml");
/// Its name in messages.
pub(crate) const RUN_FILE_NAME: &str = "the demo's run file";

/// The configuration of a policy for the embedded data set.
pub(crate) const POLICY_CONFIG: &str = include_str!("../embedded/config.json");

/// The files of the initial policy; empty in a build without it.
static START: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/start.rs"));

/// Returns whether the embedded initial policy supports this run's prompts.
pub(crate) fn start_fits(run: &RunFile) -> bool {
    let Ok(embedded) = toml::from_str::<RunFile>(RUN_FILE) else { return false };
    !START.is_empty()
        && run.data == embedded.data
        && items(run) == items(&embedded)
        && run.prompt == embedded.prompt
        && run.answer == embedded.answer
        && run.candidates.count == embedded.candidates.count
        && run.demonstration == embedded.demonstration
        && run.sft == embedded.sft
}

/// Returns the values of a run's world that its prompts depend on: which items exist, and the number of items
/// in a history.
const fn items(run: &RunFile) -> [u64; 5] {
    let world = &run.world;
    [world.seed, world.looks as u64, world.themes as u64, world.items_per_pair as u64, world.history as u64]
}

/// Writes the embedded initial policy into `folder`.
pub(crate) fn write_start(folder: &Path) -> Result<(), durable::Error> {
    durable::create_folder(folder)?;
    START.iter().try_for_each(|(name, bytes)| durable::write(&folder.join(name), bytes))
}

/// Writes the embedded initial policy with another number of positions, which its weights do not depend on.
pub(crate) fn write_start_with_positions(folder: &Path, positions: u32) -> Result<(), durable::Error> {
    write_start(folder)?;
    let mut config: serde_json::Value =
        serde_json::from_str(POLICY_CONFIG).expect("the embedded configuration is JSON");
    config["max_position_embeddings"] = positions.into();
    durable::write(&folder.join("config.json"), config.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_run_file_is_valid() {
        let run = RunFile::parse(RUN_FILE, RUN_FILE_NAME, &[]).unwrap();
        assert_eq!(run.data.dir, None, "the embedded data set has no folder");
        assert_eq!(run.model.path, None, "the embedded start has no folder");
    }

    #[test]
    fn another_world_needs_another_initial_policy() {
        let fits = |change: &str| {
            start_fits(&RunFile::parse(RUN_FILE, RUN_FILE_NAME, &[change.parse().unwrap()]).unwrap())
        };
        assert!(!fits("world.looks=3"));
        assert_eq!(fits("world.p_switch=0.5"), !START.is_empty(), "users differ, items do not");
    }

    #[test]
    fn the_embedded_files_are_a_policy() {
        let folder = tempfile::tempdir().unwrap();
        write_start(folder.path()).unwrap();
        for name in START.iter().map(|(name, _)| name) {
            assert!(folder.path().join(name).is_file());
        }
        assert!(START.is_empty() || START.iter().any(|(name, _)| *name == "model.safetensors"));
    }
}
