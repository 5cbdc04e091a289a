//! `podium check-config`: reads run files like a run, with the tokenizer and the chat template of the policy if
//! available, and prints the range of their rewards.

mod machine;
mod memory;
mod shape;
mod time;

use std::path::PathBuf;
use std::process::ExitCode;

use podium_config::{Override, RunFile};
use podium_recsys::completion::ThinkingStart;
use podium_recsys::{synthetic, task};
use podium_service::{logs, notice, output_line};
use podium_tokenizer::{Chat, Variables, word_level};

use crate::cli::ComputedFlags;
use crate::devices::{self, Table};

/// The reasons why a run cannot start with the policy's tokenizer and chat template.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Tokenizer(#[from] podium_tokenizer::Error),
    #[error(transparent)]
    Task(#[from] task::Error),
    #[error(transparent)]
    World(#[from] synthetic::Error),
    #[error("cannot create a temporary folder: {0}")]
    Folder(std::io::Error),
}

/// Reports for each file, with `overrides`, whether a run could start from it.
pub(crate) fn check_config(files: &[PathBuf], overrides: &[Override], flags: &ComputedFlags) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for file in files {
        let checked =
            RunFile::load(file, overrides).map_err(|error| logs::describe(&error)).and_then(|run| {
                let note = check_template(&run).map_err(|error| logs::describe(&error))?;
                Ok((run, note))
            });
        match checked {
            Ok((run, note)) => {
                output_line!("{}: valid, run hash {}", file.display(), &run.hash()[..12]);
                if let Ok(rewards) = run.rewards() {
                    output_line!("    reward: {}", rewards.extremes());
                    for term in rewards.external() {
                        output_line!("    external reward {}", term.described());
                    }
                    for violation in rewards.violations() {
                        output_line!("    warning: the reward is misaligned: {violation}");
                    }
                }
                if let Some(note) = note {
                    output_line!("    {note}");
                }
                if let Some(devices) = devices(&run) {
                    output_line!("    {}", devices.replace('\n', "\n    "));
                }
                let memory = flags.what.memory.map(|card| {
                    let text = memory::describe(&run, flags.prompt_tokens, card);
                    ("memory", text.map_err(|error| logs::describe(&error)))
                });
                let time = flags.what.time.as_deref().map(|machine| {
                    let text = time::describe(&run, machine, flags);
                    ("time", text.map_err(|error| logs::describe(&error)))
                });
                for (what, text) in memory.into_iter().chain(time) {
                    match text {
                        Ok(text) => output_line!("    {}", text.replace('\n', "\n    ")),
                        Err(reason) => {
                            notice!("error: {}: cannot compute the {what}: {reason}", file.display());
                            code = ExitCode::FAILURE;
                        }
                    }
                }
            }
            Err(message) => {
                // Most messages include the file's name.
                let name = file.display().to_string();
                let location = if message.contains(&name) { String::new() } else { format!("{name}: ") };
                notice!("error: {location}{message}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

/// Returns the devices that `podium train` would use on this machine, or the reason why it cannot run here; `None`
/// without a GPU. Not a fault of the run file, which may be for another machine.
fn devices(run: &RunFile) -> Option<String> {
    match Table::of_run(run) {
        Ok(table) => table.has_gpus().then(|| table.to_string()),
        Err(devices::Error::NoGpu { .. }) => None,
        Err(error) => {
            let reason = logs::describe(&error);
            Some(format!("warning: podium train cannot start on this machine: {reason}"))
        }
    }
}

/// Refuses a policy whose prompts cannot be rendered or whose completions cannot end, and a chat template that closes
/// the think block although thinking is required. Returns a note about the template.
fn check_template(run: &RunFile) -> Result<Option<String>, Error> {
    // Holds the embedded tokenizer while it is read.
    let embedded;
    let folder = match (&run.model.path, &run.data.dir) {
        (Some(folder), _) if folder.join("tokenizer.json").exists() => folder.as_path(),
        (Some(folder), _) => {
            let note =
                format!("note: the chat template is not checked: {} has no tokenizer.json", folder.display());
            return Ok(Some(note));
        }
        (None, Some(_)) => return Ok(None),
        (None, None) => {
            embedded = tempfile::tempdir().map_err(Error::Folder)?;
            word_level::write(word_level::tokens(synthetic::words(&run.world)?), embedded.path())?;
            embedded.path()
        }
    };
    let variables = Variables::prompt(run.model.enable_thinking, &run.model.template_variables);
    let system = run.prompt.system.iter().map(|text| ("system", text.as_str()));
    let messages = system.chain([("user", "history and candidates")]);
    let chat = Chat::load(folder, variables)?;
    chat.tokenizer().check_for_training()?;
    let start = ThinkingStart::of(&chat.generation_prompt(messages)?);
    match start {
        ThinkingStart::Closed { .. } if run.answer.require_thinking => {
            Err(task::Error::ThinkingIsOver.into())
        }
        ThinkingStart::Absent => Ok(None),
        start => Ok(Some(format!(
            "note: the prompt has {} the think block where a completion begins",
            start.name()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(overrides: &[&str]) -> Result<Option<String>, String> {
        let overrides: Vec<_> = overrides.iter().map(|text| text.parse().unwrap()).collect();
        let run = RunFile::parse("", "the test's run file", &overrides).unwrap();
        check_template(&run).map_err(|error| podium_service::logs::describe(&error))
    }

    #[test]
    fn a_template_that_closes_the_think_block_is_refused_if_thinking_is_required() {
        assert_eq!(checked(&[]), Ok(None));
        let refused = checked(&["model.enable_thinking=false"]).unwrap_err();
        assert!(
            refused.contains("answer.require_thinking is true") && refused.contains("closes"),
            "{refused}"
        );
        let noted = checked(&["model.enable_thinking=false", "answer.require_thinking=false"]).unwrap();
        assert!(noted.unwrap().contains("has closed the think block"));

        let folder = tempfile::tempdir().unwrap();
        let path = format!("model.path={}", folder.path().display());
        assert!(checked(&[&path]).unwrap().unwrap().contains("has no tokenizer.json"));
        let words = synthetic::words(&synthetic::World::default()).unwrap();
        word_level::write(word_level::tokens(words), folder.path()).unwrap();
        let template =
            "{{ messages[0].content }}{% if add_generation_prompt %}assistant\n<think>\n{% endif %}";
        std::fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
        assert!(checked(&[&path]).unwrap().unwrap().contains("has opened the think block"));
        std::fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
        assert!(checked(&[&path]).unwrap_err().contains("is not a tokenizer"));
    }
}
