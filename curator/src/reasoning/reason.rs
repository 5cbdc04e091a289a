//! `podium-curator reason`: infers the user's next wish from the history, in four steps.

use podium_service::output_line;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use podium_recsys::{ItemId, User};

use super::history::{self, Modality};
use super::{file, steps, users};
use crate::endpoint::{Message, Part};
use crate::leak;
use crate::pictures::Pictures;
use crate::session::{self, Failure, Outcome, Question};
use crate::source::{self, Source};

/// Token budget of the four steps with some reasoning before them.
const MAX_TOKENS: u64 = 4096;

const INSTRUCTION: &str = "You study the taste of users. Below are the items that one user chose, oldest first. Reason \
    about what they will choose next, in four steps:";

/// Generates reasoning about the training users of a data set, from pictures or from captions.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: source::Arguments,
    #[command(flatten)]
    session: session::Arguments,
    /// Input of the model in addition to the titles.
    #[arg(long, value_enum)]
    from: Modality,
    /// Folder of the pictures. Default: images in the data folder.
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Number of users, sampled with the run file's seed. Default: all training users.
    #[arg(long, value_name = "N")]
    users: Option<usize>,
}

impl Arguments {
    pub(crate) async fn run(&self) -> anyhow::Result<ExitCode> {
        let source = self.source.load()?;
        let pictures = match self.from {
            Modality::Images => {
                let folder = self.images.clone().unwrap_or_else(|| source.folder.join("images"));
                Pictures::list(&folder, &source.dataset.catalogue)?.of_items
            }
            Modality::Captions => BTreeMap::new(),
        };
        let users = users::training(&source.dataset, self.users, source.seed());
        output_line!("reasoning about {} training users, from {}", users.len(), self.from);
        let session = self.session.session("reason", &source.folder, MAX_TOKENS)?;
        let results = session
            .each(&users, async |index| {
                let question = self.question(&source, users[index], &pictures)?;
                session.ask(&question, |answer| steps::read(answer).map(|_| answer.to_owned())).await
            })
            .await;
        let mut outcome = Outcome::default();
        let texts = outcome.sort(&users, results, |user| user.id.to_string());
        let output = source.file(&file::ending(self.from));
        outcome.finish(&session, &output, || file::write(&output, &source.dataset, &users, texts))
    }

    fn question(
        &self,
        source: &Source,
        user: &User,
        pictures: &BTreeMap<ItemId, PathBuf>,
    ) -> Result<Question, Failure> {
        let catalogue = &source.dataset.catalogue;
        let items = history::items(catalogue, source.dataset.history(user));
        let instruction = format!("{INSTRUCTION}\n\n{}", steps::FORM);
        let shown = match self.from {
            Modality::Images => history::by_pictures(&items, pictures)?,
            Modality::Captions => history::by_captions(&items, true).map(|text| vec![Part::Text(text)]),
        };
        let shown = shown.ok_or(Failure::NothingToShow(self.from))?;
        let messages = vec![Message::system(&instruction), Message::parts(shown)];
        if let Some(target) = catalogue.get(user.target()) {
            leak::check(user.id, target, &messages, &[&instruction, &history::record_texts(&items)])?;
        }
        Ok(Question { messages, sample: None })
    }
}
