//! `podium-curator refine`: rewrites drafts from captions only, with a reasoning model.

use podium_service::output_line;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use podium_recsys::User;

use super::history::{self, Modality};
use super::{file, steps, users};
use crate::endpoint::Message;
use crate::leak;
use crate::session::{self, Failure, Outcome, Question};
use crate::source::{self, Source};

/// Token budget of the four steps with the reasoning of a reasoning model before them.
const MAX_TOKENS: u64 = 16_384;

const INSTRUCTION: &str = "You edit reasoning about the taste of users. Below are descriptions of the items that one \
    user chose, oldest first, and a draft of what they will choose next and why. Rewrite the draft so that every claim \
    follows from the descriptions; drop what does not, and add what was missed. Keep the four steps:";

/// Rewrites reasoning about training users from captions only.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: source::Arguments,
    #[command(flatten)]
    session: session::Arguments,
    /// The drafts. Default: the reasoning from images in the data folder.
    #[arg(long, value_name = "FILE")]
    draft: Option<PathBuf>,
}

impl Arguments {
    pub(crate) async fn run(&self) -> anyhow::Result<ExitCode> {
        let source = self.source.load()?;
        let path = self.draft.clone().unwrap_or_else(|| source.file(&file::ending(Modality::Images)));
        let drafts = file::read(&path, &source.dataset)?;
        let drafted: Vec<(&User, &String)> = users::training(&source.dataset, None, source.seed())
            .into_iter()
            .filter_map(|user| Some((user, drafts.get(&user.id)?)))
            .collect();
        output_line!("rewriting the reasoning about {} training users", drafted.len());
        let session = self.session.session("refine", &source.folder, MAX_TOKENS)?;
        let results = session
            .each(&drafted, async |index| {
                let (user, draft) = drafted[index];
                let question = question(&source, user, draft)?;
                session.ask(&question, |answer| steps::read(answer).map(|_| answer.to_owned())).await
            })
            .await;
        let mut outcome = Outcome::default();
        let texts = outcome.sort(&drafted, results, |(user, _)| user.id.to_string());
        let users: Vec<&User> = drafted.iter().map(|(user, _)| *user).collect();
        let output = source.file(file::REFINED);
        outcome.finish(&session, &output, || file::write(&output, &source.dataset, &users, texts))
    }
}

fn question(source: &Source, user: &User, draft: &str) -> Result<Question, Failure> {
    let catalogue = &source.dataset.catalogue;
    let items = history::items(catalogue, source.dataset.history(user));
    let captions = history::by_captions(&items, false).ok_or(Failure::NothingToShow(Modality::Captions))?;
    let instruction = format!("{INSTRUCTION}\n\n{}", steps::FORM);
    let messages =
        vec![Message::system(&instruction), Message::user(&format!("{captions}\n\nThe draft:\n{draft}"))];
    // A draft that names the target was written with knowledge of it, or guessed it; neither is sent.
    if let Some(target) = catalogue.get(user.target()) {
        leak::check(user.id, target, &messages, &[&instruction, &history::record_texts(&items)])?;
    }
    Ok(Question { messages, sample: None })
}
