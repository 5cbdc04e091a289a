//! The judge ranks candidates by a reasoning. It receives neither the history nor the target.

use podium_recsys::completion::{self, Expected, Form, Layout, ThinkingStart};
use podium_recsys::task::Case;
use podium_recsys::{Catalogue, Item};

use crate::endpoint::Message;

/// Maximum number of candidates to list; a target further down counts as not found.
const LONGEST_LIST: usize = 10;

/// Returns the messages to the judge about a case.
pub(super) fn question(case: &Case, reasoning: &str, catalogue: &Catalogue) -> Vec<Message> {
    let line = |item: &Item| match &item.caption {
        Some(caption) => format!("{} {} — {caption}", item.id, item.title),
        None => format!("{} {}", item.id, item.title),
    };
    let candidates: Vec<String> =
        case.candidates.iter().filter_map(|id| catalogue.get(*id)).map(line).collect();
    let instruction = format!(
        "Somebody reasoned about what a user will choose next. Judging by that reasoning alone, list the {} \
         candidates that fit it best, best first, as [ITEM_<id>], one a line, and write nothing else.",
        listed(case)
    );
    let asked = format!("The reasoning:\n{reasoning}\n\nThe candidates:\n{}", candidates.join("\n"));
    vec![Message::system(&instruction), Message::user(&asked)]
}

/// Returns the rank of the target in a judge's answer, from 1, or the reason why the answer is invalid.
pub(super) fn rank(answer: &str, case: &Case, catalogue: &Catalogue) -> Result<Option<usize>, String> {
    let options =
        completion::Options { list_length: listed(case), layout: Layout::Ids, require_thinking: false };
    // A chat endpoint returns the judge's complete message.
    let thinking_start = ThinkingStart::Absent;
    let expected = Expected { options: &options, candidates: &case.candidates, catalogue, thinking_start };
    let parsed = completion::parse(answer, &expected);
    match parsed.form {
        Form::WellFormed => {
            let position = parsed.ranking.iter().position(|listed| listed.item == case.target);
            Ok(position.map(|position| position + 1))
        }
        form => Err(format!(
            "it is no list of {} different candidates as [ITEM_<id>], one a line ({form})",
            options.list_length
        )),
    }
}

fn listed(case: &Case) -> usize {
    case.candidates.len().min(LONGEST_LIST)
}
